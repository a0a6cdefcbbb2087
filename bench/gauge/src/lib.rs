//! What the benchmarks measure with: a clock that all processes share, and what a process uses, as the kernel counts it.
//!
//! Linux only, read from `/proc`; nothing here is part of the product.

mod clock;
mod process;

pub use clock::now_us;
pub use process::{Memory, Process};
