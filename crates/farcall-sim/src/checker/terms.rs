//! What holds for one call, worked out anew from the contract: its own word, else its upstream's, else the default.
//!
//! It shares no code with the machine on purpose.

use std::time::Duration;

use farcall_core::call::UpstreamId;
use farcall_core::hedge::{HedgePolicy, Hedging};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retry::{OnUnknown, RetryPolicy, StatusSet};

use crate::facts::{Facts, Origin};
use crate::plan::Plan;
use crate::workload::CallPlan;

/// The terms of one call. Limits apart, an upstream's policy never changes during a run.
#[derive(Debug, Clone)]
pub(crate) struct CallTerms<'a> {
    pub(crate) timeout: Duration,
    pub(crate) retry: &'a RetryPolicy,
    /// What somebody has said on the matter; else the method decides.
    repeats_unknown: Option<bool>,
    pub(crate) redirects: u32,
    hedge: Option<HedgePolicy>,
    /// What somebody has said on whether requests may be made twice.
    is_idempotent: Option<bool>,
    pub(crate) success: &'a StatusSet,
    pub(crate) method: &'static str,
    pub(crate) upstream: usize,
    /// Where its callbacks go when it succeeds, and at any other end.
    pub(crate) callbacks: (Vec<usize>, Vec<usize>),
}

/// The terms of a call that is known.
pub(crate) fn terms<'a>(plan: &'a Plan, facts: &Facts, call: CallId) -> CallTerms<'a> {
    let wish = wish(plan, facts, call);
    let upstream = wish.map_or_else(|| callback_place(facts, call), |wish| wish.upstream as usize);
    let policy = &plan.upstreams[upstream].policy;
    let own = wish.and_then(|wish| wish.overrides.as_ref());
    CallTerms {
        timeout: own.and_then(|own| own.timeout).unwrap_or(policy.timeout),
        retry: own.and_then(|own| own.retry.as_ref()).unwrap_or(&policy.retry),
        repeats_unknown: repeats_unknown(policy, wish),
        redirects: policy.redirects,
        hedge: match own.and_then(|own| own.hedge) {
            Some(Hedging::Never) => None,
            Some(Hedging::By(hedge)) => Some(hedge),
            None => policy.hedge,
        },
        is_idempotent: own.and_then(|own| own.idempotent).or(policy.idempotent.then_some(true)),
        success: own.and_then(|own| own.success_statuses.as_ref()).unwrap_or(&policy.success_statuses),
        method: wish.map_or(if plan.is_webhook(upstream) { "POST" } else { "" }, |wish| wish.method),
        upstream,
        callbacks: wish.map_or_else(Default::default, |wish| callbacks(policy, wish)),
    }
}

fn callbacks(policy: &UpstreamPolicy, wish: &CallPlan) -> (Vec<usize>, Vec<usize>) {
    let places = |configured: Option<UpstreamId>| {
        let mut places: Vec<usize> =
            configured.map(|id| id.0).into_iter().chain(wish.callback).map(|place| place as usize).collect();
        places.sort_unstable();
        places
    };
    (places(policy.callbacks.on_success), places(policy.callbacks.on_fail))
}

fn callback_place(facts: &Facts, call: CallId) -> usize {
    match facts.origins.get(&call) {
        Some(&Origin::Callback { place, .. }) => place,
        Some(Origin::Planned { .. }) | None => 0,
    }
}

/// The place that an attempt was to go to.
pub(crate) fn place_of(plan: &Plan, facts: &Facts, attempt: AttemptId) -> usize {
    let decided = facts.decided.get(&attempt).map(|decided| decided.place);
    decided.unwrap_or_else(|| terms(plan, facts, attempt.call).upstream)
}

/// The place of the upstream whose limits hold for an attempt.
pub(crate) fn quota_of(plan: &Plan, facts: &Facts, attempt: AttemptId) -> usize {
    plan.quota(place_of(plan, facts, attempt))
}

/// Slots of every window that one of its attempts takes: never more than the smallest window has.
pub(crate) fn cost_of(plan: &Plan, facts: &Facts, policy: &UpstreamPolicy, call: CallId) -> u32 {
    let cost = wish(plan, facts, call).map_or(1, |wish| wish.cost.get());
    policy.limits.iter().map(|limit| limit.count.get()).min().map_or(cost, |smallest| cost.min(smallest))
}

fn wish<'a>(plan: &'a Plan, facts: &Facts, call: CallId) -> Option<&'a CallPlan> {
    match facts.origins.get(&call) {
        Some(&Origin::Planned { place, .. }) => Some(&plan.calls[place]),
        Some(Origin::Callback { .. }) | None => None,
    }
}

fn repeats_unknown(policy: &UpstreamPolicy, wish: Option<&CallPlan>) -> Option<bool> {
    let own = wish.and_then(|wish| wish.overrides.as_ref());
    let word = own.and_then(|own| own.on_unknown).map(|word| word == OnUnknown::Retry);
    let by_upstream = policy.on_unknown.map(|word| word == OnUnknown::Retry);
    word.or(own.and_then(|own| own.idempotent)).or(by_upstream).or(policy.idempotent.then_some(true))
}

impl CallTerms<'_> {
    /// Whether a try that has failed may be hedged.
    pub(crate) fn hedges_failures(&self) -> bool {
        self.hedge.is_some_and(|hedge| hedge.on_failure)
    }

    /// How requests of this method are hedged: safe ones, and those of which somebody says that they may be made twice,
    /// but none that ends when nobody knows what became of it.
    pub(crate) fn hedge(&self, method: &str) -> Option<HedgePolicy> {
        let is_safe = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method);
        self.hedge.filter(|_| self.is_idempotent.unwrap_or(is_safe) && self.repeats_unknown(method))
    }

    /// Whether a request of this method may be sent again when nobody knows what became of it.
    pub(crate) fn repeats_unknown(&self, method: &str) -> bool {
        let is_idempotent = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"].contains(&method);
        self.repeats_unknown.unwrap_or(is_idempotent)
    }
}
