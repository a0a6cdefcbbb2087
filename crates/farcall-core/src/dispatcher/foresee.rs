//! Calls that cannot start before their deadline, as far as limits are known: turned away at once, nothing spent on them.
//!
//! Told is the earliest start that there can be: what waits before a call in its own lane takes its slots, everything is
//! answered at once, attempts that are out give theirs back (`limit::Schedule`). Other priorities, tenants and concurrency are
//! left out, and so is what people may do, so a call that could make it by what is known is never turned away. Why a
//! durable call ends and an ephemeral one is refused: `docs/design/0041`.

use std::time::Duration;

use super::entry::{Entry, Place};
use super::upstream::LineId;
use super::{Dispatcher, Effect};
use crate::breaker::Passage;
use crate::call::{CallSpec, Durability, ErrorKind, QuotaId, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::lane::{LaneId, Position};
use crate::settle::Decision;
use crate::time::{Instant, Now};
use crate::turnover::as_long_again;

/// Why a call is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What would hold it for too long: `breaker_open`, `cooldown`, `rate_limit` or `not_before`.
    pub reason: WaitReason,
    /// When it is worth to come again.
    pub retry_after: Duration,
}

impl Entry {
    /// Whether its deadline has passed, or will have when it would go on.
    pub(super) fn comes_too_late(&self, now: Instant, decision: &Decision) -> bool {
        let goes_on_at = match decision {
            Decision::Wait { until, .. } => *until,
            Decision::End { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. } => now,
        };
        self.deadline.is_some_and(|deadline| deadline <= goes_on_at)
    }
}

impl Dispatcher {
    /// Why a call that would be offered now is not to be taken on, if so: it cannot start before its deadline, or it is
    /// ephemeral and the breaker of its upstream is not closed. A pause says nothing: somebody may end it at any time.
    pub fn refusal(&self, now: Now, spec: &CallSpec) -> Option<Refusal> {
        let upstream = &self.upstreams[spec.upstream.0 as usize];
        let quota = self.quota_of(spec.upstream);
        if upstream.is_withdrawn || quota.is_paused {
            return None;
        }
        if spec.durability == Durability::Ephemeral
            && let Some(retry_after) = self.shut_for(now.instant, upstream.quota)
        {
            return Some(Refusal { reason: WaitReason::BreakerOpen, retry_after });
        }
        let deadline = spec.deadline?;
        let (at, reason) = self.earliest_start(now.instant, spec, deadline);
        let retry_after = at.since(now.instant).max(Duration::from_secs(1));
        (at >= deadline).then_some(Refusal { reason, retry_after })
    }

    /// A call that was just taken on and cannot make it ends at once.
    pub(super) fn expire_if_hopeless(&mut self, now: Now, call: CallId) {
        let Some(entry) = self.calls.get(&call).filter(|entry| entry.deadline.is_some()) else { return };
        let waits = matches!(entry.place, Place::Lane | Place::Asleep { .. });
        if waits && self.refusal(now, &entry.spec).is_some() {
            self.expire(now, call);
        }
    }

    /// The breaker of a quota has opened: whoever waits on a connection and was not tried yet is told so.
    pub(super) fn turn_away(&mut self, now: Now, id: QuotaId) {
        let retry_after = self.shut_for(now.instant, id).unwrap_or_default();
        let goes_there = |entry: &Entry| self.upstreams[entry.upstream().0 as usize].quota == id;
        let waits = |entry: &Entry| {
            let in_lane = matches!(entry.place, Place::Lane | Place::Asleep { .. });
            entry.spec.durability == Durability::Ephemeral && in_lane && goes_there(entry)
        };
        let mut waiting: Vec<CallId> =
            self.calls.iter().filter(|(_, entry)| waits(entry)).map(|(&call, _)| call).collect();
        waiting.sort_unstable();
        for call in waiting {
            let was_tried = self.calls[&call].attempts > 0;
            self.stop_waiting(call);
            if was_tried {
                self.end(now, call, State::Failed, Some(ErrorKind::Reset), None, None);
                continue;
            }
            let refusal = Refusal { reason: WaitReason::BreakerOpen, retry_after };
            self.effects.push(Effect::Refused { call, refusal });
            self.end(now, call, State::Cancelled, None, None, None);
        }
    }

    /// Whether an attempt there, by a breaker that is not closed, is none that somebody should wait for.
    pub(super) fn is_shut(&self, now: Instant, id: UpstreamId) -> bool {
        self.shut_for(now, self.upstreams[id.0 as usize].quota).is_some()
    }

    /// How long a breaker that lets nothing through is likely to.
    fn shut_for(&self, now: Instant, id: QuotaId) -> Option<Duration> {
        let breaker = self.quotas[id.0 as usize].breaker.as_ref()?;
        match breaker.passage(now) {
            Passage::Free | Passage::Probe => None,
            Passage::NotBefore(at) => Some(at.since(now)),
            Passage::AfterProbe => Some(as_long_again(breaker.probing_since().unwrap_or(now), now)),
        }
    }

    /// The earliest start of a call, and what holds it until then; exact only up to its deadline.
    fn earliest_start(&self, now: Instant, spec: &CallSpec, deadline: Instant) -> (Instant, WaitReason) {
        let quota = self.quota_of(spec.upstream);
        let opens_at = quota.breaker.as_ref().and_then(|breaker| breaker.open_until(now));
        let gates = [
            (spec.not_before, WaitReason::NotBefore),
            (quota.closed_until, WaitReason::Cooldown),
            (opens_at, WaitReason::BreakerOpen),
        ];
        let given = gates.into_iter().filter_map(|(at, reason)| Some((at?, reason)));
        let (latest, reason) = given.max_by_key(|&(at, _)| at).unwrap_or((now, WaitReason::RateLimit));
        if latest >= deadline {
            return (latest, reason);
        }
        let begins = quota.closed_until.into_iter().chain(opens_at).fold(now, Instant::max);
        let by_limits = self.granted_at(begins, spec, deadline);
        if by_limits > latest { (by_limits, WaitReason::RateLimit) } else { (latest, reason) }
    }

    /// Whether nobody waits at its quota but those of its own lane.
    fn waits_alone(&self, spec: &CallSpec, lane: LaneId) -> bool {
        let lanes = &self.upstreams[spec.upstream.0 as usize].line(spec.durability).lanes;
        let turns = &self.quota_of(spec.upstream).turns;
        let is_own = |line: &LineId| (line.upstream, line.durability) == (spec.upstream, spec.durability);
        turns.iter().all(is_own) && lanes.beyond() == 0 && lanes.ready_of(lane) == lanes.ready()
    }

    /// When the windows have slots for a call, after those before it in its lane.
    fn granted_at(&self, begins: Instant, spec: &CallSpec, deadline: Instant) -> Instant {
        let upstream = &self.upstreams[spec.upstream.0 as usize];
        let limits = &self.quota_of(spec.upstream).limits;
        let mut schedule = limits.schedule(begins);
        let lane = LaneId { priority: spec.priority, tenant: spec.tenant };
        let own = self.calls.get(&spec.id).map_or(Position::LAST, Entry::position);
        let is_alone = self.waits_alone(spec, lane);
        for (position, cost) in upstream.line(spec.durability).lanes.ready_in(lane).take_while(|&(at, _)| at < own) {
            let cost = limits.cap(cost);
            let at = schedule.next(cost);
            let entry = self.calls.get(&position.call);
            // It may be gone by then: surely when its deadline comes first, perhaps when others go between.
            let ends_at = entry.and_then(|entry| entry.deadline);
            if ends_at.is_some_and(|ends_at| ends_at <= at || (ends_at < deadline && !is_alone)) {
                continue;
            }
            if at >= deadline {
                return at;
            }
            schedule.take(cost, at);
        }
        schedule.next(limits.cap(spec.cost.get()))
    }
}
