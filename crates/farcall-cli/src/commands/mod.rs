//! One file per command, named as the user types it.
//!
//! A command turns its arguments into calls on the engine or a server and prints; it decides nothing else.

pub(crate) mod launch;
