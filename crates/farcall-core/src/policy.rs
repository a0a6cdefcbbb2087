//! The resolved policy of one upstream: what the dispatcher needs to know of its configuration.
//!
//! Names, URLs, headers and secrets stay with the engine.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::breaker::BreakerPolicy;
use crate::call::{Durability, Method, Overrides, UpstreamId};
use crate::hedge::{HedgePolicy, Hedging};
use crate::retry::{OnUnknown, RetryPolicy, StatusSet};

/// At most `count` arrivals in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSpec {
    pub count: NonZeroU32,
    pub window: Duration,
}

/// Which ends of a call start a callback, and where that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallbackPolicy {
    pub on_success: Option<UpstreamId>,
    pub on_fail: Option<UpstreamId>,
}

/// How calls to one upstream are limited, timed out and repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamPolicy {
    /// All of them hold at once.
    pub limits: Vec<LimitSpec>,
    /// Space the grants of the tightest limit evenly.
    pub smooth: bool,
    /// Slots cool from proof of arrival only, in every window.
    pub strict: bool,
    /// How much the network's delay may vary.
    pub jitter: Duration,
    /// Bounds all attempts together; unset, durable ones have [`UpstreamPolicy::DURABLE_CONCURRENCY`], and ephemeral ones
    /// beside them [`UpstreamPolicy::EPHEMERAL_CONCURRENCY`].
    pub concurrency: Option<NonZeroU32>,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// Of durable calls.
    pub retry: RetryPolicy,
    /// Of calls that somebody waits for.
    pub retry_ephemeral: RetryPolicy,
    /// Leaves the upstream alone while it fails; it holds for all that share its quota.
    pub breaker: Option<BreakerPolicy>,
    pub on_unknown: Option<OnUnknown>,
    pub idempotent: bool,
    pub success_statuses: StatusSet,
    pub callbacks: CallbackPolicy,
    /// Redirects that one try may follow.
    pub redirects: u32,
    pub hedge: Option<HedgePolicy>,
}

impl UpstreamPolicy {
    /// Durable attempts at once when `concurrency` is not set.
    pub const DURABLE_CONCURRENCY: u32 = 16;
    /// The same of ephemeral attempts.
    pub const EPHEMERAL_CONCURRENCY: u32 = 1_024;

    /// Attempts of this durability at once when `concurrency` is not set.
    pub const fn concurrency_of(durability: Durability) -> u32 {
        match durability {
            Durability::Durable => Self::DURABLE_CONCURRENCY,
            Durability::Ephemeral => Self::EPHEMERAL_CONCURRENCY,
        }
    }
}

impl Default for UpstreamPolicy {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            smooth: false,
            strict: false,
            jitter: Duration::from_millis(100),
            concurrency: None,
            timeout: Duration::from_secs(30),
            retry: RetryPolicy::durable(),
            retry_ephemeral: RetryPolicy::none(),
            breaker: None,
            on_unknown: None,
            idempotent: false,
            success_statuses: StatusSet::success(),
            callbacks: CallbackPolicy::default(),
            redirects: 0,
            hedge: None,
        }
    }
}

/// The terms that hold for one call: its own settings, else its upstream's.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    policy: &'a UpstreamPolicy,
    overrides: Option<&'a Overrides>,
    method: Method,
    durability: Durability,
    /// Redirects that may be followed still.
    redirects: u32,
}

impl<'a> Terms<'a> {
    /// The terms of a durable call.
    pub const fn new(policy: &'a UpstreamPolicy, overrides: Option<&'a Overrides>, method: Method) -> Self {
        Self { policy, overrides, method, durability: Durability::Durable, redirects: policy.redirects }
    }

    /// The same for a call of this durability. Of one that somebody waits for redirects are not followed: they are its
    /// answer.
    #[must_use]
    pub const fn of(self, durability: Durability) -> Self {
        match durability {
            Durability::Durable => Self { durability, ..self },
            Durability::Ephemeral => Self { durability, redirects: 0, ..self },
        }
    }

    /// The same after so many redirects were followed.
    #[must_use]
    pub const fn after_redirects(self, count: u32) -> Self {
        Self { redirects: self.redirects.saturating_sub(count), ..self }
    }

    /// The same for a call that goes on nowhere.
    #[must_use]
    pub const fn without_redirects(self) -> Self {
        Self { redirects: 0, ..self }
    }

    /// Whether a redirect may be followed.
    pub const fn may_follow(&self) -> bool {
        self.redirects > 0
    }

    pub const fn method(&self) -> Method {
        self.method
    }

    /// The longest one attempt may take.
    pub fn timeout(&self) -> Duration {
        self.overrides.and_then(|own| own.timeout).unwrap_or(self.policy.timeout)
    }

    pub fn retry(&self) -> &'a RetryPolicy {
        let by_policy = match self.durability {
            Durability::Durable => &self.policy.retry,
            Durability::Ephemeral => &self.policy.retry_ephemeral,
        };
        self.overrides.and_then(|own| own.retry.as_ref()).unwrap_or(by_policy)
    }

    pub fn success_statuses(&self) -> &'a StatusSet {
        self.overrides.and_then(|own| own.success_statuses.as_ref()).unwrap_or(&self.policy.success_statuses)
    }

    /// How its attempts are hedged, when they may be. A hedge is a second request while the first may be at work: that may be for a
    /// safe method, and where somebody said that the other side recognises repeated requests. Never where an attempt
    /// without an answer is not to be repeated.
    pub fn hedge(&self) -> Option<HedgePolicy> {
        let policy = match self.overrides.and_then(|own| own.hedge) {
            Some(Hedging::Never) => None,
            Some(Hedging::By(policy)) => Some(policy),
            None => self.policy.hedge,
        };
        let is_declared = self.overrides.and_then(|own| own.idempotent);
        let may_repeat = is_declared.unwrap_or(self.policy.idempotent || self.method.is_safe());
        policy.filter(|_| may_repeat && self.on_unknown() == OnUnknown::Retry)
    }

    /// What an unanswered attempt means: the call's word, then the upstream's, then by the method.
    pub fn on_unknown(&self) -> OnUnknown {
        let by_idempotence = |idempotent| if idempotent { OnUnknown::Retry } else { OnUnknown::Stop };
        self.overrides
            .and_then(|own| own.on_unknown.or(own.idempotent.map(by_idempotence)))
            .or(self.policy.on_unknown)
            .unwrap_or_else(|| by_idempotence(self.policy.idempotent || self.method.is_idempotent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hedge::HedgeDelay;

    #[test]
    fn only_what_may_be_repeated_at_any_time_is_hedged() {
        let after = HedgeDelay::Fixed(Duration::from_millis(300));
        let hedge = HedgePolicy { after, extra: 2, budget: None, on_failure: false };
        let plain = UpstreamPolicy { hedge: Some(hedge), ..UpstreamPolicy::default() };
        let declared = UpstreamPolicy { idempotent: true, ..plain.clone() };
        let stops = UpstreamPolicy { on_unknown: Some(OnUnknown::Stop), ..declared.clone() };
        let is_hedged = |policy: &UpstreamPolicy, own: Option<&Overrides>, method| {
            Terms::new(policy, own, method).hedge() == Some(hedge)
        };
        for method in [Method::Get, Method::Head, Method::Options, Method::Trace] {
            assert!(is_hedged(&plain, None, method), "{method:?}");
        }
        for method in [Method::Post, Method::Patch, Method::Put, Method::Delete, Method::Other] {
            assert!(!is_hedged(&plain, None, method), "{method:?}");
            assert!(is_hedged(&declared, None, method), "{method:?}");
        }
        assert!(!is_hedged(&stops, None, Method::Get));
        let own = |idempotent| Overrides { idempotent: Some(idempotent), ..Overrides::default() };
        assert!(is_hedged(&plain, Some(&own(true)), Method::Post));
        assert!(!is_hedged(&declared, Some(&own(false)), Method::Get), "the call's own word comes first");
    }

    #[test]
    fn a_calls_own_hedging_replaces_its_upstreams() {
        let policy = |extra| HedgePolicy {
            after: HedgeDelay::Fixed(Duration::from_secs(1)),
            extra,
            budget: None,
            on_failure: false,
        };
        let upstream = UpstreamPolicy { hedge: Some(policy(1)), ..UpstreamPolicy::default() };
        let own = |hedge| Overrides { hedge: Some(hedge), ..Overrides::default() };
        let of = |upstream: &UpstreamPolicy, own: &Overrides| Terms::new(upstream, Some(own), Method::Get).hedge();
        assert_eq!(of(&upstream, &own(Hedging::By(policy(2)))), Some(policy(2)));
        assert_eq!(of(&UpstreamPolicy::default(), &own(Hedging::By(policy(2)))), Some(policy(2)));
        assert_eq!(of(&upstream, &own(Hedging::Never)), None);
    }

    #[test]
    fn the_calls_own_word_on_unknown_comes_first() {
        let stop = UpstreamPolicy { on_unknown: Some(OnUnknown::Stop), idempotent: true, ..UpstreamPolicy::default() };
        let plain = UpstreamPolicy::default();
        let own = Overrides { idempotent: Some(true), ..Overrides::default() };
        assert_eq!(Terms::new(&plain, None, Method::Get).on_unknown(), OnUnknown::Retry);
        assert_eq!(Terms::new(&plain, None, Method::Post).on_unknown(), OnUnknown::Stop);
        assert_eq!(Terms::new(&stop, None, Method::Get).on_unknown(), OnUnknown::Stop);
        assert_eq!(Terms::new(&stop, Some(&own), Method::Post).on_unknown(), OnUnknown::Retry);
    }
}
