//! Why things wait: of one call, of one upstream, of all.
//!
//! Answers for people and for progress bars; nothing is decided by them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::{Entry, Place};
use super::restore::waited;
use super::upstream::LineId;
use super::{Census, Dispatcher};
use crate::breaker::{Breaker, BreakerState};
use crate::call::{Durability, State, UpstreamId, WaitReason};
use crate::id::{AttemptId, CallId};
use crate::lane::Beyond;
use crate::lifecycle::{self, Step};
use crate::limit::{Spacing, Usage};
use crate::time::{Instant, Now};

/// Where a live call stands just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub wait_reason: Option<WaitReason>,
    /// Until when at least, where that is known.
    pub next_at: Option<Instant>,
    /// It is to be cancelled, and will end as its last attempt does.
    pub is_cancel_requested: bool,
}

/// How an upstream stands just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStanding {
    /// In its lanes; of calls that only the store holds also those that wait for their time.
    pub waiting: u64,
    pub in_flight: u32,
    /// Attempts that may be out at once; where that is not configured, of durable calls.
    pub concurrency: u32,
    /// What keeps its next call from starting, and until when where that is known.
    pub blocked: Option<WaitReason>,
    pub blocked_until: Option<Instant>,
    /// Nothing is started: by hand, or because the configuration has it no longer.
    pub is_paused: bool,
    pub is_withdrawn: bool,
    /// It asked everybody to keep away until then.
    pub closed_until: Option<Instant>,
    /// It said that so much more may start until then, less what is out.
    pub told: Option<(u64, Instant)>,
    /// Where one is configured.
    pub breaker: Option<BreakerStanding>,
    pub limits: Vec<Usage>,
    /// With `smooth`: when the next attempt may be, and how far apart they are.
    pub spacing: Option<Spacing>,
}

/// How a breaker stands just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerStanding {
    pub state: BreakerState,
    /// Until when nothing starts, while it is open.
    pub open_until: Option<Instant>,
}

impl BreakerStanding {
    fn of(breaker: &Breaker, now: Instant) -> Self {
        Self { state: breaker.state(now), open_until: breaker.open_until(now) }
    }
}

/// How many calls wait, by reason, and the earliest moment at which one may go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiters {
    pub by_reason: BTreeMap<WaitReason, u64>,
    pub next_at: Option<Instant>,
    /// How long the call that waits longest for its turn has waited since it might have gone on.
    pub oldest_age: Duration,
}

impl Waiters {
    fn count(&mut self, standing: Standing, calls: u64) {
        let Some(reason) = standing.wait_reason else { return };
        *self.by_reason.entry(reason).or_default() += calls;
        self.next_at = self.next_at.into_iter().chain(standing.next_at).min();
    }

    fn note_ready(&mut self, now: Now, since: Instant) {
        let waited = waited(now, since).unwrap_or_default();
        self.oldest_age = self.oldest_age.max(waited);
    }
}

impl Dispatcher {
    /// The counts of all durable calls.
    pub const fn census(&self) -> Census {
        self.census
    }

    /// The counts of all durable calls as they are on disk.
    pub const fn durable_census(&self) -> Census {
        self.durable_census
    }

    /// The counts of the ephemeral calls that have not ended.
    pub const fn ephemeral_census(&self) -> Census {
        self.ephemeral_census
    }

    /// Attempts that are out.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether an attempt was started and has not reported yet.
    pub fn is_out(&self, attempt: AttemptId) -> bool {
        self.calls.get(&attempt.call).is_some_and(|entry| entry.live.iter().any(|live| live.number == attempt.number))
    }

    /// Why a call waits; nothing for calls that are not in memory.
    pub fn standing(&self, call: CallId) -> Option<Standing> {
        let entry = self.calls.get(&call)?;
        let is_paused = self.is_paused(entry.upstream());
        let (wait_reason, next_at) = match entry.place {
            // However long its own wait is, a pause has no end that is known.
            Place::Asleep { .. } | Place::Lane if is_paused => (Some(WaitReason::Paused), None),
            Place::Asleep { reason } => (Some(reason), Some(entry.ready_at)),
            Place::Lane => self.reason_to_wait(entry.line()),
            Place::Held | Place::Running | Place::Ended => (None, None),
        };
        Some(Standing { state: entry.state, wait_reason, next_at, is_cancel_requested: entry.is_cancel_requested })
    }

    /// How an upstream stands.
    pub fn upstream_standing(&mut self, id: UpstreamId, now: Instant) -> UpstreamStanding {
        let upstream = &self.upstreams[id.0 as usize];
        let quota = &mut self.quotas[upstream.quota.0 as usize];
        let blocked = upstream.lines().iter().find_map(|line| line.blocked).or(quota.blocked);
        let ready: usize = upstream.lines().iter().map(|line| line.lanes.ready()).sum();
        UpstreamStanding {
            waiting: u64::try_from(ready).unwrap_or(u64::MAX) + upstream.lanes().beyond(),
            in_flight: upstream.in_flight(),
            concurrency: upstream.concurrency(Durability::Durable),
            blocked: blocked.map(|block| block.reason),
            blocked_until: blocked.and_then(|block| block.until),
            is_paused: upstream.is_withdrawn || quota.is_paused,
            is_withdrawn: upstream.is_withdrawn,
            closed_until: quota.closed_until.filter(|&until| until > now),
            told: quota.limits.told(now),
            breaker: quota.breaker.as_ref().map(|breaker| BreakerStanding::of(breaker, now)),
            limits: quota.limits.usage(now),
            spacing: quota.limits.spacing(),
        }
    }

    /// Why a call waits that only the store holds, at this place in its lane.
    pub fn stored_standing(&self, now: Now, id: UpstreamId, state: State, ready_at: Instant) -> Standing {
        let asleep = self.reason_to_sleep(now, id, state, ready_at);
        let (wait_reason, next_at) = match asleep {
            _ if self.is_paused(id) => (Some(WaitReason::Paused), None),
            Some(reason) => (Some(reason), Some(ready_at)),
            None => self.reason_to_wait(LineId { upstream: id, durability: Durability::Durable }),
        };
        let due = lifecycle::next(state, Step::Due).filter(|_| asleep.is_none());
        Standing { state: due.unwrap_or(state), wait_reason, next_at, is_cancel_requested: false }
    }

    /// Why calls wait, counted over all of them. Proportional to those in memory and to the lanes, so not for every
    /// turn. Of a lane's calls in the store alone it is known when the first may go on, and all count as it does.
    pub fn waiters(&self, now: Now) -> Waiters {
        let mut waiters = Waiters::default();
        for standing in self.calls.keys().filter_map(|&call| self.standing(call)) {
            waiters.count(standing, 1);
        }
        let in_lanes = self.calls.values().filter(|entry| matches!(entry.place, Place::Lane));
        in_lanes.filter_map(Entry::waits_since).for_each(|since| waiters.note_ready(now, since));
        for (place, upstream) in self.upstreams.iter().enumerate() {
            let id = UpstreamId(u32::try_from(place).expect("as many as have numbers"));
            for Beyond { lane, count, edge } in upstream.lanes().stored() {
                let last = upstream.lanes().last(lane).and_then(|last| self.calls.get(&last.call));
                let state = last.map_or(State::Scheduled, |entry| entry.state);
                waiters.count(self.stored_standing(now, id, state, edge.ready_at), count);
                waiters.note_ready(now, edge.ready_at);
            }
        }
        waiters
    }

    /// Nothing of it is started until somebody says so.
    fn is_paused(&self, id: UpstreamId) -> bool {
        self.upstreams[id.0 as usize].is_withdrawn || self.quota_of(id).is_paused
    }

    fn reason_to_wait(&self, id: LineId) -> (Option<WaitReason>, Option<Instant>) {
        let own = self.upstreams[id.upstream.0 as usize].line(id.durability).blocked;
        match own.or(self.quota_of(id.upstream).blocked) {
            Some(block) => (Some(block.reason), block.until),
            None => (Some(WaitReason::Fairness), None),
        }
    }
}
