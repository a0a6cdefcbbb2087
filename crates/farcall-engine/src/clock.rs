//! The only place that reads clocks.
//!
//! The boot clock counts suspended time too, so a sleeping machine's windows and backoffs go on; it never jumps. What
//! it shows means something to one boot only, and in one time namespace: [`boot`] tells which.

use std::fs;
use std::time::SystemTime;

use farcall_core::time::{Instant, Now, Timestamp};
use rustix::time::{ClockId, clock_gettime};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A link whose target names the namespace; each may set the boot clock off by a constant of its own.
const TIME_NAMESPACE: &str = "/proc/self/ns/time";

/// The present on both clocks.
pub fn now() -> Now {
    Now { instant: instant(), timestamp: wall() }
}

/// The present on the boot clock alone: half the price.
pub fn instant() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant::from_micros(time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000))
}

/// What tells the boot clock that [`now`] reads from those of other boots; nothing where the system does not say.
pub fn boot() -> Option<String> {
    let boot_id = fs::read_to_string(BOOT_ID).ok()?;
    // Kernels before 5.6 have no such namespaces.
    let namespace = fs::read_link(TIME_NAMESPACE).unwrap_or_default();
    Some(format!("{} {}", boot_id.trim(), namespace.display()))
}

/// The wall clock, which may stand before 1970.
fn wall() -> Timestamp {
    let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_micros(since_1970.map_or_else(|before| -micros(before.duration()), micros))
}
