//! Attempts that end, calls that end with them, and deadlines that pass.
//!
//! What a result means is asked of `classify` and `settle`; here it is carried out: slots, counts, writes, the
//! callbacks.

use std::time::Duration;

use super::entry::{Cut, Entry, Live, Place};
use super::upstream::LineId;
use super::{AskedBy, AttemptEnd, Callback, Dispatcher, Effect, Mark, Progress, Write};
use crate::attempt::{AttemptOutcome, AttemptResult, BytesSent};
use crate::call::{
    CallSpec, CallbackOf, Durability, ErrorKind, Method, Priority, QuotaId, Source, State, TenantId, UpstreamId,
};
use crate::classify::{Verdict, classify};
use crate::hop::{Heading, Hop};
use crate::id::{AttemptId, CallId};
use crate::lifecycle::{self, Step};
use crate::policy::Terms;
use crate::settle::{Decision, Tries, decide, decide_interrupted};
use crate::time::{Instant, Now};
use crate::timers::Timer;

/// A call whose handling breaks down so often is not tried again.
pub(super) const DEATHS_MAX: u32 = 3;
/// An attempt that has been out for so long is not what farcall dies of.
const SURVIVED_AFTER: Duration = Duration::from_secs(2);

/// An attempt that is over, and what follows for its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    /// Nothing when it never was.
    pub(super) end: Option<AttemptEnd>,
    pub(super) decision: Decision,
    /// We cut it off.
    pub(super) is_cut: bool,
}

impl Dispatcher {
    pub(super) fn note_launched(&mut self, now: Now, attempt: AttemptId) {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return };
        let policy = &self.upstreams[entry.spec.upstream.0 as usize].policy;
        let at = now.instant + Terms::new(policy, entry.spec.overrides.as_deref(), entry.method()).timeout();
        let is_suspect = entry.tries.orphaned > 0;
        if let Some(live) = entry.launched(attempt.number).filter(|live| live.times_out_at.is_none()) {
            (live.launched_at, live.times_out_at) = (Some(now.instant), Some(at));
            self.timers.set(at, Timer::Timeout(attempt));
            if is_suspect {
                self.timers.set(now.instant + SURVIVED_AFTER, Timer::Survived(attempt));
            }
            self.await_hedge(now, attempt);
        }
    }

    /// Farcall has died with the call's last attempts out; it lives on with this one.
    pub(super) fn note_survived(&mut self, attempt: AttemptId) {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return };
        let is_out = entry.place == Place::Running && entry.launched(attempt.number).is_some();
        if is_out && entry.tries.orphaned > 0 {
            entry.tries.orphaned = 0;
            self.writes.push(Write::Mark { call: attempt.call, mark: Mark::Survived });
        }
    }

    pub(super) fn note_sent(&mut self, attempt: AttemptId, at: Instant) {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return };
        if let Some(live) = entry.launched(attempt.number) {
            let id = live.quota;
            live.sent_at = Some(at);
            self.quotas[id.0 as usize].limits.sent(&mut live.grant, at);
            self.wake(id);
        }
    }

    pub(super) fn note_first_byte(&mut self, attempt: AttemptId, at: Instant) {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return };
        if let Some(live) = entry.launched(attempt.number) {
            let id = live.quota;
            self.quotas[id.0 as usize].limits.answered(&mut live.grant, at);
            self.wake(id);
        }
    }

    pub(super) fn finished(&mut self, now: Now, attempt: AttemptId, result: &AttemptResult) {
        let Some(live) = self.release(now, attempt, result.bytes_sent) else { return };
        let mut live = Live { took: Some(result.latency), ..live };
        self.hear_remaining(now, attempt.call, &mut live, result);
        let verdict = self.with_terms(attempt.call, |terms| classify(terms, result));
        if let Verdict::Throttled { wait } = verdict {
            self.close(now, attempt.call, live.quota, wait);
        }
        if live.cut == Some(Cut::Lost) {
            return self.settle_loser(now, attempt, &live);
        }
        self.note_death(attempt.call, result);
        if live.is_relayed {
            return self.conclude_relayed(now, attempt, &live, verdict, result);
        }
        if matches!(verdict, Verdict::Success | Verdict::Redirected { .. }) {
            self.learn(now, &live);
        }
        self.conclude(now, attempt, &live, verdict, result.status);
    }

    pub(super) fn aborted(&mut self, now: Now, attempt: AttemptId, wrote: BytesSent) {
        let Some(live) = self.release(now, attempt, wrote) else { return };
        // One that was never launched, because its deadline passed on the way to the disk, was cut off by nobody.
        let is_late = self.calls[&attempt.call].deadline.is_some_and(|deadline| deadline <= now.instant);
        match live.cut.or(is_late.then_some(Cut::Deadline)) {
            Some(Cut::Lost) => self.settle_loser(now, attempt, &live),
            Some(Cut::Deadline) => {
                let decision = Decision::End { state: State::Expired, error: Some(ErrorKind::Deadline) };
                self.conclude_cut(now, attempt, &live, wrote, ErrorKind::Deadline, decision);
            }
            Some(Cut::Drain) => {
                let tries = self.calls[&attempt.call].tries;
                let decision = match wrote {
                    BytesSent::No | BytesSent::Refused => Decision::HandBack,
                    BytesSent::Maybe => {
                        self.with_terms(attempt.call, |t| decide_interrupted(t, tries, ErrorKind::Reset))
                    }
                };
                self.conclude_cut(now, attempt, &live, wrote, ErrorKind::Reset, decision);
            }
            Some(Cut::Cancel) => {
                let decision = match wrote {
                    BytesSent::No | BytesSent::Refused => Decision::End { state: State::Cancelled, error: None },
                    BytesSent::Maybe => Decision::End { state: State::Unknown, error: Some(ErrorKind::Reset) },
                };
                self.conclude_cut(now, attempt, &live, wrote, ErrorKind::Reset, decision);
            }
            Some(Cut::Timeout) | None => {
                self.learn(now, &live);
                let verdict = match wrote {
                    BytesSent::No | BytesSent::Refused => Verdict::Retryable(ErrorKind::Timeout),
                    BytesSent::Maybe => Verdict::Unknown(ErrorKind::Timeout),
                };
                self.conclude(now, attempt, &live, verdict, None);
            }
        }
    }

    /// A call's deadline has passed: a waiting call ends, a running one is cut off.
    pub(super) fn expire(&mut self, now: Now, call: CallId) {
        let Some(entry) = self.calls.get(&call) else { return };
        match entry.place {
            Place::Running => self.cut(call, None, Cut::Deadline),
            Place::Ended => {}
            Place::Lane | Place::Asleep { .. } | Place::Held => {
                self.stop_waiting(call);
                self.end(now, call, State::Expired, Some(ErrorKind::Deadline), None, None);
            }
        }
    }

    /// Takes a call out of wherever it waits.
    pub(super) fn stop_waiting(&mut self, call: CallId) {
        let Some(entry) = self.calls.get(&call) else { return };
        match entry.place {
            Place::Running | Place::Ended => {}
            Place::Lane | Place::Asleep { .. } => self.leave_lane(call),
            Place::Held => self.held.retain(|&(_, held)| held != call),
        }
    }

    /// Cuts off one attempt of a call, or all of them; their reports settle them.
    pub(super) fn cut(&mut self, call: CallId, number: Option<u32>, cut: Cut) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        for live in entry.live.iter_mut().filter(|live| number.is_none_or(|number| number == live.number)) {
            if live.cut.is_none() {
                live.cut = Some(cut);
                // One whose start is not durable is out nowhere; it will not be launched.
                if live.is_durable {
                    let attempt = AttemptId { call, number: live.number };
                    self.effects.push(Effect::Abort { attempt });
                }
            }
        }
    }

    pub(super) fn cut_all(&mut self, cut: Cut) {
        let mut running: Vec<CallId> =
            self.calls.iter().filter(|(_, entry)| !entry.live.is_empty()).map(|(&call, _)| call).collect();
        running.sort_unstable();
        for call in running {
            self.cut(call, None, cut);
        }
    }

    /// Takes an attempt that is over off the books of its upstream and its quota.
    fn release(&mut self, now: Now, attempt: AttemptId, wrote: BytesSent) -> Option<Live> {
        let entry = self.calls.get_mut(&attempt.call)?;
        // Nobody can report of one that was never let go.
        let place = entry.live.iter().position(|live| live.number == attempt.number && live.is_durable)?;
        let mut live = entry.live.swap_remove(place);
        let line = LineId { upstream: live.upstream, durability: entry.spec.durability };
        entry.tries.orphaned = 0;
        if let Some(at) = live.times_out_at {
            self.timers.cancel(at, Timer::Timeout(attempt));
        }
        if let Some(at) = live.hedged_at {
            self.timers.cancel(at, Timer::Hedge(attempt));
        }
        let quota = &mut self.quotas[live.quota.0 as usize];
        match wrote {
            BytesSent::No => quota.limits.give_back(&mut live.grant),
            // What was refused has arrived all the same.
            BytesSent::Refused | BytesSent::Maybe => quota.limits.ended(&mut live.grant, now.instant),
        }
        self.leave(line, live.quota);
        if live.is_granted {
            self.note_grant_end(now, attempt, live.grant.proved_at());
        }
        Some(live)
    }

    pub(super) fn with_terms<T>(&self, call: CallId, decide: impl FnOnce(&Terms<'_>) -> T) -> T {
        let entry = &self.calls[&call];
        let policy = &self.upstreams[entry.spec.upstream.0 as usize].policy;
        let terms = Terms::new(policy, entry.spec.overrides.as_deref(), entry.method()).of(entry.spec.durability);
        // What is to be cancelled goes on nowhere.
        let terms = if entry.is_cancel_requested {
            terms.without_redirects()
        } else {
            terms.after_redirects(entry.redirects())
        };
        decide(&terms)
    }

    fn conclude(&mut self, now: Now, attempt: AttemptId, live: &Live, verdict: Verdict, status: Option<u16>) {
        let tries = self.calls[&attempt.call].tries;
        let chance = self.chance();
        let decision = self.with_terms(attempt.call, |terms| decide(terms, tries, verdict, now.instant, chance));
        let end = Some(attempt_end(now, live, verdict.outcome(), status, verdict.error()));
        self.follow(now, attempt.call, &Over { end, decision, is_cut: false });
    }

    /// An answer asks everybody to keep away for so long.
    fn close(&mut self, now: Now, call: CallId, quota: QuotaId, wait: Duration) {
        let longest = self.with_terms(call, |terms| terms.retry().retry_after_max);
        self.keep_away(call, quota, now.instant + wait.min(longest));
    }

    fn conclude_cut(
        &mut self,
        now: Now,
        attempt: AttemptId,
        live: &Live,
        wrote: BytesSent,
        kind: ErrorKind,
        decision: Decision,
    ) {
        let outcome = match wrote {
            BytesSent::No | BytesSent::Refused => AttemptOutcome::Cancelled,
            BytesSent::Maybe => AttemptOutcome::Unknown,
        };
        let end = Some(attempt_end(now, live, outcome, None, Some(kind)));
        self.follow(now, attempt.call, &Over { end, decision, is_cut: true });
    }

    fn settle_loser(&mut self, now: Now, attempt: AttemptId, live: &Live) {
        self.learn(now, live);
        let end = attempt_end(now, live, AttemptOutcome::Cancelled, None, None);
        self.push_settle(attempt.call, Some(end), None);
        self.follow_decided(now, attempt.call);
    }

    pub(super) fn push_settle(&mut self, call: CallId, attempt: Option<AttemptEnd>, progress: Option<Progress>) {
        let CallSpec { upstream, durability, .. } = self.calls[&call].spec;
        self.record(durability, Write::Settle { call, upstream, attempt, progress });
    }

    /// Carries a decision out, unless that is left to another attempt of the same try, or put off for one.
    pub(super) fn follow(&mut self, now: Now, call: CallId, over: &Over) {
        if self.is_put_off(now, call, over) {
            return;
        }
        self.follow_finally(now, call, over);
    }

    /// Carries a decision out.
    pub(super) fn follow_finally(&mut self, now: Now, call: CallId, over: &Over) {
        let entry = &self.calls[&call];
        let is_late = entry.deadline.is_some_and(|deadline| deadline <= now.instant);
        let (status, error) = over.end.map_or((None, None), |end| (end.status, end.error));
        let cause = (status, error);
        match self.final_decision(now, call, over) {
            Decision::End { state, error } => self.end(now, call, state, error, status, over.end),
            Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. } if is_late => {
                self.end(now, call, State::Expired, Some(ErrorKind::Deadline), status, over.end);
            }
            Decision::Wait { until, reason, tries } => {
                let progress = self.wait(call, until, tries, cause, Entry::begin_anew);
                self.push_settle(call, over.end, Some(progress));
                self.stand(call, until, Some(reason));
            }
            Decision::Requeue { tries } => {
                let ready_at = self.end_of_line(now);
                let progress = self.wait(call, ready_at, tries, cause, Entry::begin_anew);
                self.push_settle(call, over.end, Some(progress));
                self.stand(call, ready_at, None);
            }
            Decision::HandBack => {
                let (ready_at, tries) = (self.end_of_line(now), self.calls[&call].tries);
                let progress = self.wait(call, ready_at, tries, cause, |_| None);
                self.push_settle(call, over.end, Some(progress));
                self.stand(call, ready_at, None);
            }
            Decision::Hop { upstream, method } => self.hop(now, call, (upstream, method), over.end),
        }
    }

    /// No further attempt follows when the call is to be cancelled, or our handling of it died too often.
    pub(super) fn final_decision(&self, now: Now, call: CallId, over: &Over) -> Decision {
        let entry = &self.calls[&call];
        if entry.spec.durability == Durability::Ephemeral {
            return self.decision_while_waited_for(now, entry, over);
        }
        match over.decision {
            Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. }
                if entry.tries.deaths >= DEATHS_MAX =>
            {
                Decision::End { state: State::Poisoned, error: Some(ErrorKind::Internal) }
            }
            decision if entry.is_cancel_requested => Self::with_unknown(entry, Self::follow_cancel(over, decision)),
            decision => decision,
        }
    }

    /// An attempt that broke down under our hands; a process that dies has kinds of its own.
    fn note_death(&mut self, call: CallId, result: &AttemptResult) {
        let is_death = result.error == Some(ErrorKind::Internal) && result.bytes_sent == BytesSent::Maybe;
        if let Some(entry) = self.calls.get_mut(&call).filter(|_| is_death) {
            entry.tries.deaths += 1;
        }
    }

    /// The try goes on where the answer redirects to, as an attempt of its own. It waits there for its turn, at the place
    /// that it had: what came later does not overtake it.
    fn hop(&mut self, now: Now, call: CallId, (upstream, method): (UpstreamId, Method), end: Option<AttemptEnd>) {
        let entry = &self.calls[&call];
        let (ready_at, tries) = (entry.ready_at, entry.tries);
        let hop = Hop { upstream, method, count: entry.redirects() + 1 };
        let cause = end.map_or((None, None), |end| (end.status, end.error));
        let progress = self.wait(call, ready_at, tries, cause, |entry| {
            (entry.hop, entry.hopped_at) = (Some(hop), Some(now.instant));
            Some(Heading::Hop(hop))
        });
        self.push_settle(call, end, Some(progress));
        self.stand(call, ready_at, None);
    }

    /// A call that ran waits from now on; `head` says where to.
    fn wait(
        &mut self,
        call: CallId,
        ready_at: Instant,
        tries: Tries,
        (status, error): (Option<u16>, Option<ErrorKind>),
        head: impl FnOnce(&mut Entry) -> Option<Heading>,
    ) -> Progress {
        let entry = self.calls.get_mut(&call).expect("a call that waits is known");
        let heading = head(entry);
        let state = lifecycle::next(entry.state, Step::Wait).expect("only a running call comes to wait");
        let before = std::mem::replace(&mut entry.state, state);
        entry.tries = tries;
        let durability = entry.spec.durability;
        self.census_of(durability).change(before, state);
        let ready_at = Some(ready_at);
        Progress { state, ready_at, tries, heading, status, error, finished_at: None }
    }

    /// Ends a call: its outcome is written, what still runs of it cut off, its callbacks inserted.
    pub(super) fn end(
        &mut self,
        now: Now,
        call: CallId,
        end: State,
        error: Option<ErrorKind>,
        status: Option<u16>,
        attempt: Option<AttemptEnd>,
    ) {
        self.cut(call, None, Cut::Lost);
        let entry = self.calls.get_mut(&call).expect("a call that ends is known");
        let state = lifecycle::next(entry.state, Step::End(end)).expect("the table allows this end");
        let before = std::mem::replace(&mut entry.state, state);
        entry.place = Place::Ended;
        if let Some(deadline) = entry.deadline.take() {
            self.timers.cancel(deadline, Timer::Deadline(call));
        }
        let finished_at = Some(now.timestamp);
        let (tries, heading) = (entry.tries, entry.go_home());
        let progress = Progress { state, ready_at: None, tries, heading, status, error, finished_at };
        let spec = entry.spec.clone();
        if entry.live.is_empty() {
            self.forget(call);
        }
        let CallSpec { upstream, durability, has_file, .. } = spec;
        self.census_of(durability).change(before, state);
        self.record(durability, Write::Settle { call, upstream, attempt, progress: Some(progress) });
        match durability {
            Durability::Durable => {
                self.effects_after.push(Effect::Ended { call, has_file });
                self.insert_callbacks(now, &spec, state);
            }
            Durability::Ephemeral => self.ephemeral_census.prune(state),
        }
    }

    /// A call is not in memory any more.
    pub(super) fn forget(&mut self, call: CallId) {
        self.calls.remove(&call);
        self.loads.left_memory(call);
    }

    pub(super) fn insert_callbacks(&mut self, now: Now, parent: &CallSpec, end: State) {
        if parent.source == Source::Callback {
            return;
        }
        let policy = self.upstream(parent.upstream).policy.callbacks;
        let configured = if end == State::Succeeded { policy.on_success } else { policy.on_fail };
        let wanted = [(AskedBy::Policy, configured), (AskedBy::Call, parent.callback)];
        for (asked_by, upstream) in wanted {
            if let Some(upstream) = upstream {
                let (parent_upstream, parent_end) = (parent.upstream, end);
                let callback = Callback { parent: parent.id, parent_upstream, parent_end, asked_by, upstream };
                self.insert_callback(now, parent, callback);
            }
        }
    }

    fn insert_callback(&mut self, now: Now, parent: &CallSpec, callback: Callback) {
        let spec = CallSpec {
            id: CallId::new(now.timestamp, self.rng.u128(..)),
            upstream: callback.upstream,
            source: Source::Callback,
            durability: Durability::Durable,
            method: if callback.upstream == self.commands { Method::Other } else { Method::Post },
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: std::num::NonZeroU32::MIN,
            accepted_at: now.timestamp,
            not_before: None,
            deadline: None,
            overrides: None,
            has_file: false,
            callback: None,
            callback_of: Some(CallbackOf { parent: parent.id, held: parent.has_file }),
        };
        self.accept(now, spec, Some(callback));
    }
}

pub(super) fn attempt_end(
    now: Now,
    live: &Live,
    outcome: AttemptOutcome,
    status: Option<u16>,
    error: Option<ErrorKind>,
) -> AttemptEnd {
    AttemptEnd {
        number: live.number,
        kind: live.kind,
        took: live.took.or(live.launched_at.map(|at| now.instant.since(at))),
        outcome,
        status,
        error,
        proved_at: live.grant.proved_at(),
        ended_at: now.timestamp,
    }
}
