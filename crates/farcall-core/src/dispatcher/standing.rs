//! Why things wait: of one call, of one upstream, of all.
//!
//! Answers for people and for progress bars; nothing is decided by them.

use std::collections::BTreeMap;

use super::entry::Place;
use super::{Census, Dispatcher};
use crate::call::{State, UpstreamId, WaitReason};
use crate::id::{AttemptId, CallId};
use crate::limit::Usage;
use crate::time::Instant;

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
    pub waiting: usize,
    pub in_flight: u32,
    pub blocked: Option<WaitReason>,
    pub is_paused: bool,
    pub limits: Vec<Usage>,
}

/// How many calls wait, by reason, and the earliest moment at which one may go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiters {
    pub by_reason: BTreeMap<WaitReason, u64>,
    pub next_at: Option<Instant>,
}

impl Dispatcher {
    /// The counts of all calls.
    pub const fn census(&self) -> Census {
        self.census
    }

    /// The counts of all calls as they are on disk.
    pub const fn durable_census(&self) -> Census {
        self.durable_census
    }

    /// Attempts that are out.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether an attempt was started and has not reported yet.
    pub fn is_out(&self, attempt: AttemptId) -> bool {
        self.calls.get(&attempt.call).is_some_and(|entry| entry.live.iter().any(|live| live.number == attempt.number))
    }

    /// Why a call waits; nothing for calls that have ended or were never here.
    pub fn standing(&self, call: CallId) -> Option<Standing> {
        let entry = self.calls.get(&call)?;
        let upstream = &self.upstreams[entry.spec.upstream.0 as usize];
        let is_paused = upstream.is_paused;
        let (wait_reason, next_at) = match entry.place {
            // However long its own wait is, a pause has no end that is known.
            Place::Asleep { .. } | Place::Lane if is_paused => (Some(WaitReason::Paused), None),
            Place::Asleep { until, reason } => (Some(reason), Some(until)),
            Place::Lane => match upstream.blocked.or(self.quotas[upstream.quota.0 as usize].blocked) {
                Some(block) => (Some(block.reason), block.until),
                None => (Some(WaitReason::Fairness), None),
            },
            Place::Held | Place::Running | Place::Ended => (None, None),
        };
        Some(Standing { state: entry.state, wait_reason, next_at, is_cancel_requested: entry.is_cancel_requested })
    }

    /// How an upstream stands.
    pub fn upstream_standing(&mut self, id: UpstreamId, now: Instant) -> UpstreamStanding {
        let upstream = &self.upstreams[id.0 as usize];
        let quota = &mut self.quotas[upstream.quota.0 as usize];
        UpstreamStanding {
            waiting: upstream.lanes.len(),
            in_flight: upstream.in_flight,
            blocked: upstream.blocked.or(quota.blocked).map(|block| block.reason),
            is_paused: upstream.is_paused,
            limits: quota.limits.usage(now),
        }
    }

    /// Why calls wait, counted over all of them; proportional to their number, so not for every turn.
    pub fn waiters(&self) -> Waiters {
        let mut waiters = Waiters::default();
        for &call in self.calls.keys() {
            let Some(standing) = self.standing(call) else { continue };
            let Some(reason) = standing.wait_reason else { continue };
            *waiters.by_reason.entry(reason).or_default() += 1;
            if let Some(at) = standing.next_at {
                waiters.next_at = Some(waiters.next_at.map_or(at, |next| next.min(at)));
            }
        }
        waiters
    }
}
