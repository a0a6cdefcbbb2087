//! An upstream as the API shows it: how it stands, the live use of its limits, and its policy.
//!
//! Lengths of time are `*_ms`. Headers and the proxy show references to secrets as the configuration has them, and nothing else
//! of their values. Every key is always there; what is not known or not set is null.

use std::collections::BTreeMap;
use std::time::Duration;

use farcall_core::breaker::BreakerState;
use farcall_core::hedge::{HedgeDelay, HedgePolicy};
use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy, StatusSet};
use farcall_engine::config::{Addresses, CallbackAction, Upstream as Settings};
use farcall_engine::outcome::rfc3339;
use farcall_engine::quantity::share;
use farcall_engine::schema::{Time, Word};
use farcall_engine::secret::Template;
use farcall_engine::{LimitView, UpstreamView};
use schemars::JsonSchema;
use serde::Serialize;

/// What stands for a value that may be a secret.
const MASKED: &str = "***";

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Upstreams<'a> {
    data: Vec<Upstream<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Upstream<'a> {
    /// As the configuration has it, or its origin.
    name: &'a str,
    declared: bool,
    base_url: Option<&'a str>,
    /// `missing`, `paused`, `closed` (it asked everybody to keep away), `failing` (its breaker is not closed) or `open`.
    state: &'static str,
    paused: bool,
    #[schemars(with = "Option<Time>")]
    closed_until: Option<String>,
    /// What it said remains of its own quota, as long as that holds.
    quota: Option<Quota>,
    /// Null without one.
    breaker: Option<Breaker>,
    /// Calls that wait for it.
    waiting: u64,
    /// Attempts of its calls that are out.
    in_flight: u32,
    /// What holds the first of them.
    #[schemars(with = "Option<Word<farcall_core::call::WaitReason>>")]
    wait_reason: Option<&'static str>,
    #[schemars(with = "Option<Time>")]
    next_at: Option<String>,
    concurrency: Concurrency,
    limits: Vec<Limit>,
    /// The interval and the next time of `smooth`.
    spacing: Option<Spacing>,
    /// Keys that were patched.
    patched: &'a [String],
    policy: Policy<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Quota {
    /// So many more attempts may start; what is out and may not be counted yet is taken off.
    pub(crate) remaining: u64,
    #[schemars(with = "Time")]
    pub(crate) resets_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Concurrency {
    capacity: u32,
    used: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Limit {
    /// As the configuration writes it.
    pub(crate) limit: String,
    window_ms: u64,
    capacity: u32,
    /// Slots in use; after a limit was lowered that may be more than there are.
    used: u32,
    #[schemars(with = "Option<Time>")]
    next_free_at: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Spacing {
    interval_ms: u64,
    #[schemars(with = "Time")]
    next_at: String,
}

/// How a breaker stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Breaker {
    #[schemars(with = "Word<BreakerState>")]
    state: &'static str,
    /// While it is open: when a probe may go.
    #[schemars(with = "Option<Time>")]
    until: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Policy<'a> {
    limits: Vec<String>,
    concurrency: Option<u32>,
    smooth: bool,
    strict: bool,
    jitter_ms: u64,
    retry: Retry<'a>,
    breaker: Option<BreakerPolicy>,
    on_unknown: Option<&'static str>,
    idempotent: bool,
    timeout_ms: u64,
    connect_timeout_ms: u64,
    deadline_ms: Option<u64>,
    success: Success<'a>,
    headers: BTreeMap<&'a str, &'a str>,
    proxy: Option<&'a str>,
    tls: Tls,
    redirects: u32,
    hedge: Option<Hedge>,
    addresses: Option<&'static str>,
    /// Requests that are passed on tell it who asked.
    forwarded: bool,
    max_response: u64,
    max_headers: MaxHeaders,
    idempotency_header: &'a str,
    callback_success: Option<Callback<'a>>,
    callback_fail: Option<Callback<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Retry<'a> {
    max: u32,
    #[serde(flatten)]
    delay: Delay,
    max_delay_ms: u64,
    jitter: &'static str,
    statuses: Vec<String>,
    methods: Option<&'a [String]>,
    requeue: u32,
    throttle_max: u32,
    retry_after_max_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BreakerPolicy {
    /// As the configuration writes it.
    failures: String,
    calls: u32,
    window_ms: u64,
    open_ms: u64,
}

/// One of the three forms.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Delay {
    Constant { wait_ms: u64 },
    Geometric { base_ms: u64, factor: f64 },
    Factor { backoff_factor: f64 },
}

#[derive(Debug, Serialize, JsonSchema)]
struct Success<'a> {
    statuses: Vec<String>,
    content_type: Option<&'a str>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Hedge {
    /// Nothing when it is learned.
    after_ms: Option<u64>,
    /// What it is learned as, for example `p95`.
    after_percentile: Option<String>,
    extra: u32,
    /// For example `10%`; nothing for no bound.
    budget: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Tls {
    ca: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MaxHeaders {
    bytes: u32,
    fields: u16,
}

/// Whom a callback goes to, but for what may be secret of that.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Callback<'a> {
    Command {
        command: &'a str,
    },
    /// Of the URL only where it leads: paths may be secrets, too.
    Url {
        origin: String,
        signed: bool,
    },
}

impl<'a> Upstreams<'a> {
    pub(crate) fn of(views: &'a [UpstreamView]) -> Self {
        Self { data: views.iter().map(Upstream::of).collect() }
    }
}

impl<'a> Upstream<'a> {
    pub(crate) fn of(view: &'a UpstreamView) -> Self {
        Self {
            name: &view.name,
            declared: view.is_declared,
            base_url: view.settings.base_url.as_ref().filter(|_| view.is_declared).map(|url| url.as_str()),
            state: state(view),
            paused: view.is_paused,
            closed_until: view.closed_until.map(rfc3339),
            quota: Quota::of(view),
            breaker: Breaker::of(view),
            waiting: view.waiting,
            in_flight: view.in_flight,
            wait_reason: view.wait_reason.map(farcall_core::call::WaitReason::as_str),
            next_at: view.next_at.map(rfc3339),
            concurrency: Concurrency::new(view.in_flight, view.concurrency),
            limits: view.limits.iter().map(Limit::of).collect(),
            spacing: Spacing::of(view),
            patched: &view.patched,
            policy: Policy::of(&view.settings),
        }
    }
}

fn state(view: &UpstreamView) -> &'static str {
    match view {
        UpstreamView { is_missing: true, .. } => "missing",
        UpstreamView { is_paused: true, .. } => "paused",
        UpstreamView { closed_until: Some(_), .. } => "closed",
        UpstreamView { breaker: Some((BreakerState::Open | BreakerState::HalfOpen, _)), .. } => "failing",
        UpstreamView { .. } => "open",
    }
}

impl Quota {
    pub(crate) fn of(view: &UpstreamView) -> Option<Self> {
        view.told.map(|(remaining, until)| Self { remaining, resets_at: rfc3339(until) })
    }
}

impl Concurrency {
    pub(crate) const fn new(used: u32, capacity: u32) -> Self {
        Self { capacity, used }
    }
}

impl Limit {
    pub(crate) fn of(limit: &LimitView) -> Self {
        let spec = limit.spec;
        Self {
            limit: written_limit(spec.count.get(), spec.window),
            window_ms: ms(spec.window),
            capacity: spec.count.get(),
            used: limit.used,
            next_free_at: limit.next_free_at.map(rfc3339),
        }
    }
}

impl Spacing {
    pub(crate) fn of(view: &UpstreamView) -> Option<Self> {
        view.spacing.map(|(interval, next)| Self { interval_ms: ms(interval), next_at: rfc3339(next) })
    }
}

impl Breaker {
    pub(crate) fn of(view: &UpstreamView) -> Option<Self> {
        view.breaker.map(|(state, until)| Self { state: state.as_str(), until: until.map(rfc3339) })
    }
}

impl<'a> Policy<'a> {
    fn of(settings: &'a Settings) -> Self {
        let policy = &settings.policy;
        Self {
            limits: policy.limits.iter().map(|limit| written_limit(limit.count.get(), limit.window)).collect(),
            concurrency: policy.concurrency.map(u32::from),
            smooth: policy.smooth,
            strict: policy.strict,
            jitter_ms: ms(policy.jitter),
            retry: Retry::of(&policy.retry),
            breaker: policy.breaker.map(|breaker| BreakerPolicy {
                failures: share::to_text(breaker.failures),
                calls: breaker.calls.get(),
                window_ms: ms(breaker.window),
                open_ms: ms(breaker.open),
            }),
            on_unknown: policy.on_unknown.map(|choice| match choice {
                OnUnknown::Retry => "retry",
                OnUnknown::Stop => "stop",
            }),
            idempotent: policy.idempotent,
            timeout_ms: ms(policy.timeout),
            connect_timeout_ms: ms(settings.connect_timeout),
            deadline_ms: settings.deadline.map(ms),
            success: Success {
                statuses: statuses(&settings.success.statuses),
                content_type: settings.success.content_type.as_deref(),
            },
            headers: settings.headers.iter().map(|(name, value)| (name.as_str(), shown(value))).collect(),
            proxy: settings.proxy.as_ref().map(shown),
            tls: Tls { ca: settings.tls_ca.as_ref().map(|path| path.display().to_string()) },
            redirects: policy.redirects,
            forwarded: settings.forwarded,
            hedge: policy.hedge.map(Hedge::of),
            addresses: settings.addresses.map(|addresses| match addresses {
                Addresses::Any => "any",
                Addresses::Public => "public",
            }),
            max_response: settings.max_response,
            max_headers: MaxHeaders { bytes: settings.max_headers.bytes, fields: settings.max_headers.fields },
            idempotency_header: &settings.idempotency_header,
            callback_success: settings.callback_success.as_ref().map(Callback::of),
            callback_fail: settings.callback_fail.as_ref().map(Callback::of),
        }
    }
}

impl<'a> Retry<'a> {
    fn of(retry: &'a RetryPolicy) -> Self {
        Self {
            max: retry.max,
            delay: match retry.backoff {
                Backoff::Constant(wait) => Delay::Constant { wait_ms: ms(wait) },
                Backoff::Geometric { base, factor } => Delay::Geometric { base_ms: ms(base), factor },
                Backoff::Factor(backoff_factor) => Delay::Factor { backoff_factor },
            },
            max_delay_ms: ms(retry.max_delay),
            jitter: match retry.jitter {
                Jitter::Full => "full",
                Jitter::None => "none",
            },
            statuses: statuses(&retry.statuses),
            methods: match &retry.methods {
                MethodSet::All => None,
                MethodSet::Only(names) => Some(names),
            },
            requeue: retry.requeue,
            throttle_max: retry.throttle_max,
            retry_after_max_ms: ms(retry.retry_after_max),
        }
    }
}

impl Hedge {
    fn of(policy: HedgePolicy) -> Self {
        let (after_ms, after_percentile) = match policy.after {
            HedgeDelay::Fixed(after) => (Some(ms(after)), None),
            HedgeDelay::Learned(percentile) => (None, Some(share::percentile_to_text(percentile))),
        };
        Self { after_ms, after_percentile, extra: policy.extra, budget: policy.budget.map(share::to_text) }
    }
}

impl<'a> Callback<'a> {
    fn of(action: &'a CallbackAction) -> Self {
        match action {
            // Its arguments may be anything.
            CallbackAction::Command(line) => Self::Command { command: line.words.first().map_or("", String::as_str) },
            CallbackAction::Webhook(webhook) => {
                let origin = webhook.url.origin().ascii_serialization();
                Self::Url { origin, signed: !webhook.secrets.is_empty() }
            }
        }
    }
}

/// As the configuration writes it: `10/1s`.
fn written_limit(count: u32, window: Duration) -> String {
    let ms = window.as_millis();
    match ms {
        _ if window.subsec_millis() != 0 => format!("{count}/{ms}ms"),
        ms if ms % 86_400_000 == 0 => format!("{count}/{}d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{count}/{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{count}/{}m", ms / 60_000),
        ms => format!("{count}/{}s", ms / 1_000),
    }
}

fn statuses(set: &StatusSet) -> Vec<String> {
    let one = |&(low, high): &(u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
    set.ranges().iter().map(one).collect()
}

/// References to secrets as they are written; a value without any is masked whole.
fn shown(value: &Template) -> &str {
    if value.has_references() { value.as_written() } else { MASKED }
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
