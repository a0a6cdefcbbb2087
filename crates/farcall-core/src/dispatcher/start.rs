//! Starting attempts: quotas take turns, each starts its next call when every limit allows it.
//!
//! A start is a write; its launch follows when that is durable. At a quota the lines of its upstreams take turns, too; who
//! goes next within a line is the lanes' choice. Ephemeral calls rest on no write unless a limit does, and go on while others
//! wait for one.

use std::time::Duration;

use super::entry::{Live, Place};
use super::restore::waited;
use super::upstream::{Block, LineId};
use super::{ATTEMPTS_MAX, Dispatcher, Effect, Write};
use crate::attempt::AttemptKind;
use crate::breaker::Pass;
use crate::call::{Durability, QuotaId, State, UpstreamId, WaitReason};
use crate::id::{AttemptId, CallId};
use crate::lane::Waiting;
use crate::lifecycle::{self, Step};
use crate::limit::Limits;
use crate::time::{Instant, Now};
use crate::timers::Timer;

/// What may be started at a quota just now.
enum Next {
    /// The next call of the line whose turn it is.
    Call(LineId, Waiting),
    /// Calls wait that may not start now, for a reason that is not their quota's.
    Later,
    Nobody,
}

impl Dispatcher {
    /// Starts what may start, one call per quota and round, until nothing more may or the turn is full.
    pub(super) fn start_ready(&mut self, now: Now) {
        let mut waits_for_store = Vec::new();
        while let Some(id) = self.next_to_ask() {
            let may_store = self.writes.len() < self.starts_max();
            // However many are out in all, a quota with none may start one: no other can hold it up.
            let is_crowded = self.is_full() && self.quota(id).in_flight_durable > 0;
            let (line, waiting) = match self.next_of(id, may_store && !is_crowded) {
                Next::Call(line, waiting) => (line, waiting),
                Next::Later if may_store => {
                    self.crowd_out(id);
                    continue;
                }
                Next::Later => {
                    waits_for_store.push(id);
                    continue;
                }
                Next::Nobody => {
                    self.quota(id).blocked = None;
                    continue;
                }
            };
            // Limits may have changed since it took its place.
            let wanted = self.calls.get(&waiting.call).map_or(waiting.cost, |entry| entry.spec.cost.get());
            let quota = self.quota(id);
            let cost = quota.limits.cap(wanted);
            if let Some(block) = quota.obstacle(now.instant, cost) {
                self.block(id, block);
                continue;
            }
            quota.blocked = None;
            quota.turns.rotate_left(1);
            self.upstream(line.upstream).line_mut(line.durability).lanes.take();
            self.left_lane(line, waiting.lane);
            self.start(now, waiting.call, cost);
            self.put_ready(id);
        }
        // In the order in which they stood.
        for id in waits_for_store.into_iter().rev() {
            if !std::mem::replace(&mut self.quota(id).is_ready, true) {
                self.ready.push_front(id);
            }
        }
    }

    /// The quota to ask for its next call. Those that were crowded out come first, in the order they were.
    fn next_to_ask(&mut self) -> Option<QuotaId> {
        if !self.is_full()
            && let Some(id) = self.crowded_out.pop_front()
        {
            self.quota(id).is_crowded_out = false;
            return Some(id);
        }
        if let Some(id) = self.ready.pop_front() {
            self.quota(id).is_ready = false;
            return Some(id);
        }
        // Its last attempt has ended: it may start one, however many others are out.
        let idle = |id: &QuotaId| self.quotas[id.0 as usize].in_flight_durable == 0;
        let place = self.crowded_out.iter().position(idle)?;
        let id = self.crowded_out.remove(place)?;
        self.quota(id).is_crowded_out = false;
        Some(id)
    }

    /// The line whose turn it is at a quota, and its next call. Those that have none, or whose upstream itself keeps it
    /// from starting, give up their places on the way; what rests on the store is passed over when it may not start.
    fn next_of(&mut self, id: QuotaId, may_store: bool) -> Next {
        let quota = &mut self.quotas[id.0 as usize];
        let mut passed_over = 0;
        while let Some(&front) = quota.turns.front().filter(|_| passed_over < quota.turns.len()) {
            let upstream = &mut self.upstreams[front.upstream.0 as usize];
            let obstacle = upstream.obstacle(front.durability);
            let line = upstream.line_mut(front.durability);
            line.blocked = obstacle.filter(|_| line.lanes.ready() > 0);
            match line.lanes.peek().filter(|_| line.blocked.is_none()) {
                Some(waiting) if may_store || !rests_on_store(front.durability, &quota.limits) => {
                    return Next::Call(front, waiting);
                }
                Some(_) => {
                    passed_over += 1;
                    quota.turns.rotate_left(1);
                }
                None => {
                    line.takes_turns = false;
                    quota.turns.pop_front();
                }
            }
        }
        if passed_over > 0 { Next::Later } else { Next::Nobody }
    }

    /// Asks a quota again in this turn or the next.
    fn put_ready(&mut self, id: QuotaId) {
        if !std::mem::replace(&mut self.quota(id).is_ready, true) {
            self.ready.push_back(id);
        }
    }

    /// Nothing durable starts there until there is room.
    fn crowd_out(&mut self, id: QuotaId) {
        let quota = self.quota(id);
        quota.blocked = Some(Block { reason: WaitReason::Concurrency, until: None });
        if !std::mem::replace(&mut quota.is_crowded_out, true) {
            self.crowded_out.push_back(id);
        }
    }

    /// As many durable attempts are out as may be.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight_durable >= ATTEMPTS_MAX
    }

    /// Takes a quota out of the ring until a timer or an attempt's report wakes it.
    fn block(&mut self, id: QuotaId, block: Block) {
        self.quota(id).blocked = Some(block);
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
    pub(super) fn leave(&mut self, LineId { upstream, durability }: LineId, charged: QuotaId) {
        self.in_flight -= 1;
        let durable = u32::from(durability == Durability::Durable);
        self.in_flight_durable -= durable;
        let quota = self.quota(charged);
        quota.in_flight -= 1;
        quota.in_flight_durable -= durable;
        self.wake(charged);
        let left = self.upstream(upstream);
        left.line_mut(durability).in_flight -= 1;
        let own = left.quota;
        self.unblock(upstream);
        self.wake(own);
    }

    /// Whatever of an upstream kept its calls from starting may not any more.
    pub(super) fn unblock(&mut self, id: UpstreamId) {
        let upstream = &mut self.upstreams[id.0 as usize];
        let turns = &mut self.quotas[upstream.quota.0 as usize].turns;
        for &durability in Durability::ALL {
            let line = upstream.line_mut(durability);
            line.blocked = None;
            if !line.takes_turns && line.lanes.ready() > 0 {
                line.takes_turns = true;
                turns.push_back(LineId { upstream: id, durability });
            }
        }
    }

    /// Starts an attempt of a call that waits.
    pub(super) fn start(&mut self, now: Now, call: CallId, cost: u32) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.hedging.begin();
        let kind = entry.next_kind();
        let waited = entry.waits_since().and_then(|since| waited(now, since));
        self.begin(now, call, cost, kind, waited);
    }

    /// Begins an attempt of a call that waits, or one more of a call that runs; its number.
    pub(super) fn begin(
        &mut self,
        now: Now,
        call: CallId,
        cost: u32,
        kind: AttemptKind,
        waited: Option<Duration>,
    ) -> u32 {
        let entry = self.calls.get_mut(&call).expect("a call that is started is known");
        let (id, hop, durability) = (entry.upstream(), entry.hop, entry.spec.durability);
        let upstream = &mut self.upstreams[id.0 as usize];
        let charged = upstream.quota;
        let quota = &mut self.quotas[charged.0 as usize];
        let grant = quota.limits.grant(now.instant, cost);
        let is_granted = durability == Durability::Ephemeral && quota.limits.outlast_restarts();
        let pass = quota.breaker.as_mut().map(|breaker| breaker.enter(now.instant));
        let durable = u32::from(durability == Durability::Durable);
        upstream.line_mut(durability).in_flight += 1;
        quota.in_flight += 1;
        quota.in_flight_durable += durable;
        self.in_flight += 1;
        self.in_flight_durable += durable;

        entry.attempts += 1;
        let attempt = AttemptId { call, number: entry.attempts };
        let kind = if pass.is_some_and(Pass::is_probe) { AttemptKind::Probe } else { kind };
        let is_durable = !rests_on_store(durability, &quota.limits);
        let live = Live::new(attempt.number, kind, (id, charged), grant);
        entry.live.push(Live { pass, is_durable, is_granted, ..live });
        entry.place = Place::Running;
        let state = lifecycle::next(entry.state, Step::Start).expect("only calls that wait or run are started");
        debug_assert_eq!(state, State::Running, "a started call runs");
        let before = std::mem::replace(&mut entry.state, state);

        let (upstream, hop, not_after) = (entry.spec.upstream, hop.map(|hop| hop.upstream), entry.deadline);
        self.census_of(durability).change(before, state);
        self.record(durability, Write::Start { attempt, kind, upstream: id, at: now, waited });
        let launch = Effect::Launch { attempt, upstream, hop, not_after };
        if is_granted {
            self.writes.push(Write::Grant { attempt, upstream: id, at: now, cost });
            self.effects_after.push(launch);
        } else {
            self.then(durability, launch);
        }
        attempt.number
    }
}

/// Whether attempts of this durability are let go only when something of them is stored: that they start, or what they take
/// of a window that outlasts a restart.
pub(super) fn rests_on_store(durability: Durability, limits: &Limits) -> bool {
    durability == Durability::Durable || limits.outlast_restarts()
}
