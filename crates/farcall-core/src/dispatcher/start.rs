//! Starting attempts: upstreams take turns, each starts its next call when every limit allows it.
//!
//! A start is a write; its launch follows when that is durable. Who goes next within an upstream is the lanes' choice.

use super::entry::{Live, Place};
use super::upstream::Block;
use super::{ATTEMPTS_MAX, Dispatcher, Effect, TURN_WRITES_MAX, Write};
use crate::attempt::AttemptKind;
use crate::call::{State, UpstreamId, WaitReason};
use crate::id::{AttemptId, CallId};
use crate::lifecycle::{self, Step};
use crate::time::{Instant, Now};
use crate::timers::Timer;

impl Dispatcher {
    /// Starts what may start, one call per upstream and round, until nothing more may or the turn is full.
    pub(super) fn start_ready(&mut self, now: Now) {
        while self.turn.writes.len() < TURN_WRITES_MAX {
            let Some(id) = self.next_to_ask() else { return };
            let is_full = self.is_full();
            let upstream = self.upstream(id);
            let Some(waiting) = upstream.lanes.peek() else {
                upstream.is_ready = false;
                continue;
            };
            // However many are out in all, an upstream with none may start one: no other can hold it up.
            if is_full && upstream.in_flight > 0 {
                upstream.blocked = Some(Block { reason: WaitReason::Concurrency, until: None });
                self.crowded_out.push_back(id);
                continue;
            }
            if let Some(block) = upstream.obstacle(now.instant, waiting.cost) {
                self.block(id, block);
                continue;
            }
            upstream.lanes.take();
            upstream.blocked = None;
            self.loaded -= 1;
            self.start(now, waiting.call, waiting.cost);
            self.want_more(id, waiting.lane);
            self.ready.push_back(id);
        }
    }

    /// The upstream to ask for its next call. Those that were crowded out come first, in the order they were.
    fn next_to_ask(&mut self) -> Option<UpstreamId> {
        if !self.is_full() && !self.crowded_out.is_empty() {
            return self.crowded_out.pop_front();
        }
        self.ready.pop_front().or_else(|| {
            // Its last attempt has ended: it may start one, however many others are out.
            let idle = |id: &UpstreamId| self.upstreams[id.0 as usize].in_flight == 0;
            let place = self.crowded_out.iter().position(idle)?;
            self.crowded_out.remove(place)
        })
    }

    /// As many attempts are out as may be.
    pub(super) const fn is_full(&self) -> bool {
        self.in_flight >= ATTEMPTS_MAX
    }

    /// Takes an upstream out of the ring until a timer or an attempt's report wakes it.
    fn block(&mut self, id: UpstreamId, block: Block) {
        let upstream = self.upstream(id);
        upstream.is_ready = false;
        upstream.blocked = Some(block);
        if let Some(until) = block.until {
            self.wake_upstream_at(id, until);
        }
    }

    fn wake_upstream_at(&mut self, id: UpstreamId, at: Instant) {
        let previous = self.upstream(id).wake_at.replace(at);
        if let Some(previous) = previous {
            self.timers.cancel(previous, Timer::Upstream(id));
        }
        self.timers.set(at, Timer::Upstream(id));
    }

    /// Starts an attempt of a call that waits, or one more of a call that runs.
    pub(super) fn start(&mut self, now: Now, call: CallId, cost: u32) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let id = entry.spec.upstream;
        let upstream = &mut self.upstreams[id.0 as usize];
        let grant = upstream.limits.grant(now.instant, cost);
        upstream.in_flight += 1;
        self.in_flight += 1;

        entry.attempts += 1;
        let attempt = AttemptId { call, number: entry.attempts };
        let kind = if entry.attempts == 1 { AttemptKind::First } else { AttemptKind::Retry };
        entry.live.push(Live { number: attempt.number, grant, times_out_at: None, cut: None });
        entry.place = Place::Running;
        let state = lifecycle::next(entry.state, Step::Start).expect("only calls that wait or run are started");
        debug_assert_eq!(state, State::Running, "a started call runs");
        self.census.change(entry.state, state);
        entry.state = state;

        self.turn.writes.push(Write::Start { attempt, kind, at: now.timestamp });
        let not_after = entry.deadline;
        self.turn.effects_after.push(Effect::Launch { attempt, upstream: id, not_after });
    }
}
