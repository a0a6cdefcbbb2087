//! Where farcall keeps calls: one port, an in-memory store with crash semantics, and SQLite.
//!
//! The store is the journal of what was decided and the record that can be queried. The state of scheduling lives in
//! memory, in `farcall-core`; nothing is decided here.

pub mod memory;
pub mod port;
pub mod record;
pub mod sqlite;
mod transition;
