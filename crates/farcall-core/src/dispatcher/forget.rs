//! Forgetting upstreams that nothing needs, so that memory does not grow with everybody that was ever called.
//!
//! One goes when a start that restored it from the store would allow no more than it does now: nobody waits, nothing is
//! out or on its way to the store, every slot is free, it did not ask to keep away, its breaker is not open, and nobody paused it. Its number
//! may name another one afterwards. Which ones may go at all is up to whoever declared them.

use std::collections::HashSet;

use super::{Dispatcher, Quota, Upstream, Write};
use crate::call::{QuotaId, UpstreamId};
use crate::hop::Heading;
use crate::limit::Limits;
use crate::policy::UpstreamPolicy;
use crate::time::Instant;
use crate::timers::Timer;

/// Numbers of what was forgotten, for what comes.
#[derive(Debug, Clone, Default)]
pub(super) struct Vacant {
    pub(super) upstreams: Vec<UpstreamId>,
    pub(super) quotas: Vec<QuotaId>,
}

impl Dispatcher {
    /// Forgets those of `idle` that nothing needs, and gives them back: they are declared anew before anything is offered to
    /// them again. Those that share a quota go together or not at all. Proportional to the calls in memory and to the
    /// upstreams, so not for every turn.
    pub fn forget_upstreams(&mut self, now: Instant, idle: &[UpstreamId]) -> Vec<UpstreamId> {
        if self.is_held_up() {
            return Vec::new();
        }
        let idle: HashSet<UpstreamId> = idle.iter().copied().collect();
        let needed = self.needed_upstreams();
        let vacant: HashSet<UpstreamId> = self.vacant.upstreams.iter().copied().collect();
        let (mut staying, mut asked) = (HashSet::new(), HashSet::new());
        for id in self.numbers().filter(|id| !vacant.contains(id)) {
            let upstream = &self.upstreams[id.0 as usize];
            let is_vacant = upstream.lines().iter().all(|line| line.lanes.is_vacant() && line.in_flight == 0);
            let rests = is_vacant && !upstream.is_withdrawn;
            if idle.contains(&id) && rests && !needed.contains(&id) {
                asked.insert(upstream.quota);
            } else {
                staying.insert(upstream.quota);
            }
        }
        let going: HashSet<QuotaId> =
            asked.difference(&staying).copied().filter(|&quota| self.quota(quota).is_idle(now)).collect();
        let mut forgotten: Vec<UpstreamId> = idle.difference(&vacant).copied().collect();
        forgotten.retain(|id| going.contains(&self.upstreams[id.0 as usize].quota));
        forgotten.sort_unstable();
        let mut quotas: Vec<QuotaId> = going.into_iter().collect();
        quotas.sort_unstable_by_key(|quota| quota.0);
        quotas.iter().for_each(|&quota| self.vacate(quota));
        for &id in &forgotten {
            let upstream = self.upstream(id);
            *upstream = Upstream::new(UpstreamPolicy::default(), upstream.quota);
        }
        self.vacant.upstreams.extend(forgotten.iter().rev());
        self.vacant.quotas.extend(quotas.iter().rev());
        forgotten
    }

    /// Upstreams that were declared and not forgotten.
    pub fn upstreams_known(&self) -> usize {
        self.upstreams.len() - self.vacant.upstreams.len()
    }

    fn numbers(&self) -> impl Iterator<Item = UpstreamId> + use<> {
        let count = u32::try_from(self.upstreams.len()).expect("as many as have numbers");
        (0..count).map(UpstreamId)
    }

    fn vacate(&mut self, id: QuotaId) {
        if let Some(at) = self.quota(id).wake_at {
            self.timers.cancel(at, Timer::Quota(id));
        }
        let nothing = UpstreamPolicy::default();
        *self.quota(id) = Quota::new(self.commands, Limits::new(&nothing), &nothing);
    }

    /// Upstreams that something in memory names.
    fn needed_upstreams(&self) -> HashSet<UpstreamId> {
        let mut needed = HashSet::from([self.commands]);
        for entry in self.calls.values() {
            needed.extend([entry.spec.upstream, entry.upstream()]);
            needed.extend(entry.spec.callback);
            needed.extend(entry.live.iter().map(|live| live.upstream));
        }
        for upstream in &self.upstreams {
            let callbacks = &upstream.policy.callbacks;
            needed.extend(callbacks.on_success.into_iter().chain(callbacks.on_fail));
        }
        needed.extend(self.loads.upstreams());
        needed.extend(self.writes.iter().chain(self.gate.writes()).flat_map(named));
        needed
    }
}

impl Quota {
    /// All of it is free, and nothing keeps anybody away.
    fn is_idle(&mut self, now: Instant) -> bool {
        let is_open = self.breaker.as_ref().is_some_and(|breaker| breaker.open_until(now).is_some());
        let is_shut = self.is_paused || is_open || self.closed_until.is_some_and(|until| until > now);
        let is_used = self.limits.usage(now).iter().any(|usage| usage.used > 0) || self.limits.told(now).is_some();
        self.in_flight == 0 && !self.is_ready && !self.is_crowded_out && !is_shut && !is_used
    }
}

/// The upstreams that a write names.
fn named(write: &Write) -> Vec<UpstreamId> {
    match write {
        Write::Insert { callback, .. } => {
            callback.iter().flat_map(|callback| [callback.upstream, callback.parent_upstream]).collect()
        }
        Write::Start { upstream, .. }
        | Write::Grant { upstream, .. }
        | Write::Upstream { upstream }
        | Write::Open { upstream } => vec![*upstream],
        Write::Settle { upstream, progress, .. } => {
            let hop = progress.and_then(|progress| progress.heading).and_then(|heading| match heading {
                Heading::Hop(hop) => Some(hop.upstream),
                Heading::Home => None,
            });
            [*upstream].into_iter().chain(hop).collect()
        }
        Write::Close { .. }
        | Write::Release { .. }
        | Write::Filed { .. }
        | Write::Prune { .. }
        | Write::FreeKey { .. }
        | Write::GrantEnd { .. }
        | Write::GrantsLeft { .. }
        | Write::Mark { .. } => Vec::new(),
    }
}
