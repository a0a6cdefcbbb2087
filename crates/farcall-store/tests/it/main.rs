//! What every store must do, run against each, and what only SQLite can do wrong.
//!
//! `lab` opens, restarts and crashes a store; `sample` makes records; `for_each_store!` runs one function per store.

mod agreement;
mod clock;
mod commits;
mod conflicts;
mod damage;
mod grants;
mod grants_unstored;
mod lab;
mod list;
mod memory;
mod prune;
mod recovery;
mod round_trip;
mod sample;
mod sqlite;
mod sqlite_grants;
mod sqlite_prune;
mod upstreams;
mod waiting;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// One test per function and store.
macro_rules! for_each_store {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test] fn $name() -> crate::Outcome { super::$name(&mut crate::lab::MemoryLab::open()?) })+
        }
        mod sqlite {
            $(#[test] fn $name() -> crate::Outcome { super::$name(&mut crate::lab::SqliteLab::open()?) })+
        }
    };
}
use for_each_store;
