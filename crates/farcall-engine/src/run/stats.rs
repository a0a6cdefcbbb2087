//! What each upstream has done since the start, for people who watch.
//!
//! Not stored: after a restart it begins at zero. What is exact over restarts is the dispatcher's census.

use std::collections::BTreeMap;
use std::time::Duration;

use farcall_core::call::{State, UpstreamId};
use farcall_core::id_map::IdMap;

/// Counts of one upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) ended: BTreeMap<State, u64>,
    pub(super) attempts: u64,
    pub(super) latency_ms_sum: u64,
    pub(super) latency_ms_max: u64,
}

/// Counts of all upstreams.
#[derive(Debug, Default)]
pub(super) struct Stats {
    tallies: IdMap<UpstreamId, Tally>,
    attempts: u64,
}

impl Stats {
    pub(super) fn note_attempt(&mut self, upstream: UpstreamId, latency: Duration) {
        let tally = self.tallies.entry(upstream).or_default();
        let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        tally.attempts += 1;
        tally.latency_ms_sum = tally.latency_ms_sum.saturating_add(latency_ms);
        tally.latency_ms_max = tally.latency_ms_max.max(latency_ms);
        self.attempts += 1;
    }

    pub(super) fn note_end(&mut self, upstream: UpstreamId, state: State) {
        *self.tallies.entry(upstream).or_default().ended.entry(state).or_default() += 1;
    }

    pub(super) fn tally(&self, upstream: UpstreamId) -> Tally {
        self.tallies.get(&upstream).cloned().unwrap_or_default()
    }

    pub(super) const fn attempts(&self) -> u64 {
        self.attempts
    }
}
