//! Starting attempts: quotas take turns, each starts its next call when every limit allows it.
//!
//! A start is a write; its launch follows when that is durable. At a quota its upstreams take turns, too; who goes next
//! within an upstream is the lanes' choice.

use super::entry::{Live, Place};
use super::restore::waited;
use super::upstream::Block;
use super::{ATTEMPTS_MAX, Dispatcher, Effect, Write};
use crate::attempt::AttemptKind;
use crate::breaker::Pass;
use crate::call::{QuotaId, State, UpstreamId, WaitReason};
use crate::id::{AttemptId, CallId};
use crate::lane::Waiting;
use crate::lifecycle::{self, Step};
use crate::time::{Instant, Now};
use crate::timers::Timer;

impl Dispatcher {
    /// Starts what may start, one call per quota and round, until nothing more may or the turn is full.
    pub(super) fn start_ready(&mut self, now: Now) {
        while self.writes.len() < self.starts_max() {
            let Some(id) = self.next_to_ask() else { return };
            let is_full = self.is_full();
            let Some((upstream, waiting)) = self.next_of(id) else {
                let quota = self.quota(id);
                (quota.is_ready, quota.blocked) = (false, None);
                continue;
            };
            // Limits may have changed since it took its place.
            let wanted = self.calls.get(&waiting.call).map_or(waiting.cost, |entry| entry.spec.cost.get());
            let quota = self.quota(id);
            let cost = quota.limits.cap(wanted);
            // However many are out in all, a quota with none may start one: no other can hold it up.
            if is_full && quota.in_flight > 0 {
                quota.blocked = Some(Block { reason: WaitReason::Concurrency, until: None });
                self.crowded_out.push_back(id);
                continue;
            }
            if let Some(block) = quota.obstacle(now.instant, cost) {
                self.block(id, block);
                continue;
            }
            quota.blocked = None;
            quota.turns.rotate_left(1);
            self.upstream(upstream).lanes.take();
            self.loaded -= 1;
            self.want_more(upstream, waiting.lane);
            self.start(now, waiting.call, cost);
            self.ready.push_back(id);
        }
    }

    /// The quota to ask for its next call. Those that were crowded out come first, in the order they were.
    fn next_to_ask(&mut self) -> Option<QuotaId> {
        if !self.is_full() && !self.crowded_out.is_empty() {
            return self.crowded_out.pop_front();
        }
        self.ready.pop_front().or_else(|| {
            // Its last attempt has ended: it may start one, however many others are out.
            let idle = |id: &QuotaId| self.quotas[id.0 as usize].in_flight == 0;
            let place = self.crowded_out.iter().position(idle)?;
            self.crowded_out.remove(place)
        })
    }

    /// The upstream whose turn it is at a quota, and its next call. Those that have none, or that themselves keep it
    /// from starting, give up their places on the way.
    fn next_of(&mut self, id: QuotaId) -> Option<(UpstreamId, Waiting)> {
        let quota = &mut self.quotas[id.0 as usize];
        while let Some(&front) = quota.turns.front() {
            let upstream = &mut self.upstreams[front.0 as usize];
            upstream.blocked = upstream.obstacle().filter(|_| upstream.lanes.ready() > 0);
            if upstream.blocked.is_none()
                && let Some(waiting) = upstream.lanes.peek()
            {
                return Some((front, waiting));
            }
            upstream.takes_turns = false;
            quota.turns.pop_front();
        }
        None
    }

    /// As many attempts are out as may be.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight >= ATTEMPTS_MAX
    }

    /// Takes a quota out of the ring until a timer or an attempt's report wakes it.
    fn block(&mut self, id: QuotaId, block: Block) {
        let quota = self.quota(id);
        quota.is_ready = false;
        quota.blocked = Some(block);
        if let Some(until) = block.until {
            self.wake_quota_at(id, until);
        }
    }

    fn wake_quota_at(&mut self, id: QuotaId, at: Instant) {
        let previous = self.quota(id).wake_at.replace(at);
        if let Some(previous) = previous {
            self.timers.cancel(previous, Timer::Quota(id));
        }
        self.timers.set(at, Timer::Quota(id));
    }

    /// An attempt that was out is not any more: its upstream and its quota may go on.
    pub(super) fn leave(&mut self, upstream: UpstreamId, charged: QuotaId) {
        self.in_flight -= 1;
        self.quota(charged).in_flight -= 1;
        self.wake(charged);
        let left = self.upstream(upstream);
        left.in_flight -= 1;
        left.blocked = None;
        let own = left.quota;
        if !left.takes_turns && left.lanes.ready() > 0 {
            left.takes_turns = true;
            self.quota(own).turns.push_back(upstream);
        }
        self.wake(own);
    }

    /// Starts an attempt of a call that waits, or one more of a call that runs.
    pub(super) fn start(&mut self, now: Now, call: CallId, cost: u32) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let (id, hop) = (entry.upstream(), entry.hop);
        let upstream = &mut self.upstreams[id.0 as usize];
        let charged = upstream.quota;
        let quota = &mut self.quotas[charged.0 as usize];
        let grant = quota.limits.grant(now.instant, cost);
        let pass = quota.breaker.as_mut().map(|breaker| breaker.enter(now.instant));
        upstream.in_flight += 1;
        quota.in_flight += 1;
        self.in_flight += 1;

        entry.attempts += 1;
        let attempt = AttemptId { call, number: entry.attempts };
        let is_probe = pass.is_some_and(Pass::is_probe);
        let kind = if is_probe { AttemptKind::Probe } else { entry.kind_of(attempt.number) };
        let (number, is_durable) = (attempt.number, false);
        entry.live.push(Live {
            number,
            kind,
            launched_at: None,
            took: None,
            upstream: id,
            quota: charged,
            grant,
            pass,
            is_durable,
            sent_at: None,
            times_out_at: None,
            cut: None,
        });
        entry.place = Place::Running;
        let state = lifecycle::next(entry.state, Step::Start).expect("only calls that wait or run are started");
        debug_assert_eq!(state, State::Running, "a started call runs");
        self.census.change(entry.state, state);
        entry.state = state;

        let waited = entry.waits_since().and_then(|since| waited(now, since));
        self.writes.push(Write::Start { attempt, kind, upstream: id, at: now, waited });
        let (upstream, hop, not_after) = (entry.spec.upstream, hop.map(|hop| hop.upstream), entry.deadline);
        self.effects_after.push(Effect::Launch { attempt, upstream, hop, not_after });
    }
}
