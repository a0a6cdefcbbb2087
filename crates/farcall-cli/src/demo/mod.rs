//! What `farcall demo` is made of: an upstream on loopback, an example directory, and the tour through it.
//!
//! Everything in between is the real thing: the engine, the store, the files.

pub(crate) mod example;
pub(crate) mod narrator;
pub(crate) mod tour;
pub(crate) mod upstream;
pub(crate) mod watching;
