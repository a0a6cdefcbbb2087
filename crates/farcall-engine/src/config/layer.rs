//! What one mapping says about an upstream, before it lies over the defaults.
//!
//! `defaults` and every upstream are read into a [`Layer`]. The upper layer's keys win, key by key; only `retry` is
//! merged inside. What no layer says has the default of the contract.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use farcall_core::breaker::BreakerPolicy;
use farcall_core::policy::{CallbackPolicy, LimitSpec, UpstreamPolicy};
use farcall_core::retry::{OnUnknown, RetryPolicy};
use url::Url;

use super::diagnostic::Span;
use super::hedge::{self, HedgeLayer};
use super::limits;
use super::model::{Addresses, CallbackAction, HeaderCaps, Success, Upstream};
use super::proxy::ProxyLayer;
use super::reader::Reader;
use super::retry::RetryLayer;
use crate::secret::Template;

/// The windows of `rate_second`, `rate_minute`, `rate_hour` and `rate_day`.
const RATE_WINDOWS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3_600), Duration::from_secs(86_400)];

/// The upstream keys of one mapping; nothing where a key is not given.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub base_url: Option<(Url, Span)>,
    /// By the windows above.
    pub rates: [Option<NonZeroU32>; 4],
    pub limits: Option<Vec<LimitSpec>>,
    pub retry: RetryLayer,
    /// `Some(None)` is `breaker: off`.
    pub breaker: Option<Option<BreakerPolicy>>,
    pub timeout: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    /// `Some(None)` is `deadline: none`.
    pub deadline: Option<Option<Duration>>,
    pub concurrency: Option<NonZeroU32>,
    pub jitter: Option<Duration>,
    pub smooth: Option<bool>,
    pub strict: Option<bool>,
    pub success: Option<Success>,
    pub headers: Option<Vec<(String, Template)>>,
    pub tls_ca: Option<PathBuf>,
    /// `Some(None)` is `proxy: none`.
    pub proxy: Option<ProxyLayer>,
    pub max_response: Option<u64>,
    pub max_headers: Option<HeaderCaps>,
    pub redirects: Option<u32>,
    pub addresses: Option<Addresses>,
    pub forwarded: Option<bool>,
    pub idempotent: Option<bool>,
    pub idempotency_header: Option<String>,
    pub callback_success: Option<CallbackAction>,
    pub callback_fail: Option<CallbackAction>,
    /// `Some(None)` is `hedge: none`.
    pub hedge: Option<HedgeLayer>,
    /// How the keys that can be patched are written, in a form of its own.
    pub written: BTreeMap<&'static str, String>,
}

/// Whose defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Dialect {
    #[default]
    Farcall,
    /// No retries unless `retry` is given.
    Ephemeral,
    /// No retries unless `retry` is given, and then unknown attempts are repeated.
    Kofaf,
}

impl Layer {
    /// Reports what contradicts itself in one mapping. Called once that is read.
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        self.retry.check(reader);
        hedge::check(reader, self.hedge.flatten(), self.timeout);
    }

    /// This layer's keys, and the lower one's where it has none.
    pub(super) fn over(self, below: &Self) -> Self {
        let [second, minute, hour, day] = self.rates;
        let [second_below, minute_below, hour_below, day_below] = below.rates;
        Self {
            base_url: self.base_url,
            rates: [second.or(second_below), minute.or(minute_below), hour.or(hour_below), day.or(day_below)],
            limits: self.limits.or_else(|| below.limits.clone()),
            retry: self.retry.over(&below.retry),
            breaker: self.breaker.or(below.breaker),
            timeout: self.timeout.or(below.timeout),
            connect_timeout: self.connect_timeout.or(below.connect_timeout),
            deadline: self.deadline.or(below.deadline),
            concurrency: self.concurrency.or(below.concurrency),
            jitter: self.jitter.or(below.jitter),
            smooth: self.smooth.or(below.smooth),
            strict: self.strict.or(below.strict),
            success: self.success.or_else(|| below.success.clone()),
            headers: self.headers.or_else(|| below.headers.clone()),
            tls_ca: self.tls_ca.or_else(|| below.tls_ca.clone()),
            proxy: self.proxy.or_else(|| below.proxy.clone()),
            max_response: self.max_response.or(below.max_response),
            max_headers: self.max_headers.or(below.max_headers),
            redirects: self.redirects.or(below.redirects),
            addresses: self.addresses.or(below.addresses),
            forwarded: self.forwarded.or(below.forwarded),
            idempotent: self.idempotent.or(below.idempotent),
            idempotency_header: self.idempotency_header.or_else(|| below.idempotency_header.clone()),
            callback_success: self.callback_success.or_else(|| below.callback_success.clone()),
            callback_fail: self.callback_fail.or_else(|| below.callback_fail.clone()),
            hedge: self.hedge.or(below.hedge),
            written: written_over(self.written, &below.written),
        }
    }

    /// For undeclared upstreams: headers that hold secrets stay with the declared ones, whose user chose the other side.
    pub(super) fn without_secrets(mut self) -> Self {
        if let Some(headers) = &mut self.headers {
            headers.retain(|(_, value)| !value.has_references());
        }
        self
    }

    /// The upstream, with the contract's default for what was not given.
    pub(super) fn resolve(self, dialect: Dialect) -> Upstream {
        let default = Upstream::default();
        Upstream {
            policy: self.policy(dialect),
            base_url: self.base_url.map(|(url, _)| url),
            deadline: self.deadline.flatten(),
            connect_timeout: self.connect_timeout.unwrap_or(default.connect_timeout),
            headers: self.headers.unwrap_or_default(),
            success: self.success.unwrap_or_default(),
            tls_ca: self.tls_ca,
            proxy: self.proxy.flatten().map(|(template, _)| template),
            max_response: self.max_response.unwrap_or(default.max_response),
            max_headers: self.max_headers.unwrap_or_default(),
            addresses: self.addresses,
            forwarded: self.forwarded.unwrap_or(default.forwarded),
            idempotency_header: self.idempotency_header.unwrap_or(default.idempotency_header),
            callback_success: self.callback_success,
            callback_fail: self.callback_fail,
        }
    }

    fn policy(&self, dialect: Dialect) -> UpstreamPolicy {
        let default = UpstreamPolicy::default();
        let retry_ephemeral = self.retry.resolve(&RetryPolicy::none());
        let retry = self.retry.resolve(&match dialect {
            Dialect::Farcall => RetryPolicy::durable(),
            Dialect::Ephemeral | Dialect::Kofaf => RetryPolicy::none(),
        });
        UpstreamPolicy {
            limits: self.all_limits(),
            smooth: self.smooth.unwrap_or(default.smooth),
            // Whatever left for a proxy may wait there: only the answer proves that it has arrived.
            strict: self.strict.unwrap_or(default.strict) || matches!(self.proxy, Some(Some(_))),
            jitter: self.jitter.unwrap_or(default.jitter),
            concurrency: self.concurrency,
            timeout: self.timeout.unwrap_or(default.timeout),
            on_unknown: self.on_unknown(dialect, &retry),
            retry,
            retry_ephemeral,
            breaker: self.breaker.flatten(),
            idempotent: self.idempotent.unwrap_or(default.idempotent),
            success_statuses: self.success.clone().unwrap_or_default().statuses,
            // Where they go is known once every upstream is.
            callbacks: CallbackPolicy::default(),
            redirects: self.redirects.unwrap_or(default.redirects),
            hedge: self.hedge.flatten().map(|(policy, _)| policy),
        }
    }

    fn all_limits(&self) -> Vec<LimitSpec> {
        let rates = self.rates.iter().zip(RATE_WINDOWS);
        let rates = rates.filter_map(|(count, window)| count.map(|count| LimitSpec { count, window }));
        limits::combined(rates.chain(self.limits.iter().flatten().copied()))
    }

    fn on_unknown(&self, dialect: Dialect, retry: &RetryPolicy) -> Option<OnUnknown> {
        let kofaf_retries = dialect == Dialect::Kofaf && self.retry.is_given() && !retry.is_none();
        self.retry.on_unknown().or(kofaf_retries.then_some(OnUnknown::Retry))
    }
}

/// The upper layer's keys win; `retry` is merged inside, so what both say of it counts.
fn written_over(
    mut upper: BTreeMap<&'static str, String>,
    below: &BTreeMap<&'static str, String>,
) -> BTreeMap<&'static str, String> {
    for (&key, value) in below {
        match upper.get_mut(key) {
            Some(own) if key == "retry" => *own = format!("{own} over {value}"),
            Some(_) => {}
            None => drop(upper.insert(key, value.clone())),
        }
    }
    upper
}
