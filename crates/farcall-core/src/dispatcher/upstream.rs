//! One upstream: its policy, its lanes, and what of itself keeps it from starting more just now.
//!
//! What the other side allows is its quota's, which it may share with others; what it starts is decided in `start`.

use crate::call::{QuotaId, WaitReason};
use crate::hedge::HedgeBudget;
use crate::lane::Lanes;
use crate::latency::Latencies;
use crate::policy::UpstreamPolicy;
use crate::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) policy: UpstreamPolicy,
    /// What its attempts are charged to.
    pub(super) quota: QuotaId,
    pub(super) lanes: Lanes,
    /// Attempts of its calls that are out.
    pub(super) in_flight: u32,
    /// What of itself keeps its next call from starting, if anything does.
    pub(super) blocked: Option<Block>,
    /// It stands among those that take turns at its quota.
    pub(super) takes_turns: bool,
    /// The configuration has it no longer: nothing is started.
    pub(super) is_withdrawn: bool,
    /// How long attempts take, once somebody wants to know.
    pub(super) latencies: Option<Box<Latencies>>,
    /// What hedges of its calls may cost.
    pub(super) hedge_budget: HedgeBudget,
}

/// Why nothing is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: WaitReason,
    pub(super) until: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(policy: UpstreamPolicy, quota: QuotaId) -> Self {
        Self {
            policy,
            quota,
            lanes: Lanes::default(),
            in_flight: 0,
            blocked: None,
            takes_turns: false,
            is_withdrawn: false,
            latencies: None,
            hedge_budget: HedgeBudget::default(),
        }
    }

    /// Attempts that may be out at once.
    pub(super) fn concurrency(&self) -> u32 {
        self.policy.concurrency.map_or(UpstreamPolicy::DURABLE_CONCURRENCY, u32::from)
    }

    /// What of itself keeps it from starting an attempt now, if anything does.
    pub(super) fn obstacle(&self) -> Option<Block> {
        if self.is_withdrawn {
            return Some(Block { reason: WaitReason::Paused, until: None });
        }
        (self.in_flight >= self.concurrency()).then_some(Block { reason: WaitReason::Concurrency, until: None })
    }
}
