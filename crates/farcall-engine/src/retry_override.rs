//! Partial settings of retries, laid over others: a call's over its upstream's, an upstream's over the defaults.
//!
//! How they are written is the matter of `config` and `document`; how retries are made is the core's.

use std::time::Duration;

use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy, StatusSet};

/// What a `retry` mapping says; what it leaves out is that of the policy it lies over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryOverride {
    pub max: Option<u32>,
    pub delay: Option<DelayOverride>,
    pub max_delay: Option<Duration>,
    pub jitter: Option<Jitter>,
    pub statuses: Option<StatusSet>,
    pub methods: Option<MethodSet>,
    pub requeue: Option<u32>,
    pub throttle_max: Option<u32>,
    pub retry_after_max: Option<Duration>,
    pub on_unknown: Option<OnUnknown>,
}

/// The form of delay that is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DelayOverride {
    /// `wait`.
    Constant(Duration),
    /// `backoff_factor`.
    Factor(f64),
    /// `base`, `factor`, or both.
    Geometric { base: Option<Duration>, factor: Option<f64> },
}

impl RetryOverride {
    /// The policy with these settings over that one.
    ///
    /// A delay of another form than the policy's brings its own jitter: none for `wait` and `backoff_factor`, full
    /// for `base` and `factor`.
    ///
    /// # Example
    /// ```
    /// # use farcall_core::retry::RetryPolicy;
    /// # use farcall_engine::document::RetryOverride;
    /// let own = RetryOverride { max: Some(2), ..RetryOverride::default() };
    /// assert_eq!(own.over(&RetryPolicy::durable()), RetryPolicy { max: 2, ..RetryPolicy::durable() });
    /// ```
    pub fn over(&self, policy: &RetryPolicy) -> RetryPolicy {
        let (backoff, jitter) = match self.delay {
            Some(delay) => delay.over(policy),
            None => (policy.backoff, policy.jitter),
        };
        RetryPolicy {
            max: self.max.unwrap_or(policy.max),
            backoff,
            max_delay: self.max_delay.unwrap_or(policy.max_delay),
            jitter: self.jitter.unwrap_or(jitter),
            statuses: self.statuses.clone().unwrap_or_else(|| policy.statuses.clone()),
            methods: self.methods.clone().unwrap_or_else(|| policy.methods.clone()),
            requeue: self.requeue.unwrap_or(policy.requeue),
            throttle_max: self.throttle_max.unwrap_or(policy.throttle_max),
            retry_after_max: self.retry_after_max.unwrap_or(policy.retry_after_max),
        }
    }

    /// These settings, and the lower ones' where there are none. Of two delays of one form the parts are merged.
    pub(crate) fn or(self, below: &Self) -> Self {
        Self {
            max: self.max.or(below.max),
            delay: self.delay.map(|delay| delay.or(below.delay)).or(below.delay),
            max_delay: self.max_delay.or(below.max_delay),
            jitter: self.jitter.or(below.jitter),
            statuses: self.statuses.or_else(|| below.statuses.clone()),
            methods: self.methods.or_else(|| below.methods.clone()),
            requeue: self.requeue.or(below.requeue),
            throttle_max: self.throttle_max.or(below.throttle_max),
            retry_after_max: self.retry_after_max.or(below.retry_after_max),
            on_unknown: self.on_unknown.or(below.on_unknown),
        }
    }
}

impl DelayOverride {
    fn over(self, policy: &RetryPolicy) -> (Backoff, Jitter) {
        match self {
            Self::Constant(wait) => (Backoff::Constant(wait), Jitter::None),
            Self::Factor(factor) => (Backoff::Factor(factor), Jitter::None),
            Self::Geometric { base, factor } => {
                let default = (Duration::from_secs(1), 2.0, Jitter::Full);
                let (own_base, own_factor, jitter) = match policy.backoff {
                    Backoff::Geometric { base, factor } => (base, factor, policy.jitter),
                    Backoff::Constant(_) | Backoff::Factor(_) => default,
                };
                let (base, factor) = (base.unwrap_or(own_base), factor.unwrap_or(own_factor));
                (Backoff::Geometric { base, factor }, jitter)
            }
        }
    }

    fn or(self, below: Option<Self>) -> Self {
        match (self, below) {
            (Self::Geometric { base, factor }, Some(Self::Geometric { base: lower_base, factor: lower_factor })) => {
                Self::Geometric { base: base.or(lower_base), factor: factor.or(lower_factor) }
            }
            (Self::Constant(_) | Self::Factor(_) | Self::Geometric { .. }, _) => self,
        }
    }
}
