//! The resolved policy of one upstream: what the dispatcher needs to know of its configuration.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::retry::{OnUnknown, RetryPolicy, StatusSet};

/// At most `count` arrivals in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSpec {
    pub count: NonZeroU32,
    pub window: Duration,
}

/// Which ends of a call start a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallbackPolicy {
    pub on_success: bool,
    pub on_fail: bool,
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
    /// Bounds all attempts together; unset, durable ones have [`UpstreamPolicy::DURABLE_CONCURRENCY`].
    pub concurrency: Option<NonZeroU32>,
    /// The longest one attempt may take.
    pub timeout: Duration,
    pub retry: RetryPolicy,
    pub on_unknown: Option<OnUnknown>,
    pub idempotent: bool,
    pub success_statuses: StatusSet,
    pub callbacks: CallbackPolicy,
}

impl UpstreamPolicy {
    /// Durable attempts at once when `concurrency` is not set.
    pub const DURABLE_CONCURRENCY: u32 = 16;
    /// The largest N of a limit so far.
    pub const LIMIT_COUNT_MAX: u32 = 10_000;
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
            on_unknown: None,
            idempotent: false,
            success_statuses: StatusSet::success(),
            callbacks: CallbackPolicy::default(),
        }
    }
}
