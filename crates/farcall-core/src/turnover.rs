//! When to come back: how soon a place is likely to become free, or a trouble to be over.
//!
//! Nobody knows that. What is told is an estimate from what has been so far, never nothing and never for ever: whoever
//! is refused comes back by it, and too early costs less than never.

use std::time::Duration;

use crate::time::Instant;

/// The shortest wait that anybody is told.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How places of one kind are taken and given back.
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use farcall_core::time::Instant;
/// use farcall_core::turnover::Turnover;
///
/// let at = |seconds: i64| Instant::from_micros(seconds * 1_000_000);
/// let mut turnover = Turnover::default();
/// for _ in 0..3 {
///     turnover.taken(at(0));
/// }
/// turnover.given_back(at(20), Duration::from_secs(20));
/// // Two are held, for twenty seconds each as far as is known: one of them goes every ten seconds.
/// assert_eq!(turnover.next_free_in(at(20)), Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turnover {
    held: u32,
    /// For how long a place is held, of late; nothing before one was given back.
    mean: Option<Duration>,
    /// When a place was last taken or given back.
    changed_at: Option<Instant>,
}

impl Turnover {
    /// A place is taken.
    pub const fn taken(&mut self, now: Instant) {
        self.held = self.held.saturating_add(1);
        self.changed_at = Some(now);
    }

    /// A place that was held for so long is free again.
    pub fn given_back(&mut self, now: Instant, held_for: Duration) {
        self.held = self.held.saturating_sub(1);
        self.mean = Some(self.mean.map_or(held_for, |mean| (mean * 7).saturating_add(held_for) / 8));
        self.changed_at = Some(now);
    }

    /// How long it is likely to take until one of those that are held is free: the mean time for which one is held,
    /// shared by all who hold one; and as long again as nothing has moved.
    pub fn next_free_in(&self, now: Instant) -> Duration {
        let by_mean = self.mean.map_or(Duration::ZERO, |mean| mean / self.held.max(1));
        let still_for = self.changed_at.map(|at| now.since(at)).unwrap_or_default();
        worth_waiting(by_mean.max(still_for))
    }
}

/// How much longer something is likely to last that began at `since` and of which nothing else is known: as long again.
pub fn as_long_again(since: Instant, now: Instant) -> Duration {
    worth_waiting(now.since(since))
}

fn worth_waiting(wait: Duration) -> Duration {
    wait.clamp(WAIT_MIN, WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn without_experience_it_is_a_second_and_longer_the_longer_nothing_moves() {
        let mut turnover = Turnover::default();
        assert_eq!(turnover.next_free_in(at(0)), WAIT_MIN);
        turnover.taken(at(0));
        assert_eq!(turnover.next_free_in(at(10)), WAIT_MIN);
        assert_eq!(turnover.next_free_in(at(7_000)), seconds(7));
        assert_eq!(turnover.next_free_in(at(7_000_000)), WAIT_MAX);
    }

    #[test]
    fn places_that_are_held_briefly_come_free_soon_however_rarely_they_are_used() {
        let mut turnover = Turnover::default();
        for hour in 0..5 {
            turnover.taken(at(hour * 3_600_000));
            turnover.given_back(at(hour * 3_600_000 + 100), Duration::from_millis(100));
        }
        turnover.taken(at(18_000_000));
        assert_eq!(turnover.next_free_in(at(18_000_001)), WAIT_MIN);
    }

    #[test]
    fn a_trouble_lasts_as_long_again() {
        assert_eq!(as_long_again(at(1_000), at(1_000)), WAIT_MIN);
        assert_eq!(as_long_again(at(1_000), at(21_000)), seconds(20));
        assert_eq!(as_long_again(at(0), at(1_000_000)), WAIT_MAX);
    }
}
