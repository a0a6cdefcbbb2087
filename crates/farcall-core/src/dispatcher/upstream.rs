//! One upstream: its policy, its lanes, and what of itself keeps it from starting more just now.
//!
//! Durable and ephemeral calls wait in lines of their own: the store holds the rest of the one, and nothing of the other.
//! What the other side allows is its quota's, which it may share with others; what it starts is decided in `start`.

use crate::call::{Durability, QuotaId, UpstreamId, WaitReason};
use crate::lane::Lanes;
use crate::policy::UpstreamPolicy;
use crate::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) policy: UpstreamPolicy,
    /// What its attempts are charged to.
    pub(super) quota: QuotaId,
    durable: Line,
    ephemeral: Line,
    /// The configuration has it no longer: nothing is started.
    pub(super) is_withdrawn: bool,
}

/// Calls to one upstream that wait, or are out, side by side with those of the other durability.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    pub(super) lanes: Lanes,
    /// Attempts of its calls that are out.
    pub(super) in_flight: u32,
    /// What of the upstream itself keeps its next call from starting, if anything does.
    pub(super) blocked: Option<Block>,
    /// It stands among those that take turns at the quota.
    pub(super) takes_turns: bool,
}

/// Which line of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineId {
    pub(super) upstream: UpstreamId,
    pub(super) durability: Durability,
}

/// Why nothing is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: WaitReason,
    pub(super) until: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(policy: UpstreamPolicy, quota: QuotaId) -> Self {
        Self { policy, quota, durable: Line::default(), ephemeral: Line::default(), is_withdrawn: false }
    }

    pub(super) const fn line(&self, durability: Durability) -> &Line {
        match durability {
            Durability::Durable => &self.durable,
            Durability::Ephemeral => &self.ephemeral,
        }
    }

    pub(super) const fn line_mut(&mut self, durability: Durability) -> &mut Line {
        match durability {
            Durability::Durable => &mut self.durable,
            Durability::Ephemeral => &mut self.ephemeral,
        }
    }

    pub(super) const fn lines(&self) -> [&Line; 2] {
        [&self.durable, &self.ephemeral]
    }

    /// The lanes of its durable calls, of which the store knows more.
    pub(super) const fn lanes(&self) -> &Lanes {
        &self.durable.lanes
    }

    pub(super) const fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.durable.lanes
    }

    /// Attempts of its calls that are out.
    pub(super) const fn in_flight(&self) -> u32 {
        self.durable.in_flight + self.ephemeral.in_flight
    }

    /// Attempts of this durability that may be out at once; where it is configured, of both together.
    pub(super) fn concurrency(&self, durability: Durability) -> u32 {
        self.policy.concurrency.map_or(UpstreamPolicy::concurrency_of(durability), u32::from)
    }

    /// What of itself keeps it from starting an attempt of this durability now, if anything does.
    pub(super) fn obstacle(&self, durability: Durability) -> Option<Block> {
        if self.is_withdrawn {
            return Some(Block { reason: WaitReason::Paused, until: None });
        }
        let is_configured = self.policy.concurrency.is_some();
        let out = if is_configured { self.in_flight() } else { self.line(durability).in_flight };
        let is_full = out >= self.concurrency(durability);
        is_full.then_some(Block { reason: WaitReason::Concurrency, until: None })
    }
}
