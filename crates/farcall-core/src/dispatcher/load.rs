//! Bringing calls in that only the store holds: when their lane runs low, and when their deadline passes.
//!
//! One load is under way at a time. It rests on all writes decided before it, so it sees every call that was counted by
//! then. What happens meanwhile it may see or not: calls that have left memory since are not taken from it, and of a
//! lane nothing is taken from the first call on that was left to the store since (`lane::Lanes::end_load`).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::entry::Entry;
use super::{Dispatcher, Effect, Recovered, Timer};
use crate::call::{ErrorKind, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::id_map::IdSet;
use crate::lane::{LaneId, Position};
use crate::lifecycle::{self, Step};
use crate::time::{Instant, Now};

/// Lanes that one load asks for.
const LANES_MAX: usize = 256;
/// Calls that one load asks for, beside the least of each lane.
const CALLS_MAX: usize = 2_048;
/// Deadlines that one load asks for.
const DEADLINES_MAX: u32 = 256;
/// Deadlines of calls in the store alone are looked for this often at most.
const DEADLINES_EVERY: Duration = Duration::from_millis(50);
/// When a load that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is to be read from the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub lanes: Vec<LaneLoad>,
    /// So many of the calls that wait and have a deadline, the earliest first.
    pub deadlines: u32,
    /// Calls that are to be cancelled; the answer leaves out those that are unknown.
    pub calls: Vec<CallId>,
}

/// Calls of a lane: at most `count`, from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLoad {
    pub upstream: UpstreamId,
    pub lane: LaneId,
    pub from: Position,
    pub count: u32,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// Of each lane asked for, in the order of their positions.
    pub lanes: Vec<Vec<Recovered>>,
    pub deadlines: Vec<Recovered>,
    pub calls: Vec<Recovered>,
    /// Some of what was asked for is damaged and left out: it stays in the store and is never started.
    pub has_gaps: bool,
}

/// What is wanted of the store and what is on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads {
    lanes: VecDeque<(UpstreamId, LaneId)>,
    deadlines_due: bool,
    /// To be cancelled, as soon as they come.
    cancels: BTreeSet<CallId>,
    /// The timer that is set for the next deadline.
    deadline_at: Option<Instant>,
    under_way: Option<Wanted>,
    /// Calls that left memory while a load was under way: what it read of them may be out of date.
    left: IdSet<CallId>,
    is_resting: bool,
}

impl Loads {
    pub(super) fn left_memory(&mut self, call: CallId) {
        if self.under_way.is_some() {
            self.left.insert(call);
        }
    }

    /// Those of whose lanes more is wanted or on its way.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = UpstreamId> {
        let wanted = self.lanes.iter().map(|&(upstream, _)| upstream);
        wanted.chain(self.under_way.iter().flat_map(|under_way| under_way.lanes.iter().map(|lane| lane.upstream)))
    }

    pub(super) const fn deadline_fired(&mut self) {
        self.deadline_at = None;
        self.deadlines_due = true;
    }

    pub(super) const fn may_ask_again(&mut self) {
        self.is_resting = false;
    }
}

impl Dispatcher {
    /// What the last `Effect::Load` asks for; nothing when it has been answered.
    pub const fn wanted(&self) -> Option<&Wanted> {
        self.loads.under_way.as_ref()
    }

    /// Whether calls are on their way from the store, or will be asked for.
    pub fn is_loading(&self) -> bool {
        let Loads { lanes, cancels, under_way, is_resting, .. } = &self.loads;
        under_way.is_some() || *is_resting || !lanes.is_empty() || !cancels.is_empty()
    }

    /// Takes over a lane of which the store holds this many calls.
    pub fn restore_lane(&mut self, id: UpstreamId, lane: LaneId, waiting: u64) {
        if waiting > 0 {
            self.upstream(id).lanes_mut().leave_out(lane, Position::FIRST, waiting);
            self.loads.deadlines_due = true;
            self.want_more(id, lane);
        }
    }

    /// Asks for more of a lane when little of it is in memory.
    pub(super) fn want_more(&mut self, id: UpstreamId, lane: LaneId) {
        let low = self.memory.lane_min / 2 + self.share_of_lane() / 2;
        if self.upstream(id).lanes_mut().want_if_low(lane, low) {
            self.loads.lanes.push_back((id, lane));
        }
    }

    pub(super) fn note_stored_deadline(&mut self, at: Instant) {
        if self.loads.deadline_at.is_some_and(|set| set <= at) {
            return;
        }
        if let Some(set) = self.loads.deadline_at.replace(at) {
            self.timers.cancel(set, Timer::StoredDeadline);
        }
        self.timers.set(at, Timer::StoredDeadline);
    }

    pub(super) fn may_ask(&self) -> bool {
        let Loads { lanes, deadlines_due, cancels, .. } = &self.loads;
        let is_wanted = !lanes.is_empty() || *deadlines_due || !cancels.is_empty();
        is_wanted && self.loads.under_way.is_none() && !self.loads.is_resting && !self.draining
    }

    pub(super) fn ask_for_more(&mut self) {
        if !self.may_ask() {
            return;
        }
        let lanes = self.lanes_to_load();
        let deadlines = if std::mem::take(&mut self.loads.deadlines_due) { DEADLINES_MAX } else { 0 };
        let calls: Vec<CallId> = self.loads.cancels.iter().copied().collect();
        if !lanes.is_empty() || deadlines > 0 || !calls.is_empty() {
            self.loads.under_way = Some(Wanted { lanes, deadlines, calls });
            self.push_after_all(Effect::Load);
        }
    }

    pub(super) fn loaded(&mut self, now: Now, loaded: Loaded) {
        // It stays under way until all of it is taken in: what ends on the way must not be taken for waiting further down.
        let Some(wanted) = self.loads.under_way.clone() else { return };
        for (asked, found) in wanted.lanes.iter().zip(loaded.lanes) {
            self.take_in(now, asked, found, loaded.has_gaps);
        }
        if wanted.deadlines > 0 {
            self.expire_stored(now, loaded.deadlines);
        }
        for call in &wanted.calls {
            self.loads.cancels.remove(call);
        }
        let mut missed: BTreeSet<CallId> = wanted.calls.iter().copied().collect();
        for recovered in loaded.calls {
            missed.remove(&recovered.spec.id);
            self.cancel_read(now, recovered);
        }
        for call in missed {
            // What came into memory since the load was asked for is cancelled there.
            match self.calls.contains_key(&call) {
                true => self.cancel(now, call),
                false => self.push_after_all(Effect::CancelMissed { call }),
            }
        }
        self.loads.under_way = None;
        self.loads.left.clear();
    }

    pub(super) fn load_failed(&mut self, now: Now) {
        self.cancel_load();
        self.loads.is_resting = true;
        self.timers.set(now.instant + RETRY_AFTER, Timer::Load);
    }

    /// A load that was asked for never will be made: what it rests on was not made durable.
    pub(super) fn cancel_load(&mut self) {
        let Some(wanted) = self.loads.under_way.take() else { return };
        for LaneLoad { upstream, lane, from, .. } in wanted.lanes {
            self.upstream(upstream).lanes_mut().end_load(lane, Some(from));
            self.want_more(upstream, lane);
        }
        self.loads.deadlines_due |= wanted.deadlines > 0;
        self.loads.left.clear();
    }

    fn lanes_to_load(&mut self) -> Vec<LaneLoad> {
        let (mut asked, mut calls) = (Vec::new(), 0);
        let share = self.share_of_lane().min(CALLS_MAX / self.loads.lanes.len().max(1));
        while asked.len() < LANES_MAX && calls < CALLS_MAX {
            let Some((upstream, lane)) = self.loads.lanes.pop_front() else { break };
            let count = self.memory.lane_min.max(share).max(1);
            let Some(from) = self.upstream(upstream).lanes_mut().begin_load(lane) else { continue };
            calls += count;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            asked.push(LaneLoad { upstream, lane, from, count });
        }
        asked
    }

    /// How many calls more one lane may have in memory.
    fn share_of_lane(&self) -> usize {
        let room = self.memory.calls_max.saturating_sub(self.loaded);
        (room / 8).min(self.memory.lane_max / 2)
    }

    fn take_in(&mut self, now: Now, asked: &LaneLoad, found: Vec<Recovered>, has_gaps: bool) {
        let &LaneLoad { upstream, lane, count, .. } = asked;
        let is_cut = found.len() >= usize::try_from(count).unwrap_or(usize::MAX);
        let reached = if is_cut { found.last().map(|last| last.position().next()) } else { None };
        let Some(until) = self.upstream(upstream).lanes_mut().end_load(lane, reached) else { return };
        for recovered in found {
            if until.is_some_and(|until| until <= recovered.position()) {
                break;
            }
            if self.is_news(&recovered) {
                self.upstream(upstream).lanes_mut().forget_one_beyond(lane);
                self.let_in_again(now, recovered);
            }
        }
        if until.is_none() {
            let is_counted = self.upstream(upstream).lanes_mut().is_beyond(lane, Position::LAST);
            debug_assert!(has_gaps || !is_counted, "a waiting call is lost");
            self.upstream(upstream).lanes_mut().forget_all_beyond(lane);
        }
        self.want_more(upstream, lane);
    }

    /// Whether what was read is a call that only the store holds.
    fn is_news(&self, recovered: &Recovered) -> bool {
        let call = recovered.spec.id;
        !self.calls.contains_key(&call) && !self.loads.left.contains(&call)
    }

    fn let_in_again(&mut self, now: Now, recovered: Recovered) {
        let upstream = recovered.upstream();
        let Recovered { spec, hop, tries, attempts, ready_at, .. } = recovered;
        let (call, ready_at) = (spec.id, ready_at.unwrap_or(now.instant));
        let asleep = self.reason_to_sleep(now, upstream, recovered.state, ready_at);
        let due = lifecycle::next(recovered.state, Step::Due).filter(|_| asleep.is_none());
        let state = due.unwrap_or(recovered.state);
        let mut entry = Entry { hop, ..Entry::new(spec, state, tries, attempts, ready_at) };
        if state != recovered.state {
            self.census.change(recovered.state, state);
            entry.is_stored_as_scheduled = true;
        }
        entry.deadline = entry.spec.deadline;
        if let Some(deadline) = entry.deadline {
            self.timers.set(deadline, Timer::Deadline(call));
        }
        self.calls.insert(call, entry);
        self.let_in(call, asleep);
        if self.loads.cancels.contains(&call) {
            self.cancel(now, call);
        }
    }

    /// Why a call of this place in its lane sleeps, if it does. One that was told to keep away comes back when what told it
    /// so opens; any other time is its own, and nobody else opens that.
    pub(super) fn reason_to_sleep(
        &self,
        now: Now,
        id: UpstreamId,
        state: State,
        ready_at: Instant,
    ) -> Option<WaitReason> {
        let closed_until = self.quota_of(id).closed_until;
        match state {
            _ if ready_at <= now.instant => None,
            State::Scheduled => Some(WaitReason::NotBefore),
            _ if closed_until == Some(ready_at) => Some(WaitReason::Cooldown),
            _ => Some(WaitReason::Backoff),
        }
    }

    /// A call that is not in memory is to be cancelled, if the store holds it and it waits.
    pub(super) fn cancel_stored(&mut self, call: CallId) {
        if self.upstreams.iter().any(|upstream| upstream.lanes().beyond() > 0) {
            self.loads.cancels.insert(call);
        } else {
            self.push_after_all(Effect::CancelMissed { call });
        }
    }

    fn cancel_read(&mut self, now: Now, recovered: Recovered) {
        let call = recovered.spec.id;
        if self.calls.contains_key(&call) {
            self.cancel(now, call);
        } else if self.loads.left.contains(&call) {
            self.cancel_stored(call);
        } else if self.fetch(now, recovered).is_some() {
            self.end(now, call, State::Cancelled, None, None, None);
        } else {
            self.push_after_all(Effect::CancelMissed { call });
        }
    }

    /// Takes a call into memory that only the store held, to end it there; nothing when it is somewhere else.
    fn fetch(&mut self, now: Now, recovered: Recovered) -> Option<CallId> {
        let (upstream, lane) = (recovered.upstream(), recovered.lane());
        let waits = recovered.ready_at.is_some() && !recovered.state.is_end();
        let is_beyond = waits && self.upstream(upstream).lanes_mut().is_beyond(lane, recovered.position());
        if !is_beyond || !self.is_news(&recovered) {
            return None;
        }
        self.upstream(upstream).lanes_mut().forget_one_beyond(lane);
        let Recovered { spec, hop, state, tries, attempts, ready_at, .. } = recovered;
        let call = spec.id;
        let entry = Entry::new(spec, state, tries, attempts, ready_at.unwrap_or(now.instant));
        self.calls.insert(call, Entry { hop, ..entry });
        Some(call)
    }

    /// Ends the calls whose deadline has passed while only the store held them. Those in memory have their own timers.
    fn expire_stored(&mut self, now: Now, found: Vec<Recovered>) {
        let is_cut = found.len() >= usize::try_from(DEADLINES_MAX).unwrap_or(usize::MAX);
        for recovered in found {
            let Some(deadline) = recovered.spec.deadline else { continue };
            if deadline > now.instant {
                return self.note_stored_deadline(deadline.max(now.instant + DEADLINES_EVERY));
            }
            if let Some(call) = self.fetch(now, recovered) {
                self.end(now, call, State::Expired, Some(ErrorKind::Deadline), None, None);
            }
        }
        if is_cut {
            self.note_stored_deadline(now.instant + DEADLINES_EVERY);
        }
    }
}
