//! Random policies of upstreams: every form the contract knows, at every size.
//!
//! Small numbers are likely, so that limits are met and retries run out.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::breaker::BreakerPolicy;
use farcall_core::call::UpstreamId;
use farcall_core::policy::{CallbackPolicy, LimitSpec, UpstreamPolicy};
use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy, StatusSet};
use farcall_core::share::Share;

use crate::dice::Dice;

/// Which parts of a policy a seed may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forms {
    pub(crate) windows_max: u32,
    pub(crate) smooth: bool,
    pub(crate) strict: bool,
    pub(crate) concurrency: bool,
    pub(crate) requeue: bool,
    pub(crate) callbacks: bool,
    pub(crate) webhooks: bool,
    pub(crate) redirects: bool,
}

impl Forms {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            windows_max: dice.count(0, 3),
            smooth: dice.percent(25),
            strict: dice.percent(40),
            concurrency: dice.percent(50),
            requeue: dice.percent(40),
            callbacks: dice.percent(50),
            webhooks: dice.percent(40),
            redirects: dice.percent(40),
        }
    }
}

/// An upstream's policy; `targets` are where callbacks may go.
pub(crate) fn draw(dice: &mut Dice, forms: Forms, targets: &[u32]) -> UpstreamPolicy {
    UpstreamPolicy {
        limits: limits(dice, forms),
        smooth: forms.smooth && dice.percent(50),
        strict: forms.strict && dice.percent(50),
        jitter: dice.spread(Duration::from_millis(1), Duration::from_secs(3)),
        concurrency: if forms.concurrency { NonZeroU32::new(dice.count(1, 20)) } else { None },
        timeout: dice.spread(Duration::from_millis(200), Duration::from_secs(90)),
        retry: retry(dice, forms.requeue),
        retry_ephemeral: RetryPolicy::none(),
        breaker: None,
        on_unknown: *dice.pick(&[None, None, Some(OnUnknown::Retry), Some(OnUnknown::Stop)]),
        idempotent: dice.percent(20),
        success_statuses: StatusSet::new(dice.pick(&[vec![(200, 299)], vec![(200, 200), (404, 404)]]).clone()),
        callbacks: CallbackPolicy {
            on_success: callback(dice, forms, targets),
            on_fail: callback(dice, forms, targets),
        },
        redirects: if forms.redirects { dice.count(0, 4) } else { 0 },
        hedge: None,
    }
}

fn callback(dice: &mut Dice, forms: Forms, targets: &[u32]) -> Option<UpstreamId> {
    (forms.callbacks && dice.percent(60)).then(|| UpstreamId(*dice.pick(targets)))
}

/// A breaker that opens soon.
pub(crate) fn breaker(dice: &mut Dice) -> BreakerPolicy {
    let percent = *dice.pick(&[1.0, 25.0, 50.0, 90.0, 100.0]);
    BreakerPolicy {
        failures: Share::from_percent(percent).expect("a share"),
        calls: NonZeroU32::new(dice.count(1, 6)).expect("counted from one"),
        window: dice.spread(Duration::from_millis(100), Duration::from_secs(1_000)),
        open: dice.spread(Duration::from_millis(100), Duration::from_secs(300)),
    }
}

/// Windows, as a new configuration may have them.
pub(crate) fn limits(dice: &mut Dice, forms: Forms) -> Vec<LimitSpec> {
    (0..dice.count(0, forms.windows_max)).map(|_| window(dice)).collect()
}

/// The same windows with other counts: lowered or raised.
pub(crate) fn recount(dice: &mut Dice, limits: &mut [LimitSpec]) {
    for limit in limits {
        let count = match dice.count(0, 2) {
            0 => limit.count.get().div_ceil(2),
            1 => limit.count.get() * 2,
            _ => dice.count(1, 50),
        };
        limit.count = NonZeroU32::new(count).expect("half of one, rounded up, is one");
    }
}

/// How callbacks are tried.
pub(crate) fn callbacks() -> UpstreamPolicy {
    UpstreamPolicy {
        concurrency: NonZeroU32::new(4),
        timeout: Duration::from_secs(60),
        retry: RetryPolicy { max: 4, ..RetryPolicy::durable() },
        on_unknown: Some(OnUnknown::Retry),
        ..UpstreamPolicy::default()
    }
}

/// How a call is repeated.
pub(crate) fn retry(dice: &mut Dice, may_requeue: bool) -> RetryPolicy {
    let base = dice.spread(Duration::from_millis(10), Duration::from_secs(60));
    let methods = MethodSet::Only(vec!["GET".to_owned(), "PUT".to_owned()]);
    RetryPolicy {
        max: dice.count(0, 5),
        backoff: *dice.pick(&[
            Backoff::Constant(base),
            Backoff::Geometric { base, factor: 2.0 },
            Backoff::Geometric { base, factor: 1.3 },
            Backoff::Factor(2.0),
            Backoff::Factor(0.3),
        ]),
        max_delay: dice.spread(Duration::from_secs(1), Duration::from_secs(3_600)),
        jitter: *dice.pick(&[Jitter::Full, Jitter::None]),
        statuses: dice.pick(&[StatusSet::retryable(), StatusSet::new(vec![(400, 599)])]).clone(),
        methods: if dice.percent(20) { methods } else { MethodSet::All },
        requeue: if may_requeue { dice.count(0, 2) } else { 0 },
        throttle_max: dice.count(0, 4),
        retry_after_max: dice.spread(Duration::from_secs(1), Duration::from_secs(86_400)),
    }
}

fn window(dice: &mut Dice) -> LimitSpec {
    let longest = if dice.percent(50) { Duration::from_secs(2) } else { Duration::from_secs(7_200) };
    LimitSpec {
        count: NonZeroU32::new(dice.count(1, 50)).expect("counted from one"),
        window: dice.spread(Duration::from_millis(100), longest),
    }
}
