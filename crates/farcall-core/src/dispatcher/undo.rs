//! What a failed commit undoes: new calls are refused, starts taken back, old calls kept; what has truly happened is written again.
//!
//! Nothing was launched for a start that is not durable, and nobody told of a call that is not. An outcome that was
//! reported stays as it was decided, and goes to the disk when that can be written again.

use std::collections::HashMap;

use super::entry::{Cut, Place};
use super::gate::Held;
use super::upstream::LineId;
use super::{Dispatcher, Effect, Write};
use crate::attempt::AttemptKind;
use crate::call::{ErrorKind, State};
use crate::id::{AttemptId, CallId};
use crate::lifecycle::{self, Step};
use crate::time::Now;
use crate::timers::Timer;

/// Calls that were to be inserted and are not, with their end when they have ended already.
type Refused = HashMap<CallId, Option<State>>;

/// What is left to do for a call whose start was undone.
enum Left {
    /// It was cut off meanwhile, and waits again.
    Overdue(Cut),
    /// It was a hedge, and nothing else of its call is out any more.
    Stranded(Option<Cut>),
}

impl Dispatcher {
    /// Takes back what these turns, and the decisions made since, would have made durable.
    pub(super) fn undo(&mut self, now: Now, failed: Vec<Held>) {
        let mut writes = std::mem::take(&mut self.writes);
        let mut effects = std::mem::take(&mut self.effects_after);
        for held in failed.into_iter().rev() {
            writes.splice(..0, held.writes);
            effects.splice(..0, held.effects);
        }
        if effects.contains(&Effect::Load) {
            self.cancel_load();
        }
        if effects.contains(&Effect::FindStale) {
            self.cancel_stale(now);
        }
        let refused = refused(&writes);
        let mut overdue = Vec::new();
        for write in writes.iter().rev() {
            if let Write::Start { attempt, .. } | Write::Grant { attempt, .. } = *write {
                overdue.extend(self.undo_start(attempt).map(|left| (attempt.call, left)));
            }
        }
        for write in &writes {
            if let Write::Insert { call, callback, .. } = *write
                && let Some(&end) = refused.get(&call)
            {
                self.refuse(call, end);
                if callback.is_none() {
                    self.effects.push(Effect::Refuse { call });
                }
            }
        }
        for write in &writes {
            if let Write::Prune { state, .. } = *write {
                self.census.keep(state);
            }
        }
        let is_refused = |write: &Write| write.call().is_some_and(|call| refused.contains_key(&call));
        let is_kept = |write: &Write| has_happened(write) && !is_refused(write);
        self.writes = writes.into_iter().filter(is_kept).collect();
        let mut following: Vec<Effect> = effects.into_iter().filter(|effect| still_follows(effect, &refused)).collect();
        if self.writes.is_empty() {
            self.effects.append(&mut following);
        }
        self.effects_after = following;
        for (call, left) in overdue.into_iter().rev() {
            match left {
                Left::Overdue(cut) => self.end_overdue(now, call, cut),
                Left::Stranded(cut) => self.follow_stranded(now, call, cut),
            }
        }
        if self.draining {
            self.send_away(now);
        }
    }

    /// A start that never was: the call goes back to the head of its lane, its permits to its upstream. Says what is left
    /// to do for the call.
    fn undo_start(&mut self, attempt: AttemptId) -> Option<Left> {
        let call = attempt.call;
        let entry = self.calls.get_mut(&call)?;
        let place = entry.live.iter().position(|live| live.number == attempt.number)?;
        let mut live = entry.live.swap_remove(place);
        assert!(!live.is_durable, "{attempt:?} is durable and cannot be undone");
        let (id, durability) = (live.upstream, entry.spec.durability);
        let quota = &mut self.quotas[live.quota.0 as usize];
        quota.undo_pass(live.pass);
        let limits = &mut quota.limits;
        limits.undo(&mut live.grant);
        entry.attempts -= 1;
        let is_last = entry.live.is_empty();
        let mut left = live.cut.map(Left::Overdue);
        if is_last && entry.place == Place::Ended {
            self.forget(call);
        } else if live.kind == AttemptKind::Hedge {
            self.undo_hedge(call, &live);
            left = is_last.then_some(Left::Stranded(live.cut));
        } else if is_last {
            let step = if entry.attempts == 0 { Step::HandBack } else { Step::Wait };
            let state = lifecycle::next(entry.state, step).expect("a call whose start is undone runs");
            let before = std::mem::replace(&mut entry.state, state);
            let (ready_at, lane, cost) = (entry.ready_at, entry.lane(), limits.cap(entry.spec.cost.get()));
            self.census_of(durability).change(before, state);
            self.upstreams[id.0 as usize].line_mut(durability).lanes.give_back(lane, cost);
            self.stand(call, ready_at, None);
        }
        self.leave(LineId { upstream: id, durability }, live.quota);
        left
    }

    /// A call that was never accepted.
    fn refuse(&mut self, call: CallId, end: Option<State>) {
        let state = match (self.calls.contains_key(&call), end) {
            (true, _) => {
                self.stop_waiting(call);
                let entry = self.calls.remove(&call).expect("it was there just now");
                if let Some(deadline) = entry.deadline {
                    self.timers.cancel(deadline, Timer::Deadline(call));
                }
                entry.state
            }
            (false, Some(end)) => end,
            (false, None) => match self.forget_left(call) {
                Some(state) => state,
                None => return,
            },
        };
        self.census.refuse(state);
    }

    /// What an attempt was cut off for holds for its call, which waits again.
    fn end_overdue(&mut self, now: Now, call: CallId, cut: Cut) {
        let waits = self.calls.get(&call).is_some_and(|entry| entry.place == Place::Lane);
        match cut {
            Cut::Deadline if waits => {
                self.stop_waiting(call);
                self.end(now, call, State::Expired, Some(ErrorKind::Deadline), None, None);
            }
            Cut::Cancel if waits => {
                self.stop_waiting(call);
                self.end(now, call, State::Cancelled, None, None, None);
            }
            Cut::Deadline | Cut::Cancel | Cut::Timeout | Cut::Lost | Cut::Drain => {}
        }
    }
}

/// Whether what a write says is true whether or not it was stored. What is only wished is wished again later.
const fn has_happened(write: &Write) -> bool {
    !matches!(write, Write::Start { .. } | Write::Grant { .. } | Write::Prune { .. } | Write::FreeKey { .. })
}

/// Whether an effect is due once what is kept of the writes is stored.
fn still_follows(effect: &Effect, refused: &Refused) -> bool {
    match effect {
        Effect::Ended { call, .. } | Effect::CancelNoted { call } | Effect::CancelMissed { call } => {
            !refused.contains_key(call)
        }
        Effect::Acknowledge { .. }
        | Effect::Refuse { .. }
        | Effect::Refused { .. }
        | Effect::Launch { .. }
        | Effect::Relay { .. }
        | Effect::Withhold { .. }
        | Effect::Abort { .. }
        | Effect::Load
        | Effect::FindStale => false,
        Effect::UpstreamStored { .. } | Effect::BreakerTurned { .. } => true,
    }
}

/// The calls that these writes insert for somebody who waits to be told, and the callbacks of such calls.
fn refused(writes: &[Write]) -> Refused {
    let mut refused = Refused::new();
    for write in writes {
        match *write {
            Write::Insert { call, callback, .. } => {
                if callback.is_none_or(|callback| refused.contains_key(&callback.parent)) {
                    refused.insert(call, None);
                }
            }
            Write::Settle { call, progress: Some(progress), .. } if progress.state.is_end() => {
                if let Some(end) = refused.get_mut(&call) {
                    *end = Some(progress.state);
                }
            }
            Write::Start { .. }
            | Write::Settle { .. }
            | Write::Close { .. }
            | Write::Release { .. }
            | Write::Filed { .. }
            | Write::Mark { .. }
            | Write::Prune { .. }
            | Write::FreeKey { .. }
            | Write::Upstream { .. }
            | Write::Open { .. }
            | Write::Grant { .. }
            | Write::GrantEnd { .. }
            | Write::GrantsLeft { .. } => {}
        }
    }
    refused
}
