//! A deterministic simulator of farcall on a virtual clock, with checkers that share no code with what they check.
//!
//! Real are the dispatcher and the memory store. Modelled are the engine's loop, the executor, the network, the
//! upstreams, the submitters and the filing of responses. Everything random comes from the seed; each seed has a random
//! subset of features and faults. At last the faults stop, and everything must end.
//!
//! To look at a failure: `cargo xtask sim --seed N`.

mod account;
mod checker;
mod clocks;
mod control;
mod dice;
mod disk;
mod engine;
mod executor;
mod facts;
mod faults;
mod guests;
mod hedging;
mod journal;
mod life;
mod log;
mod plan;
mod policies;
mod pruning;
mod recovery;
mod run;
mod upstream;
mod workload;
mod world;

pub use disk::Care;
pub use run::{Failure, Summary, replay, replay_on, run, run_many};
