//! The only place that reads clocks.
//!
//! The boot clock counts suspended time too, so a sleeping machine's windows and backoffs go on; it never jumps.

use farcall_core::time::{Instant, Now, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// The present on both clocks.
pub fn now() -> Now {
    Now {
        instant: Instant::from_micros(micros(ClockId::Boottime)),
        timestamp: Timestamp::from_micros(micros(ClockId::Realtime)),
    }
}

fn micros(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
}
