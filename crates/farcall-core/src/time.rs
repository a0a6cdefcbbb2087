//! Points in time as the core sees them: numbers handed in, never read from a clock.
//!
//! [`Instant`] is the boot clock (it runs on while the machine sleeps and never jumps), [`Timestamp`] the wall
//! clock in UTC. Everything that is decided uses instants; timestamps serve what users give and read. How instants
//! outlive their boot: `steady`. Both count whole microseconds; arithmetic saturates, so no duration can overflow.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the boot clock, in microseconds since an arbitrary origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(i64);

/// A point on the wall clock, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The present on both clocks, read once by the shell and handed to every decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub instant: Instant,
    pub timestamp: Timestamp,
}

impl Instant {
    /// Before every other.
    pub const MIN: Self = Self(i64::MIN);

    /// The instant `micros` microseconds after the clock's origin.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's origin.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Timestamp {
    /// The time `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Now {
    /// Where a wall-clock time lies on the boot clock, by the present difference of the two.
    pub fn instant_of(&self, timestamp: Timestamp) -> Instant {
        Instant(self.instant.0.saturating_add(timestamp.0.saturating_sub(self.timestamp.0)))
    }

    /// What the wall clock shows at an instant, by the present difference of the two.
    pub fn timestamp_of(&self, instant: Instant) -> Timestamp {
        Timestamp(self.timestamp.0.saturating_add(instant.0.saturating_sub(self.instant.0)))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let late = Instant::from_micros(i64::MAX - 1);
        assert_eq!(late + Duration::MAX, Instant::from_micros(i64::MAX));
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }

    #[test]
    fn the_two_clocks_convert_both_ways() {
        let now = Now { instant: Instant::from_micros(1_000), timestamp: Timestamp::from_micros(500_000) };
        assert_eq!(now.instant_of(Timestamp::from_micros(499_500)), Instant::from_micros(500));
        assert_eq!(now.timestamp_of(Instant::from_micros(2_000)), Timestamp::from_micros(501_000));
    }
}
