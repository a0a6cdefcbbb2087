//! Policies that change while calls wait and attempts are out, and upstreams that go and come back.
//!
//! Attempts that are out keep the timeouts they were launched with; whatever is decided from now on goes by the new
//! policy. Limits go on counting what was sent.

use std::collections::HashSet;

use super::Dispatcher;
use crate::call::UpstreamId;
use crate::id::AttemptId;
use crate::limit::{Ask, Past};
use crate::policy::UpstreamPolicy;
use crate::time::{Instant, Now};

impl Dispatcher {
    /// What [`Dispatcher::change`] to this policy has to be told of the past, window by window.
    pub fn asks_of_change(
        &self,
        id: UpstreamId,
        policy: &UpstreamPolicy,
        certain_since: Instant,
        now: Now,
    ) -> Vec<Ask> {
        self.quota_of(id).limits.asks_of_change(policy, certain_since, now.instant)
    }

    /// From now on this policy holds for an upstream with a quota of its own, and its limits for all that share it.
    pub fn change(&mut self, now: Now, id: UpstreamId, policy: UpstreamPolicy, mut past: Past) {
        let charged = self.upstream(id).quota;
        let mut live = HashSet::new();
        let mut grants = Vec::new();
        for (&call, entry) in &mut self.calls {
            for attempt in entry.live.iter_mut().filter(|attempt| attempt.quota == charged) {
                live.insert(AttemptId { call, number: attempt.number });
                grants.push(&mut attempt.grant);
            }
        }
        // Those that are out count by what is known of them here. Others that the store still takes to be out ended a
        // moment ago.
        for (_, told) in &mut past.windows {
            told.retain(|grant| grant.open.is_none_or(|attempt| !live.contains(&attempt)));
        }
        let quota = &mut self.quotas[charged.0 as usize];
        quota.limits.change(&policy, &past, grants, now.instant);
        quota.concurrency = policy.concurrency;
        self.change_breaker(charged, policy.breaker);
        self.change_own(id, policy);
    }

    /// From now on this policy holds for an upstream that shares the quota of another; its limits count for nothing.
    pub fn change_own(&mut self, id: UpstreamId, policy: UpstreamPolicy) {
        self.upstream(id).policy = policy;
        self.reconsider(id);
    }

    /// The configuration has this upstream no longer: its calls wait, and show as paused.
    pub fn withdraw(&mut self, id: UpstreamId) {
        self.upstream(id).is_withdrawn = true;
        self.reconsider(id);
    }

    /// The configuration has it again: its calls go on, unless somebody paused it.
    pub fn reinstate(&mut self, id: UpstreamId) {
        self.upstream(id).is_withdrawn = false;
        self.reconsider(id);
    }

    /// Attempts charged to an upstream's quota that are out and may not have arrived there yet.
    pub fn on_their_way(&self, now: Now, id: UpstreamId) -> Vec<AttemptId> {
        let charged = self.upstreams[id.0 as usize].quota;
        let attempts = self.calls.iter().flat_map(|(&call, entry)| {
            let out = entry.live.iter().filter(move |live| live.quota == charged);
            out.map(move |live| AttemptId { call, number: live.number })
        });
        attempts.filter(|&attempt| self.is_on_its_way(now, attempt)).collect()
    }

    /// Whether an attempt is out and may not have arrived yet: neither was it answered, nor did its last byte leave longer
    /// ago than the network's delay varies.
    pub fn is_on_its_way(&self, now: Now, attempt: AttemptId) -> bool {
        let entry = self.calls.get(&attempt.call);
        let live = entry.and_then(|entry| entry.live.iter().find(|live| live.number == attempt.number));
        live.is_some_and(|live| {
            let jitter = self.quotas[live.quota.0 as usize].limits.jitter();
            let is_answered = live.grant.proved_at().is_some_and(|at| at <= now.instant);
            !is_answered && live.sent_at.is_none_or(|at| at + jitter > now.instant)
        })
    }

    /// Whatever kept its calls from starting may not any more.
    fn reconsider(&mut self, id: UpstreamId) {
        self.unblock(id);
        let charged = self.upstream(id).quota;
        self.wake(charged);
    }
}
