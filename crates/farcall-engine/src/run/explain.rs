//! Why a call waits, for whoever asks: what the dispatcher tells, in the words of the handle.
//!
//! Of lanes that the store alone knows further down, the asker reads and asks again; the loop waits for nothing.

use std::time::Duration;

use farcall_core::call::{Priority, UpstreamId};
use farcall_core::dispatcher::{Explanation, StoredPlace};
use farcall_core::id::CallId;
use farcall_core::lane::{LaneId, POSITIONS_MAX, Position, StoredLane};
use farcall_core::steady::Steady;
use farcall_core::time::Now;
use farcall_store::port::LaneRange;
use farcall_store::record::CallRecord;

use super::Run;
use super::load::next_reference;
use crate::clock;
use crate::document::UpstreamRef;
use crate::handle::{Explained, HedgingView, UpstreamView};
use crate::upstreams::{Serves, limit_key};

/// A call as the store has it, for when only the store does.
#[derive(Debug)]
pub(crate) struct StoredCall {
    /// Nothing for a callback that runs a command.
    place: Option<(UpstreamRef, Serves)>,
    lane: LaneId,
    ready_at: Steady,
    cost: u32,
    state: farcall_core::call::State,
}

/// Calls of a lane that were read from the store.
#[derive(Debug, Clone)]
pub(crate) struct ReadLane {
    pub(crate) range: LaneRange,
    pub(crate) calls: Vec<CallRecord>,
}

impl StoredCall {
    /// Nothing of one that waits in no lane.
    pub(crate) fn of(record: &CallRecord) -> Option<Self> {
        let priority = Priority::new(record.priority).unwrap_or_default();
        Some(Self {
            place: next_reference(record),
            lane: LaneId { priority, tenant: record.tenant_id },
            ready_at: record.progress.ready_at?,
            cost: record.cost,
            state: record.progress.state,
        })
    }
}

impl Run {
    /// Nothing when nobody knows the call as one that has not ended.
    pub(super) fn explain(
        &mut self,
        call: CallId,
        stored: Option<&StoredCall>,
        read: &[ReadLane],
    ) -> Option<Explained> {
        let now = clock::now();
        let lanes: Vec<StoredLane> = read.iter().map(|read| self.stored_lane(read)).collect();
        let explanation = match self.dispatcher.upstream_of(call) {
            Some(upstream) => self.dispatcher.explain(now, call, &lanes, self.latency_at(upstream))?,
            None => {
                let place = self.stored_place(call, stored?)?;
                let latency = self.latency_at(place.upstream);
                self.dispatcher.explain_stored(now, place, &lanes, latency)
            }
        };
        let hedging = self.dispatcher.hedge_standing(call).map(|standing| HedgingView::new(standing, now));
        Some(Explained { hedging, ..self.explained(now, explanation) })
    }

    fn explained(&mut self, now: Now, explanation: Explanation) -> Explained {
        let Explanation { standing, upstream, ahead, starts_at, held } = explanation;
        let use_there = self.dispatcher.upstream_standing(upstream, now.instant);
        let view = self.upstreams.get(upstream).map(|known| {
            let is_paused = self.upstreams.is_paused(limit_key(&known.reference));
            UpstreamView { is_paused, ..UpstreamView::new(known, &use_there, now) }
        });
        let missing = ahead.as_ref().map(|ahead| ahead.missing.as_slice()).unwrap_or_default();
        let count = u32::try_from(POSITIONS_MAX + 1).unwrap_or(u32::MAX);
        let range = |&(lane, from): &(LaneId, Position)| LaneRange {
            lane: self.lane_name(upstream, lane),
            ready_at: self.steady.steady(from.ready_at),
            call: from.call,
            count,
        };
        Explained {
            state: standing.state,
            wait_reason: standing.wait_reason,
            next_at: standing.next_at.map(|at| now.timestamp_of(at)),
            is_cancel_requested: standing.is_cancel_requested,
            missing: missing.iter().map(range).collect(),
            ahead: ahead.map(|ahead| (ahead.calls, ahead.is_exact)),
            starts_at: starts_at.map(|at| now.timestamp_of(at)),
            held,
            concurrency: (use_there.in_flight, use_there.concurrency),
            upstream: view,
            hedging: None,
        }
    }

    fn stored_place(&self, call: CallId, stored: &StoredCall) -> Option<StoredPlace> {
        let upstream = match &stored.place {
            Some((reference, serves)) => self.upstreams.find(reference, *serves)?,
            None => self.dispatcher.command_upstream(),
        };
        let position = Position { ready_at: self.steady.instant(stored.ready_at), call };
        Some(StoredPlace { upstream, lane: stored.lane, position, cost: stored.cost, state: stored.state })
    }

    /// What was read, but for calls that are in memory by now: of those that tells the truth.
    fn stored_lane(&self, read: &ReadLane) -> StoredLane {
        let waits = |record: &&CallRecord| !self.dispatcher.is_loaded(record.id);
        let place = |record: &CallRecord| {
            let ready_at = self.steady.instant(record.progress.ready_at?);
            Some((Position { ready_at, call: record.id }, record.cost))
        };
        StoredLane {
            lane: super::load::lane_id(&read.range.lane),
            calls: read.calls.iter().filter(waits).filter_map(place).collect(),
            is_cut: read.calls.len() >= usize::try_from(read.range.count).unwrap_or(usize::MAX),
        }
    }

    /// How long attempts of an upstream's calls have taken since the start, on average.
    fn latency_at(&self, upstream: UpstreamId) -> Duration {
        let tally = self.stats.tally(upstream);
        Duration::from_millis(tally.latency_ms_sum.checked_div(tally.attempts).unwrap_or(0))
    }
}
