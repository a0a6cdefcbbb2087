//! The decisions of farcall: what may start, when, what an answer means, and what must be on disk first.
//!
//! No I/O, no clock, no chance: time and a seeded generator are arguments, so that everything here can be tested on a
//! virtual clock and replayed from a seed. Bodies, headers and URLs never come here.

pub mod attempt;
pub mod breaker;
pub mod call;
pub mod classify;
pub mod dispatcher;
pub mod hedge;
pub mod hop;
pub mod id;
pub mod id_map;
pub mod lane;
pub mod latency;
pub mod lifecycle;
pub mod limit;
pub mod policy;
pub mod remaining;
pub mod retention;
pub mod retry;
pub mod settle;
pub mod share;
pub mod steady;
pub mod time;
pub mod timers;
pub mod turnover;
