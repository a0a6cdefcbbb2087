//! Calls that somebody waits for: the same decisions as for all others, with the disk left out.
//!
//! What is decided of them is told with the turn and true at once; nothing of them outlives the engine. They wait in lines
//! of their own, have concurrency and counts of their own, no callbacks, and end with whoever waits. Why:
//! `docs/design/0038`.

use super::entry::{Entry, Place};
use super::finish::{DEATHS_MAX, Over};
use super::{Census, Dispatcher, Effect, Write};
use crate::call::{Durability, ErrorKind, State};
use crate::id::CallId;
use crate::settle::Decision;
use crate::time::Now;

impl Dispatcher {
    /// Notes what was decided of a call: to be stored, or only to be told.
    pub(super) fn record(&mut self, durability: Durability, write: Write) {
        match durability {
            Durability::Durable => self.writes.push(write),
            Durability::Ephemeral => self.unstored.push(write),
        }
    }

    /// What follows from what was just recorded.
    pub(super) fn then(&mut self, durability: Durability, effect: Effect) {
        match durability {
            Durability::Durable => self.effects_after.push(effect),
            Durability::Ephemeral => self.effects.push(effect),
        }
    }

    /// Where calls of this durability are counted.
    pub(super) const fn census_of(&mut self, durability: Durability) -> &mut Census {
        match durability {
            Durability::Durable => &mut self.census,
            Durability::Ephemeral => &mut self.ephemeral_census,
        }
    }

    /// That of a call in memory.
    pub(super) fn durability_of(&self, call: CallId) -> Durability {
        self.calls[&call].spec.durability
    }

    /// Whoever waited for a call has gone: nothing more is sent for it, and what is out is cut off.
    pub(super) fn abandoned(&mut self, now: Now, call: CallId) {
        let Some(entry) = self.calls.get(&call) else { return };
        if entry.spec.durability == Durability::Ephemeral && entry.place != Place::Ended {
            self.stop_waiting(call);
            self.end(now, call, State::Cancelled, None, None, None);
        }
    }

    /// No call is started any more: those that wait on a connection are not kept waiting for that.
    pub(super) fn send_away(&mut self, now: Now) {
        let waits = |entry: &Entry| {
            let in_lane = matches!(entry.place, Place::Lane | Place::Asleep { .. });
            entry.spec.durability == Durability::Ephemeral && in_lane
        };
        let mut waiting: Vec<CallId> =
            self.calls.iter().filter(|(_, entry)| waits(entry)).map(|(&call, _)| call).collect();
        waiting.sort_unstable();
        for call in waiting {
            self.stop_waiting(call);
            self.end(now, call, State::Cancelled, None, None, None);
        }
    }

    /// What follows for a call that somebody waits for. It is not tried again when it is to be cancelled or farcall stops,
    /// nor kept waiting for what would come after its deadline.
    pub(super) fn decision_while_waited_for(&self, now: Now, entry: &Entry, over: &Over) -> Decision {
        let is_too_late = |at| entry.deadline.is_some_and(|deadline| deadline <= at);
        match over.decision {
            end @ Decision::End { .. } => end,
            _ if entry.is_cancel_requested => Self::with_unknown(entry, Self::follow_cancel(over, over.decision)),
            _ if entry.tries.deaths >= DEATHS_MAX => {
                Decision::End { state: State::Poisoned, error: Some(ErrorKind::Internal) }
            }
            _ if is_too_late(now.instant) => over.decision,
            // What came of it is all that will.
            Decision::Wait { until, .. } if is_too_late(until) => failed(over),
            _ if self.draining => failed(over),
            // Nobody is kept waiting for an upstream that is left alone.
            Decision::Wait { .. } | Decision::Requeue { .. } if self.is_shut(now.instant, entry.upstream()) => {
                failed(over)
            }
            goes_on
            @ (Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. }) => goes_on,
        }
    }
}

fn failed(over: &Over) -> Decision {
    Decision::End { state: State::Failed, error: over.end.and_then(|end| end.error).or(Some(ErrorKind::Reset)) }
}
