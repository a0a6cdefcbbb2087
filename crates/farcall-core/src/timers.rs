//! Everything that becomes due, in order of time. Each owner keeps the instant it set, so a timer can be taken back.
//!
//! It does not wait: the dispatcher asks for the earliest and says so as its next wake-up.

use std::collections::BTreeSet;

use crate::call::QuotaId;
use crate::id::{AttemptId, CallId};
use crate::time::Instant;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Slots or a cooldown of a quota may allow a start.
    Quota(QuotaId),
    /// A sleeping call may go on.
    Wake(CallId),
    /// A call's deadline passes.
    Deadline(CallId),
    /// An attempt has taken too long.
    Timeout(AttemptId),
    /// An attempt is not what farcall dies of.
    Survived(AttemptId),
    /// The deadline of a call that only the store holds may pass.
    StoredDeadline,
    /// A load that failed may be tried again.
    Load,
    /// Attempts in flight have had their time to finish.
    Drain,
    /// After a commit that failed another may be tried.
    Commit,
    /// Calls that ended long ago may be forgotten.
    Prune,
    /// What attempts of ephemeral calls came to in the limits is to be stored.
    GrantEnds,
}

/// The set of timers.
#[derive(Debug, Clone, Default)]
pub struct Timers {
    due: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub fn set(&mut self, at: Instant, timer: Timer) {
        self.due.insert((at, timer));
    }

    /// Takes a timer back; it need not be set any more.
    pub fn cancel(&mut self, at: Instant, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    /// The next timer that is due, taken out.
    pub fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(timer)
    }

    /// When the first timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_can_be_taken_back() {
        let mut timers = Timers::default();
        let wake = |bits| Timer::Wake(CallId::from_bits(bits));
        for (at, bits) in [(30, 3), (10, 1), (20, 2)] {
            timers.set(Instant::from_micros(at), wake(bits));
        }
        timers.cancel(Instant::from_micros(20), wake(2));
        let now = Instant::from_micros(30);
        assert_eq!(timers.pop(Instant::from_micros(9)), None);
        assert_eq!([timers.pop(now), timers.pop(now), timers.pop(now)], [Some(wake(1)), Some(wake(3)), None]);
    }
}
