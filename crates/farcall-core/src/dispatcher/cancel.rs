//! Cancelling: a call ends `cancelled` only when no byte of it will be sent any more; else it ends as it really ends.
//!
//! A call that waits ends at once. One whose attempt was let go is left to that attempt, which may have arrived: no
//! further attempt follows, and what this one comes to is the end. That is stored, so that it holds after a restart too.
//! Whoever asked is told by `Ended`, `CancelNoted` or `CancelMissed`, or by `Refuse` of a call that was never accepted.

use super::entry::{Cut, Place};
use super::finish::Over;
use super::{Dispatcher, Effect, Mark, Write};
use crate::attempt::AttemptOutcome;
use crate::call::State;
use crate::id::CallId;
use crate::settle::Decision;
use crate::time::Now;

impl Dispatcher {
    pub(super) fn cancel(&mut self, now: Now, call: CallId) {
        let Some(entry) = self.calls.get_mut(&call) else { return self.cancel_stored(call) };
        let durability = entry.spec.durability;
        match entry.place {
            Place::Ended => self.push_after_all(Effect::CancelMissed { call }),
            Place::Running => {
                let is_news = !std::mem::replace(&mut entry.is_cancel_requested, true);
                let unlaunched: Vec<u32> =
                    entry.live.iter().filter(|live| !live.is_durable).map(|live| live.number).collect();
                let may_be_out = unlaunched.len() < entry.live.len();
                for number in unlaunched {
                    self.cut(call, Some(number), Cut::Cancel);
                }
                if is_news {
                    self.record(durability, Write::Mark { call, mark: Mark::CancelRequested });
                }
                if may_be_out {
                    self.push_after_all(Effect::CancelNoted { call });
                }
            }
            Place::Lane | Place::Asleep { .. } | Place::Held => {
                self.stop_waiting(call);
                self.end(now, call, State::Cancelled, None, None, None);
            }
        }
    }

    /// What follows for a call that is to be cancelled and whose last attempt is over.
    pub(super) const fn follow_cancel(over: &Over) -> Decision {
        match over.decision {
            end @ Decision::End { .. } => end,
            Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. } => {
                match over.end.outcome {
                    // It sent nothing, so nothing was sent that has no answer.
                    _ if over.end.proved_at.is_none() => Decision::End { state: State::Cancelled, error: None },
                    AttemptOutcome::Unknown => Decision::End { state: State::Unknown, error: over.end.error },
                    _ => Decision::End { state: State::Failed, error: over.end.error },
                }
            }
        }
    }
}
