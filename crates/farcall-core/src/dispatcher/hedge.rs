//! Hedging: attempts that are added to a try which takes long, or all of whose attempts have failed.
//!
//! What is due is looked at once everybody who waits has had a turn, so that only what is spare then goes to hedges: at a quota
//! where nobody waits, within all its limits and the budget. One that is kept back harms nothing, and is looked at
//! again after twice the time. Why so: `docs/design/0040`.

use std::time::Duration;

use super::entry::{Cut, Entry, Live, Place};
use super::finish::Over;
use super::start::rests_on_store;
use super::{AttemptEnd, Dispatcher};
use crate::attempt::{AttemptKind, AttemptOutcome};
use crate::breaker::{Breaker, Passage};
use crate::call::{Durability, ErrorKind, QuotaId, State, UpstreamId, WaitReason};
use crate::hedge::{HedgeDelay, HedgePolicy, HeldBack};
use crate::id::{AttemptId, CallId};
use crate::latency::Latencies;
use crate::policy::Terms;
use crate::settle::Decision;
use crate::time::{Instant, Now};
use crate::timers::Timer;

/// The shortest time after which a try is looked at again.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);

/// What is looked at late in a turn, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Late {
    /// Attempts that take long.
    pub(super) attempts: Vec<AttemptId>,
    /// Calls all of whose attempts have failed, and may be hedged for that.
    failed: Vec<CallId>,
    /// Hedges that were due and kept back, by the upstream of their calls; nobody was told yet.
    suppressed: Vec<(UpstreamId, u32)>,
}

impl Late {
    pub(super) const fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.failed.is_empty()
    }
}

/// How a call that runs is hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeStanding {
    /// Attempts added to the present try.
    pub made: u32,
    /// Attempts that may be added to a try.
    pub extra: u32,
    /// When it is looked at next whether one is added.
    pub next_at: Option<Instant>,
    /// Why none was added when it was last looked at.
    pub held_back: Option<HeldBack>,
}

impl Dispatcher {
    /// An attempt is being made: it is looked at again when it takes long.
    pub(super) fn await_hedge(&mut self, now: Now, attempt: AttemptId) {
        let Some((policy, entry)) = self.hedged_by(attempt.call) else { return };
        let spent_by = entry.spec.upstream;
        let Some(live) = entry.launched(attempt.number).filter(|live| live.kind != AttemptKind::Hedge) else { return };
        let (kind, goes_to) = (live.kind, live.upstream);
        live.is_sample = matches!(policy.after, HedgeDelay::Learned(_));
        if let (AttemptKind::First, Some(share)) = (kind, policy.budget) {
            self.upstream(spent_by).hedge_budget.note_first(share);
        }
        let delay = match policy.after {
            HedgeDelay::Fixed(delay) => Some(delay),
            HedgeDelay::Learned(percentile) => {
                let latencies = &mut self.upstream(goes_to).latencies;
                let latencies = latencies.get_or_insert_with(|| Box::new(Latencies::new(now.instant)));
                latencies.percentile(now.instant, percentile)
            }
        };
        if let Some(delay) = delay {
            self.look_at(attempt, now.instant + delay);
        }
    }

    /// Upstreams at which hedges were due and kept back, with how many, since that was last asked.
    pub fn take_suppressed(&mut self) -> Vec<(UpstreamId, u32)> {
        std::mem::take(&mut self.late.suppressed)
    }

    /// How a call that runs is hedged; nothing of one that waits, or may not be hedged.
    pub fn hedge_standing(&self, call: CallId) -> Option<HedgeStanding> {
        let entry = self.calls.get(&call).filter(|entry| entry.place == Place::Running)?;
        let extra = self.with_terms(call, |terms| terms.hedge())?.extra;
        let next_at = entry.live.iter().filter_map(|live| live.hedged_at).min();
        Some(HedgeStanding { made: entry.hedging.of_try, extra, next_at, held_back: entry.hedging.held_back })
    }

    /// Learns from an attempt that ended well, or took too long; from no other, and from no hedge, which is made only when
    /// something is amiss.
    pub(super) fn learn(&mut self, now: Now, live: &Live) {
        let took = live.took.or_else(|| Some(now.instant.since(live.launched_at?)));
        if let Some(took) = took.filter(|_| live.is_sample)
            && let Some(latencies) = &mut self.upstream(live.upstream).latencies
        {
            latencies.note(now.instant, took);
        }
    }

    /// Adds what is due and spare.
    pub(super) fn hedge_late(&mut self, now: Now) {
        for call in std::mem::take(&mut self.late.failed) {
            self.hedge_failed(now, call);
        }
        for attempt in std::mem::take(&mut self.late.attempts) {
            self.hedge_slow(now, attempt);
        }
    }

    /// Whether a try whose last attempt has come to this is to be hedged for that. What it came to waits until then.
    fn is_hedged_for_failing(&mut self, now: Now, call: CallId, over: &Over) -> bool {
        let has_failed = match over.decision {
            Decision::Wait { .. } | Decision::Requeue { .. } => true,
            Decision::End { state, .. } => matches!(state, State::Failed | State::Unknown),
            Decision::HandBack | Decision::Hop { .. } => false,
        };
        let Some((policy, entry)) = self.hedged_by(call).filter(|_| has_failed && !over.is_cut) else { return false };
        let is_late = entry.deadline.is_some_and(|deadline| deadline <= now.instant);
        let may_add = policy.on_failure && entry.hedging.of_try < policy.extra;
        let is_hedged = may_add && !is_late && !entry.is_cancel_requested;
        if is_hedged {
            entry.hedging.held = Some(Box::new(*over));
            self.late.failed.push(call);
        }
        is_hedged
    }

    /// Whether what follows an attempt is left to others of the same try. The first success decides, and a redirect that is
    /// followed is one; of all others the last to end.
    pub(super) fn is_put_off(&mut self, now: Now, call: CallId, over: &Over) -> bool {
        let entry = self.calls.get_mut(&call).expect("a call whose attempt is over is known");
        let others_are_out = !entry.live.is_empty();
        if entry.place == Place::Ended || entry.hedging.held.is_some() {
            // It has been decided, whatever cut this one off.
            self.push_settle(call, over.end, None);
            self.follow_decided(now, call);
            return true;
        }
        match over.decision {
            Decision::End { state: State::Succeeded, .. } => false,
            Decision::Hop { .. } if others_are_out => {
                entry.hedging.held = Some(Box::new(*over));
                self.cut(call, None, Cut::Lost);
                true
            }
            _ if others_are_out => {
                let is_unknown = |end: &AttemptEnd| end.outcome == AttemptOutcome::Unknown;
                let unknown = over.end.filter(is_unknown).and_then(|end| end.error);
                entry.hedging.unknown = entry.hedging.unknown.or(unknown);
                self.push_settle(call, over.end, None);
                true
            }
            _ => self.is_hedged_for_failing(now, call, over),
        }
    }

    /// An attempt was settled of a call that has ended, or whose next step has been decided.
    pub(super) fn follow_decided(&mut self, now: Now, call: CallId) {
        let has_ended = |entry: &Entry| entry.live.is_empty() && entry.place == Place::Ended;
        if self.calls.get(&call).is_some_and(has_ended) {
            return self.forget(call);
        }
        self.follow_held(now, call);
    }

    /// What was put off goes on, when nothing of its call is out any more.
    fn follow_held(&mut self, now: Now, call: CallId) {
        let Some(entry) = self.calls.get_mut(&call).filter(|entry| entry.live.is_empty()) else { return };
        if let Some(over) = entry.hedging.held.take() {
            self.follow_finally(now, call, &over);
        }
    }

    fn hedge_failed(&mut self, now: Now, call: CallId) {
        let Some((policy, entry)) = self.hedged_by(call) else { return self.follow_held(now, call) };
        // It may have been cancelled, or come to its deadline, in the meantime: whoever follows sees that.
        let is_late = entry.deadline.is_some_and(|deadline| deadline <= now.instant);
        let may_add = !is_late && !entry.is_cancel_requested;
        if !may_add || self.add(now, call, policy) == 0 {
            return self.follow_held(now, call);
        }
        let held = self.calls.get_mut(&call).and_then(|entry| entry.hedging.held.take());
        if let Some(end) = held.and_then(|over| over.end) {
            self.push_settle(call, Some(end), None);
        }
    }

    fn hedge_slow(&mut self, now: Now, attempt: AttemptId) {
        let Some((policy, entry)) = self.hedged_by(attempt.call) else { return };
        let is_running = entry.place == Place::Running && !entry.is_cancel_requested;
        let Some(live) = entry.launched(attempt.number).filter(|live| live.cut.is_none() && !live.is_relayed) else {
            return;
        };
        let launched_at = live.launched_at;
        live.hedged_at = None;
        if !is_running || self.add(now, attempt.call, policy) >= policy.extra {
            return;
        }
        let is_done = self.calls[&attempt.call].hedging.of_try >= policy.extra;
        if let Some(out_for) = launched_at.map(|at| now.instant.since(at)).filter(|_| !is_done) {
            self.look_at(attempt, now.instant + out_for.max(LOOK_AGAIN_MIN));
        }
    }

    /// Adds as many attempts as a try may still have and as are spare; how many.
    fn add(&mut self, now: Now, call: CallId, policy: HedgePolicy) -> u32 {
        let mut made = 0;
        while let Some(entry) = self.calls.get(&call).filter(|entry| entry.hedging.of_try < policy.extra) {
            let (upstream, cost) = (entry.spec.upstream, entry.spec.cost.get());
            let (goes_to, missing) = (entry.upstream(), policy.extra - entry.hedging.of_try);
            let cost = self.quota_of(goes_to).limits.cap(cost);
            let durability = entry.spec.durability;
            if let Err(held_back) =
                self.spare(now, (goes_to, durability), cost).and_then(|()| self.pay(upstream, policy))
            {
                let Some(entry) = self.calls.get_mut(&call) else { break };
                if entry.hedging.held_back.replace(held_back).is_none() {
                    self.late.suppressed.push((upstream, missing));
                }
                break;
            }
            self.start_hedge(now, call, cost, policy.budget.is_some());
            made += 1;
        }
        made
    }

    fn pay(&mut self, upstream: UpstreamId, policy: HedgePolicy) -> Result<(), HeldBack> {
        let is_paid = policy.budget.is_none() || self.upstream(upstream).hedge_budget.take();
        if is_paid { Ok(()) } else { Err(HeldBack::Budget) }
    }

    /// Whether an attempt may start that nobody has waited for.
    fn spare(&mut self, now: Now, (goes_to, durability): (UpstreamId, Durability), cost: u32) -> Result<(), HeldBack> {
        let may_store = self.writes.len() < self.starts_max();
        if self.draining || (rests_on_store(durability, &self.quota_of(goes_to).limits) && !may_store) {
            return Err(HeldBack::Stopped);
        }
        let upstream = &self.upstreams[goes_to.0 as usize];
        let charged = upstream.quota;
        if let Some(block) = upstream.obstacle(durability).or_else(|| self.quota(charged).obstacle(now.instant, cost)) {
            return Err(block.reason.into());
        }
        // Whether an upstream that failed works again is for whoever waits to find out.
        let is_probe = |breaker: &Breaker| breaker.passage(now.instant) == Passage::Probe;
        if self.quota(charged).breaker.as_ref().is_some_and(is_probe) {
            return Err(WaitReason::BreakerOpen.into());
        }
        if durability == Durability::Durable && self.is_full() {
            return Err(HeldBack::Concurrency);
        }
        if self.somebody_waits(now, charged) { Err(HeldBack::Waiting) } else { Ok(()) }
    }

    /// Whether any call might go on at a quota, in memory or in the store alone.
    fn somebody_waits(&self, now: Now, charged: QuotaId) -> bool {
        let sharers = &self.quotas[charged.0 as usize].sharers;
        let lines = sharers.iter().flat_map(|id| self.upstreams[id.0 as usize].lines());
        lines.map(|line| &line.lanes).any(|lanes| {
            let is_due = |beyond: crate::lane::Beyond| beyond.edge.ready_at <= now.instant;
            lanes.ready() > 0 || (lanes.beyond() > 0 && lanes.stored().any(is_due))
        })
    }

    fn look_at(&mut self, attempt: AttemptId, at: Instant) {
        let live = self.calls.get_mut(&attempt.call).and_then(|entry| entry.launched(attempt.number));
        if let Some(live) = live {
            live.hedged_at = Some(at);
            self.timers.set(at, Timer::Hedge(attempt));
        }
    }

    /// The policy by which a call's attempts are hedged, if they may be, and the call.
    fn hedged_by(&mut self, call: CallId) -> Option<(HedgePolicy, &mut Entry)> {
        let entry = self.calls.get_mut(&call)?;
        let policy = &self.upstreams[entry.spec.upstream.0 as usize].policy;
        let terms = Terms::new(policy, entry.spec.overrides.as_deref(), entry.method()).of(entry.spec.durability);
        Some((terms.hedge()?, entry))
    }

    fn start_hedge(&mut self, now: Now, call: CallId, cost: u32, is_paid: bool) {
        let number = self.begin(now, call, cost, AttemptKind::Hedge, None);
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.hedging.of_try += 1;
        entry.hedging.in_all += 1;
        let live = entry.live.iter_mut().find(|live| live.number == number);
        live.expect("it has just begun").is_paid = is_paid;
    }

    /// The start of a hedge was not made durable: it never was.
    pub(super) fn undo_hedge(&mut self, call: CallId, live: &Live) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.hedging.of_try -= 1;
        entry.hedging.in_all -= 1;
        let upstream = entry.spec.upstream;
        if live.is_paid {
            self.upstream(upstream).hedge_budget.give_back();
        }
    }

    /// All attempts of a try have ended, and the last of them never was: another try is made, or what was put off goes on.
    pub(super) fn follow_stranded(&mut self, now: Now, call: CallId, cut: Option<Cut>) {
        let Some(entry) = self.calls.get(&call).filter(|entry| entry.place == Place::Running) else { return };
        if entry.hedging.held.is_some() {
            return self.follow_held(now, call);
        }
        let decision = match cut {
            Some(Cut::Deadline) => Decision::End { state: State::Expired, error: Some(ErrorKind::Deadline) },
            Some(Cut::Timeout | Cut::Lost | Cut::Drain | Cut::Cancel) | None => Decision::HandBack,
        };
        self.follow_finally(now, call, &Over { end: None, decision, is_cut: true });
    }

    /// What an attempt of the same try left open: that another one sent nothing does not say that nothing was sent.
    pub(super) fn with_unknown(entry: &Entry, decision: Decision) -> Decision {
        match (decision, entry.hedging.unknown) {
            (Decision::End { state: State::Cancelled, .. }, Some(kind)) => {
                Decision::End { state: State::Unknown, error: Some(kind) }
            }
            _ => decision,
        }
    }
}
