//! Steady time: what stores keep of the boot clock, so that it goes on over restarts and boots and never goes back.
//!
//! [`Instant`]s mean something to one boot only, wall-clock times jump. A store therefore keeps the boot it was last used
//! in and a base: an instant of that boot plus the base is [`Steady`]. In the same boot the base stays, and steady time
//! goes on to the microsecond, whatever the wall clock does. In another boot nobody knows how long the machine was off:
//! the wall clock is believed as far as it goes forward, and steady time begins no earlier than anything the store holds.
//! Windows, backoffs, delays and deadlines rest on nothing else; why: `docs/design/0009`.

use crate::time::{Instant, Now};

/// A point in steady time, in microseconds. Near the time since 1970, but no wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Steady(i64);

/// What a store keeps of steady time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptClock {
    /// The boot in which the store was last used, however it is told from others; nothing when it could not be.
    pub boot: Option<String>,
    /// Steady time less the boot clock in that boot.
    pub base_us: i64,
    /// When the store was first used in that boot. How long ago anything earlier was, only the wall clock said.
    pub since: Steady,
}

/// Converts between the instants of the present boot and steady time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyClock {
    base_us: i64,
    since: Steady,
}

impl Steady {
    /// The point `micros` microseconds after the origin of steady time.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin of steady time.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

impl SteadyClock {
    /// Goes on from what a store kept. `boot` tells the present boot from others, `latest` is the latest moment that the
    /// store knows to lie in the past.
    ///
    /// # Example
    /// ```
    /// use farcall_core::steady::{KeptClock, Steady, SteadyClock};
    /// use farcall_core::time::{Instant, Now, Timestamp};
    ///
    /// let now = |boot_us, wall_us| Now {
    ///     instant: Instant::from_micros(boot_us),
    ///     timestamp: Timestamp::from_micros(wall_us),
    /// };
    /// let first = SteadyClock::go_on(None, None, Some("a"), now(10, 1_000));
    /// assert_eq!(first.steady(Instant::from_micros(10)), Steady::from_micros(1_000));
    /// // The wall clock went back; in the same boot that means nothing.
    /// let kept = first.keep(Some("a"));
    /// let second = SteadyClock::go_on(Some(&kept), Some(Steady::from_micros(1_005)), Some("a"), now(20, 500));
    /// assert_eq!(second.steady(Instant::from_micros(20)), Steady::from_micros(1_010));
    /// // In another boot, steady time goes on where the store stands.
    /// let third = SteadyClock::go_on(Some(&kept), Some(Steady::from_micros(1_005)), Some("b"), now(3, 500));
    /// assert_eq!(third.steady(Instant::from_micros(3)), Steady::from_micros(1_005));
    /// ```
    pub fn go_on(kept: Option<&KeptClock>, latest: Option<Steady>, boot: Option<&str>, now: Now) -> Self {
        let same_boot = kept.filter(|kept| boot.is_some() && kept.boot.as_deref() == boot);
        if let Some(kept) = same_boot {
            let clock = Self { base_us: kept.base_us, since: kept.since };
            // A boot clock that went back is another one, whatever its boot is called (a machine's older snapshot).
            if latest.is_none_or(|latest| clock.steady(now.instant) >= latest) {
                return clock;
            }
        }
        let wall = now.timestamp.as_micros();
        let begin = latest.map_or(wall, |latest| latest.0.max(wall));
        Self { base_us: begin.saturating_sub(now.instant.as_micros()), since: Steady(begin) }
    }

    /// What a store is to keep of it.
    pub fn keep(&self, boot: Option<&str>) -> KeptClock {
        KeptClock { boot: boot.map(str::to_owned), base_us: self.base_us, since: self.since }
    }

    /// From when on the time between two moments is certain, and not only what the wall clock said.
    pub const fn certain_since(&self) -> Instant {
        self.instant(self.since)
    }

    /// An instant of the present boot, to be stored.
    pub const fn steady(&self, instant: Instant) -> Steady {
        Steady(instant.as_micros().saturating_add(self.base_us))
    }

    /// Where a stored moment lies for the present boot; before it began, if it was earlier.
    pub const fn instant(&self, steady: Steady) -> Instant {
        Instant::from_micros(steady.0.saturating_sub(self.base_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn now(boot_us: i64, wall_us: i64) -> Now {
        Now { instant: Instant::from_micros(boot_us), timestamp: Timestamp::from_micros(wall_us) }
    }

    /// Steady time now, and since when it is certain.
    fn clock(latest: i64, boot: Option<&str>, at: Now) -> (i64, i64) {
        let kept = KeptClock { boot: Some("one".to_owned()), base_us: 1_000, since: Steady(1_100) };
        let clock = SteadyClock::go_on(Some(&kept), Some(Steady(latest)), boot, at);
        (clock.steady(at.instant).0, clock.steady(clock.certain_since()).0)
    }

    #[test]
    fn in_the_same_boot_the_wall_clock_means_nothing() {
        for wall in [i64::MIN, 0, 1_500, i64::MAX] {
            assert_eq!(clock(1_400, Some("one"), now(500, wall)), (1_500, 1_100));
        }
    }

    #[test]
    fn in_another_boot_the_wall_clock_is_believed_forward_only() {
        assert_eq!(clock(1_400, Some("two"), now(5, 9_000)), (9_000, 9_000));
        assert_eq!(clock(1_400, Some("two"), now(5, 300)), (1_400, 1_400));
    }

    #[test]
    fn a_boot_that_cannot_be_told_is_another_one() {
        assert_eq!(clock(1_400, None, now(500, 1_200)), (1_400, 1_400));
        let kept = KeptClock { boot: None, base_us: 7, since: Steady(8) };
        assert_eq!(SteadyClock::go_on(Some(&kept), None, None, now(1, 50)).since, Steady(50));
    }

    #[test]
    fn a_boot_clock_that_went_back_is_another_one() {
        assert_eq!(clock(1_400, Some("one"), now(300, 1_200)), (1_400, 1_400));
    }

    #[test]
    fn conversion_goes_both_ways_and_saturates() {
        let clock = SteadyClock { base_us: 1_000, since: Steady(0) };
        assert_eq!(clock.instant(clock.steady(Instant::from_micros(-3))), Instant::from_micros(-3));
        assert_eq!(clock.steady(Instant::from_micros(i64::MAX)), Steady(i64::MAX));
        assert_eq!(clock.instant(Steady(i64::MIN)), Instant::from_micros(i64::MIN));
    }
}
