//! One upstream: its lanes, its limits, and why it does not start more just now.
//!
//! What it may start is decided in `start`; here is what there is to know for that.

use crate::call::WaitReason;
use crate::lane::Lanes;
use crate::limit::{Admission, Limits};
use crate::policy::UpstreamPolicy;
use crate::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) policy: UpstreamPolicy,
    pub(super) limits: Limits,
    pub(super) lanes: Lanes,
    /// Attempts that are out.
    pub(super) in_flight: u32,
    /// It asked everybody to wait until then.
    pub(super) closed_until: Option<Instant>,
    /// Why its next call does not start, and until when where that is known.
    pub(super) blocked: Option<Block>,
    /// It stands in the ring of upstreams to ask, or was crowded out of it.
    pub(super) is_ready: bool,
    /// Nothing is started, whatever the limits say.
    pub(super) is_paused: bool,
    /// The timer that is set for it.
    pub(super) wake_at: Option<Instant>,
}

/// Why an upstream starts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: WaitReason,
    pub(super) until: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(policy: UpstreamPolicy, limits: Limits) -> Self {
        Self {
            policy,
            limits,
            lanes: Lanes::default(),
            in_flight: 0,
            closed_until: None,
            blocked: None,
            is_ready: false,
            is_paused: false,
            wake_at: None,
        }
    }

    /// No cost above what the smallest window holds: such a call takes the whole window.
    pub(super) fn capped_cost(&self, cost: u32) -> u32 {
        self.policy.limits.iter().map(|spec| spec.count.get()).fold(cost, u32::min)
    }

    /// What keeps an attempt of this cost from starting now, if anything does.
    pub(super) fn obstacle(&mut self, now: Instant, cost: u32) -> Option<Block> {
        if self.is_paused {
            return Some(Block { reason: WaitReason::Paused, until: None });
        }
        if let Some(until) = self.closed_until.filter(|&until| until > now) {
            return Some(Block { reason: WaitReason::Cooldown, until: Some(until) });
        }
        let concurrency = self.policy.concurrency.map_or(UpstreamPolicy::DURABLE_CONCURRENCY, u32::from);
        if self.in_flight >= concurrency {
            return Some(Block { reason: WaitReason::Concurrency, until: None });
        }
        match self.limits.admit(now, cost) {
            Admission::Ready => None,
            Admission::NotBefore(at) => Some(Block { reason: WaitReason::RateLimit, until: Some(at) }),
            Admission::Full => Some(Block { reason: WaitReason::RateLimit, until: None }),
        }
    }

    /// Closes it for everybody until then, or later if it is closed longer already.
    pub(super) fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |closed| closed.max(until)));
    }
}
