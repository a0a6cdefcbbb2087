//! What one other side allows to all that goes there: its limits, and until when it asked everybody to keep away.
//!
//! Several upstreams may share a quota: the calls to an API, and the callbacks whose URLs belong to it. They take turns
//! at it; the one whose turn it is is waited for and not overtaken, or a call that needs many slots might never start.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::upstream::{Block, LineId};
use crate::breaker::{Breaker, Passage};
use crate::call::{UpstreamId, WaitReason};
use crate::limit::{Admission, Limits};
use crate::policy::UpstreamPolicy;
use crate::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Quota {
    /// The upstream that was declared with it, and whose policy it is.
    pub(super) owner: UpstreamId,
    pub(super) limits: Limits,
    /// Bounds all attempts together, where that is configured.
    pub(super) concurrency: Option<NonZeroU32>,
    /// Upstreams that share it.
    pub(super) sharers: Vec<UpstreamId>,
    /// Attempts that are out, and how many of them are of durable calls.
    pub(super) in_flight: u32,
    pub(super) in_flight_durable: u32,
    /// Somebody paused it: nothing is started, whatever the limits say.
    pub(super) is_paused: bool,
    /// It asked everybody to wait until then.
    pub(super) closed_until: Option<Instant>,
    /// Until when the store has it closed, as far as that was written by this process.
    pub(super) stored_closing: Option<Instant>,
    /// Where one is configured.
    pub(super) breaker: Option<Breaker>,
    /// Lines that may have something to start, the one whose turn it is in front. Each stands here at most once.
    pub(super) turns: VecDeque<LineId>,
    /// Why the next call does not start, and until when where that is known.
    pub(super) blocked: Option<Block>,
    /// It stands in the ring of quotas to ask.
    pub(super) is_ready: bool,
    /// It stands among those whose durable calls find no room.
    pub(super) is_crowded_out: bool,
    /// The timer that is set for it.
    pub(super) wake_at: Option<Instant>,
}

impl Quota {
    pub(super) fn new(owner: UpstreamId, limits: Limits, policy: &UpstreamPolicy) -> Self {
        Self {
            owner,
            limits,
            concurrency: policy.concurrency,
            sharers: Vec::new(),
            in_flight: 0,
            in_flight_durable: 0,
            is_paused: false,
            closed_until: None,
            stored_closing: None,
            breaker: policy.breaker.map(Breaker::new),
            turns: VecDeque::new(),
            blocked: None,
            is_ready: false,
            is_crowded_out: false,
            wake_at: None,
        }
    }

    /// What keeps an attempt of this cost from starting now, if anything does.
    pub(super) fn obstacle(&mut self, now: Instant, cost: u32) -> Option<Block> {
        if self.is_paused {
            return Some(Block { reason: WaitReason::Paused, until: None });
        }
        if let Some(until) = self.closed_until.filter(|&until| until > now) {
            return Some(Block { reason: WaitReason::Cooldown, until: Some(until) });
        }
        if let Some(block) = self.breaker_block(now) {
            return Some(block);
        }
        if self.concurrency.is_some_and(|most| self.in_flight >= most.get()) {
            return Some(Block { reason: WaitReason::Concurrency, until: None });
        }
        match self.limits.admit(now, cost) {
            Admission::Ready => None,
            Admission::NotBefore(at) => Some(Block { reason: WaitReason::RateLimit, until: Some(at) }),
            Admission::Full => Some(Block { reason: WaitReason::RateLimit, until: None }),
        }
    }

    /// What the breaker says against a start.
    fn breaker_block(&self, now: Instant) -> Option<Block> {
        let reason = WaitReason::BreakerOpen;
        match self.breaker.as_ref()?.passage(now) {
            Passage::Free | Passage::Probe => None,
            Passage::NotBefore(at) => Some(Block { reason, until: Some(at) }),
            Passage::AfterProbe => Some(Block { reason, until: None }),
        }
    }

    /// Closes it for everybody until then, or later if it is closed longer already.
    pub(super) fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(self.closed_until.map_or(until, |closed| closed.max(until)));
    }
}
