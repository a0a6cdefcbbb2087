//! Which waiting calls are in memory: the front of every lane, bounded in all, and nothing of what lies behind.
//!
//! A call is let in when it stands before the edge of its lane, or when nothing is beyond that. What is too much is
//! left to the store from the back of the lane that grew. How more of a lane comes in is in `load`.

use super::entry::{Entry, Place};
use super::upstream::LineId;
use super::{Dispatcher, Timer, Write};
use crate::call::{Durability, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::lane::LaneId;
use crate::lifecycle::{self, Step};
use crate::time::{Instant, Now};
use std::time::Duration;

/// How many waiting calls are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Over all lanes, beside the least of each.
    pub calls_max: usize,
    /// Of one lane at most.
    pub lane_max: usize,
    /// Of each lane, however many there are.
    pub lane_min: usize,
}

impl Default for Memory {
    /// About 10 MB in all.
    fn default() -> Self {
        Self { calls_max: 16_384, lane_max: 2_048, lane_min: 4 }
    }
}

/// A call that was left to the store before its insert was durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeftNew {
    upstream: UpstreamId,
    lane: LaneId,
    state: State,
}

impl Dispatcher {
    /// Whether a call that waits is in memory; the store alone holds all others.
    pub fn is_loaded(&self, call: CallId) -> bool {
        self.calls.contains_key(&call)
    }

    /// Whether it was decided that a call ends, and that was not handed over yet.
    pub fn is_ending(&self, call: CallId) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Settle { call: ends, .. } if *ends == call))
    }

    /// Calls that stood in a lane in memory, or have a callback of their own, and are in the store alone since this was
    /// last asked: nobody need remember anything of them. To be asked after every turn, and before calls are loaded.
    pub fn take_left(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.left)
    }

    /// The place behind everybody who waits already: now, or a little later when others came at the same moment.
    pub(super) fn end_of_line(&mut self, now: Now) -> Instant {
        self.last_place = now.instant.max(self.last_place + Duration::from_micros(1));
        self.last_place
    }

    /// Puts a call that waits where it belongs, and sets its deadline.
    pub(super) fn place_new(&mut self, mut entry: Entry, asleep: Option<WaitReason>) {
        let (call, ready_at) = (entry.spec.id, entry.ready_at);
        if let Some(deadline) = entry.spec.deadline {
            entry.deadline = Some(deadline);
            self.timers.set(deadline, Timer::Deadline(call));
        }
        let held_by = entry.spec.callback_of.filter(|of| of.held).map(|of| of.parent);
        if held_by.is_some() {
            entry.place = Place::Held;
        }
        let lanes = &self.upstreams[entry.upstream().0 as usize].line(entry.spec.durability).lanes;
        if held_by.is_none() && lanes.is_beyond(entry.lane(), entry.position()) {
            // It never comes into memory.
            assert!(!self.calls.contains_key(&call), "call {call} was offered twice");
            self.left.extend(entry.spec.callback.map(|_| call));
            let (id, lane) = (entry.upstream(), entry.lane());
            self.leave_to_store(entry);
            return self.want_more(id, lane);
        }
        let previous = self.calls.insert(call, entry);
        assert!(previous.is_none(), "call {call} was offered twice");
        match held_by {
            Some(parent) => drop(self.held.insert((parent, call))),
            None => self.stand(call, ready_at, asleep),
        }
    }

    /// Lets a call that is in memory stand in its lane, or leaves it to the store.
    pub(super) fn stand(&mut self, call: CallId, ready_at: Instant, asleep: Option<WaitReason>) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.ready_at = ready_at;
        let (id, lane, position) = (entry.upstream(), entry.lane(), entry.position());
        if entry.spec.durability == Durability::Ephemeral {
            return self.let_in(call, asleep);
        }
        if !self.upstream(id).lanes().is_beyond(lane, position) {
            self.let_in(call, asleep);
        } else {
            return self.leave_out(call);
        }
        let last = self.upstream(id).lanes().last(lane).map(|last| last.call);
        if let Some(last) = last.filter(|_| self.is_too_much(id, lane)) {
            self.leave_out(last);
        }
        self.want_more(id, lane);
    }

    /// Into the lane, whatever the bounds say.
    pub(super) fn let_in(&mut self, call: CallId, asleep: Option<WaitReason>) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.place = asleep.map_or(Place::Lane, |reason| Place::Asleep { reason });
        let (id, lane, position) = (entry.upstream(), entry.lane(), entry.position());
        let durability = entry.spec.durability;
        let cost = self.quotas[self.upstreams[id.0 as usize].quota.0 as usize].limits.cap(entry.spec.cost.get());
        let lanes = &mut self.upstreams[id.0 as usize].line_mut(durability).lanes;
        self.loaded += usize::from(durability == Durability::Durable);
        if asleep.is_some() {
            lanes.put_asleep(lane, position, cost);
            self.timers.set(position.ready_at, Timer::Wake(call));
        } else {
            lanes.put_ready(lane, position, cost);
            self.wake_for(LineId { upstream: id, durability }, call);
        }
    }

    /// The time of a sleeper has come.
    pub(super) fn wake_call(&mut self, call: CallId) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let before = entry.state;
        if let Some(state) = lifecycle::next(before, Step::Due) {
            entry.state = state;
            entry.is_stored_as_scheduled = true;
        }
        entry.place = Place::Lane;
        let (line, state, lane, position) = (entry.line(), entry.state, entry.lane(), entry.position());
        if state != before {
            self.census_of(line.durability).change(before, state);
        }
        self.upstream(line.upstream).line_mut(line.durability).lanes.wake(lane, position);
        self.wake_for(line, call);
    }

    /// Takes a call that ends out of its lane.
    pub(super) fn leave_lane(&mut self, call: CallId) {
        let Some(entry) = self.calls.get(&call) else { return };
        let (line, lane, position) = (entry.line(), entry.lane(), entry.position());
        if matches!(entry.place, Place::Asleep { .. }) {
            self.timers.cancel(position.ready_at, Timer::Wake(call));
        }
        let upstream = self.upstream(line.upstream);
        upstream.line_mut(line.durability).lanes.remove(lane, position);
        // The call may have been the one that its quota was blocked for.
        let quota = upstream.quota;
        self.wake(quota);
        self.left_lane(line, lane);
    }

    /// A call stands in its lane no more.
    pub(super) fn left_lane(&mut self, line: LineId, lane: LaneId) {
        if line.durability == Durability::Durable {
            self.loaded -= 1;
            self.want_more(line.upstream, lane);
        }
    }

    fn is_too_much(&self, id: UpstreamId, lane: LaneId) -> bool {
        let Memory { calls_max, lane_max, lane_min } = self.memory;
        let loaded = self.upstreams[id.0 as usize].lanes().loaded(lane);
        loaded > lane_min && (self.loaded > calls_max || loaded > lane_max)
    }

    /// A call that waits is in the store alone from now on.
    fn leave_out(&mut self, call: CallId) {
        let Some(entry) = self.calls.remove(&call) else { return };
        let (id, lane, position) = (entry.upstream(), entry.lane(), entry.position());
        let (has_callback, is_asleep) = (entry.spec.callback.is_some(), matches!(entry.place, Place::Asleep { .. }));
        self.leave_to_store(entry);
        let stood = self.upstream(id).lanes_mut().remove(lane, position);
        if stood {
            self.loaded -= 1;
        }
        if stood || has_callback {
            self.left.push(call);
        }
        if is_asleep {
            self.timers.cancel(position.ready_at, Timer::Wake(call));
        }
        self.want_more(id, lane);
    }

    /// Counts a call among those that the store alone holds.
    fn leave_to_store(&mut self, mut entry: Entry) {
        if entry.is_stored_as_scheduled && entry.state == State::Queued {
            // It comes back as the store has it.
            self.census.change(State::Queued, State::Scheduled);
            entry.state = State::Scheduled;
        }
        let (call, id, lane, position) = (entry.spec.id, entry.upstream(), entry.lane(), entry.position());
        self.upstream(id).lanes_mut().leave_out(lane, position, 1);
        if let Some(deadline) = entry.deadline {
            self.timers.cancel(deadline, Timer::Deadline(call));
            self.note_stored_deadline(deadline);
        }
        if !entry.is_stored {
            self.left_new.insert(call, LeftNew { upstream: id, lane, state: entry.state });
        }
        self.loads.left_memory(call);
    }

    /// The insert of a call is durable.
    pub(super) fn note_stored(&mut self, call: CallId) {
        match self.calls.get_mut(&call) {
            Some(entry) => entry.is_stored = true,
            None => drop(self.left_new.remove(&call)),
        }
    }

    /// A call that was left to the store never came there. Gives the state it had.
    pub(super) fn forget_left(&mut self, call: CallId) -> Option<State> {
        let LeftNew { upstream, lane, state } = self.left_new.remove(&call)?;
        self.upstream(upstream).lanes_mut().forget_one_beyond(lane);
        Some(state)
    }

    /// A call may go on: its upstream takes turns at its quota, unless something of itself keeps it from that.
    fn wake_for(&mut self, id: LineId, call: CallId) {
        let upstream = &mut self.upstreams[id.upstream.0 as usize];
        let charged = upstream.quota;
        let line = upstream.line_mut(id.durability);
        let quota = &mut self.quotas[charged.0 as usize];
        if line.blocked.is_some() {
            // What unblocks it makes it take turns again.
            return;
        }
        if !line.takes_turns {
            line.takes_turns = true;
            quota.turns.push_back(id);
        }
        // A blocked quota is woken by what unblocks it, or by a call that goes before the one it is blocked for.
        let is_front = quota.turns.front() == Some(&id) && line.lanes.peek().is_some_and(|next| next.call == call);
        if quota.blocked.is_none() || quota.is_crowded_out || is_front {
            self.wake(charged);
        }
    }
}
