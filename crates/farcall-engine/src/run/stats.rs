//! What each upstream has done since the start, for people who watch.
//!
//! Not stored: after a restart it begins at zero. What is exact over restarts is the dispatcher's census.

use std::collections::BTreeMap;
use std::time::Duration;

use farcall_core::call::{State, UpstreamId};
use farcall_core::id_map::IdMap;

use crate::handle::UpstreamOverview;
use crate::upstreams::Serves;

/// Counts of one upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) ended: BTreeMap<State, u64>,
    pub(super) attempts: u64,
    pub(super) latency_ms_sum: u64,
    pub(super) latency_ms_max: u64,
}

impl Tally {
    /// As people see it, of an upstream where nothing happens just now.
    pub(super) fn overview(self, name: String) -> UpstreamOverview {
        UpstreamOverview {
            name,
            ended: self.ended.into_iter().collect(),
            attempts: self.attempts,
            latency_ms_sum: self.latency_ms_sum,
            latency_ms_max: self.latency_ms_max,
            ..UpstreamOverview::default()
        }
    }

    fn add(&mut self, other: Self) {
        for (state, count) in other.ended {
            *self.ended.entry(state).or_default() += count;
        }
        self.attempts += other.attempts;
        self.latency_ms_sum = self.latency_ms_sum.saturating_add(other.latency_ms_sum);
        self.latency_ms_max = self.latency_ms_max.max(other.latency_ms_max);
    }
}

/// Counts of all upstreams.
#[derive(Debug, Default)]
pub(super) struct Stats {
    tallies: IdMap<UpstreamId, Tally>,
    /// Of upstreams that were forgotten.
    others: Tally,
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

    /// Upstreams that were forgotten; their numbers may name others from now on. Of callbacks it counts on at `callbacks`.
    pub(super) fn forget(&mut self, forgotten: &[(UpstreamId, Serves)], callbacks: UpstreamId) {
        for (id, serves) in forgotten {
            let Some(tally) = self.tallies.remove(id) else { continue };
            match serves {
                Serves::Calls => self.others.add(tally),
                Serves::Webhooks => self.tallies.entry(callbacks).or_default().add(tally),
            }
        }
    }

    /// What upstreams have done that were forgotten since.
    pub(super) const fn others(&self) -> &Tally {
        &self.others
    }

    pub(super) const fn attempts(&self) -> u64 {
        self.attempts
    }
}
