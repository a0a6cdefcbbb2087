//! One clock for all processes of a benchmark.
//!
//! An `Instant` cannot be told to another process; microseconds can.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the monotonic clock, which is the same in every process of the machine.
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}
