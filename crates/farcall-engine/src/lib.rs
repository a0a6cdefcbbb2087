//! The shell around the core: one engine that takes calls in, makes their attempts and keeps their outcomes.
//!
//! Everything that waits, reads or writes is here; everything that chooses is in `farcall-core`. Servers and programs
//! talk to the engine through its `Handle` only. The engine names no database: a store is handed in.

pub mod clock;
pub mod config;
pub mod document;
pub mod execute;
pub mod intake;
pub mod quantity;
pub mod result_file;
pub mod secret;
