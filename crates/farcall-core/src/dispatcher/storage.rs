//! Whether what is decided can be written: turns handed over, made durable, or failed.
//!
//! After a failed commit nothing is started and nobody is let in until a commit works again. What must not be forgotten,
//! settlements above all, is kept and tried again alone, after a wait that grows. What a failure undoes is in `undo`.

use std::time::Duration;

use super::gate::Held;
use super::{Dispatcher, Effect, Seq, TURN_WRITES_MAX, Turn, Write};
use crate::attempt::BytesSent;
use crate::id::AttemptId;
use crate::time::Now;
use crate::timers::Timer;

/// Turns that may be on their way to the disk at once.
pub const TURNS_IN_FLIGHT_MAX: usize = 32;
/// How long to wait after a failed commit; twice as long after each further one.
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How writing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Storage {
    #[default]
    Works,
    /// This many commits have failed in a row; nothing is handed over before a timer says so.
    Waits { failures: u32 },
    /// The next turn tries whether commits work again.
    Tries { failures: u32 },
}

impl Dispatcher {
    /// Whether the last commit failed, and nothing new is taken until one works again.
    pub const fn is_held_up(&self) -> bool {
        match self.storage {
            Storage::Works => false,
            Storage::Waits { .. } => true,
            Storage::Tries { .. } => self.keeps_writes,
        }
    }

    /// Turns that were handed over and are not durable yet.
    pub fn turns_in_flight(&self) -> usize {
        self.gate.len()
    }

    /// Whether a turn taken now may hold writes.
    pub(super) fn may_write(&self) -> bool {
        match self.storage {
            Storage::Works => self.gate.len() < TURNS_IN_FLIGHT_MAX,
            Storage::Waits { .. } => false,
            Storage::Tries { .. } => self.gate.is_empty(),
        }
    }

    /// Writes up to which a turn taken now may be filled with starts.
    pub(super) fn starts_max(&self) -> usize {
        match self.storage {
            _ if !self.may_write() => 0,
            Storage::Works => TURN_WRITES_MAX,
            Storage::Waits { .. } => 0,
            // What was kept goes alone; without any, one call is enough to try.
            Storage::Tries { .. } => usize::from(!self.keeps_writes),
        }
    }

    /// Hands over what was decided, as far as it may go now.
    pub(super) fn hand_over(&mut self) -> Turn {
        self.seq = Seq(self.seq.0 + 1);
        let seq = self.seq;
        let effects = std::mem::take(&mut self.effects);
        let unstored = std::mem::take(&mut self.unstored);
        if !self.may_write() || self.writes.is_empty() {
            return Turn { seq, writes: Vec::new(), unstored, effects };
        }
        let writes = std::mem::take(&mut self.writes);
        let after = std::mem::take(&mut self.effects_after);
        self.gate.hold(Held { seq, writes: writes.clone(), effects: after, census: self.census });
        Turn { seq, writes, unstored, effects }
    }

    /// An effect that rests on every write decided so far.
    pub(super) fn push_after_all(&mut self, effect: Effect) {
        if !self.writes.is_empty() {
            return self.effects_after.push(effect);
        }
        match self.gate.last_mut() {
            Some(held) => held.effects.push(effect),
            None => self.effects.push(effect),
        }
    }

    /// Every write up to `seq` is durable: what rests on them may happen.
    pub(super) fn committed(&mut self, now: Now, seq: Seq) {
        while let Some(held) = self.gate.pop_durable(seq) {
            self.durable_census = held.census;
            self.storage = Storage::Works;
            self.keeps_writes = false;
            for write in &held.writes {
                if let Write::Insert { call, .. } = *write {
                    self.note_stored(call);
                }
            }
            for effect in held.effects {
                match effect {
                    Effect::Launch { attempt, .. } if !self.may_launch(now, attempt) => {
                        self.aborted(now, attempt, BytesSent::No);
                    }
                    other => self.effects.push(other),
                }
            }
        }
    }

    /// The turn `seq` and all after it were not made durable.
    pub(super) fn commit_failed(&mut self, now: Now, seq: Seq) {
        let failed = self.gate.take_failed(seq);
        if failed.is_empty() {
            return;
        }
        let failures = match self.storage {
            Storage::Works => 1,
            Storage::Waits { failures } | Storage::Tries { failures } => failures.saturating_add(1),
        };
        self.storage = Storage::Waits { failures };
        let wait = RETRY_BASE.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(RETRY_MAX);
        self.timers.set(now.instant + wait, Timer::Commit);
        self.undo(now, failed);
        self.keeps_writes = !self.writes.is_empty();
    }

    /// It was waited long enough after a failed commit.
    pub(super) const fn try_again(&mut self) {
        if let Storage::Waits { failures } = self.storage {
            self.storage = Storage::Tries { failures };
        }
    }

    /// Its start is durable. One that was cut off meanwhile, or whose deadline has passed, is never launched.
    fn may_launch(&mut self, now: Now, attempt: AttemptId) -> bool {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return false };
        let is_late = entry.deadline.is_some_and(|deadline| deadline <= now.instant);
        let Some(live) = entry.live.iter_mut().find(|live| live.number == attempt.number) else { return false };
        live.is_durable = true;
        live.cut.is_none() && !is_late
    }
}
