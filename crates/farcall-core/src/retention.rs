//! How long what has ended is kept: calls by their end, idempotency keys, what limits count.
//!
//! Ages are told in the instants that decisions rest on, so no jump of the wall clock makes anything old.

use std::time::Duration;

use crate::call::State;
use crate::limit::DOUBTED_WINDOW_MAX;
use crate::time::Instant;

const DAY: Duration = Duration::from_secs(86_400);

/// How long an idempotency key names its call after that has ended. The call stays as long, or whoever submits again
/// could not be told of it.
pub const KEY_KEPT: Duration = Duration::from_secs(72 * 3_600);

/// How long what pruned calls count in limits is kept at least, whatever windows are configured: a limit that comes or
/// grows later counts what was sent before.
pub const GRANTS_KEPT_MIN: Duration = Duration::from_secs(31 * 86_400);

/// A call that ended less than this ago is kept, however large the store is: whoever waits for its outcome is to see it.
pub const SPARED: Duration = Duration::from_secs(10);

/// How long calls are kept after their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Calls that ended as somebody wanted: succeeded, cancelled. Nothing keeps them for ever.
    pub succeeded: Option<Duration>,
    /// All others.
    pub failed: Option<Duration>,
    /// When more is stored, calls go before their time; nothing when they may take all there is.
    pub bytes_max: Option<u64>,
    /// The longest window that limits have, if that is longer than [`GRANTS_KEPT_MIN`].
    pub window_max: Duration,
    /// From when on the time between two moments is known for certain: since this boot began.
    pub certain_since: Instant,
}

impl Default for Retention {
    /// 7 days, 30 days.
    fn default() -> Self {
        Self {
            succeeded: Some(DAY * 7),
            failed: Some(DAY * 30),
            bytes_max: None,
            window_max: Duration::ZERO,
            certain_since: Instant::MIN,
        }
    }
}

impl Retention {
    /// How long a call that ended so is kept; nothing for ever, and for one that lives.
    ///
    /// # Example
    /// ```
    /// use farcall_core::call::State;
    /// use farcall_core::retention::Retention;
    ///
    /// let retention = Retention { failed: None, ..Retention::default() };
    /// assert_eq!(retention.of(State::Cancelled), retention.of(State::Succeeded));
    /// assert_eq!(retention.of(State::Expired), None);
    /// ```
    pub const fn of(&self, state: State) -> Option<Duration> {
        match state {
            State::Succeeded | State::Cancelled => self.succeeded,
            State::Failed | State::Expired | State::Unknown | State::Poisoned => self.failed,
            State::Scheduled | State::Queued | State::Running | State::Retrying => None,
        }
    }

    /// What was granted before does not count in any limit now.
    pub fn grants_since(&self, now: Instant) -> Instant {
        // Soon after a boot short windows count whatever an earlier boot has proved, however long ago that seems to be.
        if now < self.certain_since + DOUBTED_WINDOW_MAX * 2 {
            return Instant::MIN;
        }
        // A window counts a little longer than its length.
        now - GRANTS_KEPT_MIN.max(self.window_max + self.window_max / 500)
    }

    /// The shorter of the two times, where there is one.
    pub fn shortest(&self) -> Option<Duration> {
        self.succeeded.into_iter().chain(self.failed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_boot_sent_is_kept_as_long_as_short_windows_doubt_the_time_since() {
        let booted_at = Instant::from_micros(0) + GRANTS_KEPT_MIN * 2;
        let retention = Retention { certain_since: booted_at, ..Retention::default() };
        let soon = booted_at + DOUBTED_WINDOW_MAX + Duration::from_secs(1);
        assert_eq!(retention.grants_since(soon), Instant::MIN);
        let later = booted_at + DOUBTED_WINDOW_MAX * 2;
        assert_eq!(retention.grants_since(later), later - GRANTS_KEPT_MIN);
    }
}
