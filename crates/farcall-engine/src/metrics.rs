//! The engine's metrics: their names, their labels, and the handles by which they are counted.
//!
//! What happens is counted here by the loop once it is durable; how things stand is asked of the loop when somebody
//! looks, and counted nowhere. Labels are names from the configuration and closed sets of words: never a URL, an id or a
//! tenant. What each metric says to its readers is in `docs/metrics.md`.

mod by_upstream;
mod exposition;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farcall_core::breaker::BreakerState;
use farcall_core::call::{Source, State, WaitReason};
use farcall_core::dispatcher::Census;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::clock;
use crate::handle::{Handle, UpstreamView};
use crate::quantity::duration;
use crate::run::Message;

use by_upstream::{ByUpstream, UNDECLARED, declared};
pub(crate) use by_upstream::{OfUpstream, Whose};
pub use exposition::{CONTENT_TYPE, text};

/// The prefix of every name.
pub const PREFIX: &str = "farcall";
const COMMIT_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Levels<const N: usize> = Family<Labels<N>, Gauge>;
type Seconds<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

/// All metrics of one engine.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Vec<Counter>,
    by_upstream: Arc<ByUpstream>,
    callbacks_succeeded: Counter,
    callbacks_failed: Counter,
    pub(crate) store_commit_seconds: Histogram,
    /// How things stand is put down and read by one at a time.
    levels: Mutex<Standing>,
}

/// Metrics of how things stand.
#[derive(Debug, Default)]
struct Standing {
    calls: Levels<1>,
    waiting: Levels<1>,
    oldest_age: Gauge<f64, AtomicU64>,
    limit_used: Levels<2>,
    limit_capacity: Levels<2>,
    cooldown: Seconds<1>,
    breaker: Levels<1>,
    files: Counters<1>,
}

/// How things stand, as the loop knows it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) census: Census,
    /// Of the calls that somebody waits for.
    pub(crate) ephemeral: Census,
    pub(crate) waiting: BTreeMap<WaitReason, u64>,
    pub(crate) oldest_age: Duration,
    pub(crate) upstreams: Vec<UpstreamView>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let sources = Counters::default();
        let accepted = Source::ALL.iter().map(|source| sources.get_or_create_owned(&label("source", source.as_str())));
        let accepted = accepted.collect();
        let callbacks = Counters::default();
        let callback = |outcome| callbacks.get_or_create_owned(&label("outcome", outcome));
        let metrics = Self {
            accepted,
            by_upstream: Arc::default(),
            callbacks_succeeded: callback("success"),
            callbacks_failed: callback("failure"),
            store_commit_seconds: Histogram::new(COMMIT_SECONDS),
            levels: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("calls_accepted", "Calls accepted, by where they came in", sources);
        registry.register_collector(Box::new(Arc::clone(&metrics.by_upstream)));
        registry.register("callbacks", "Callbacks that ended, by outcome", callbacks);
        let help = "Time that one commit of the store took";
        registry.register("store_commit_seconds", help, metrics.store_commit_seconds.clone());
        let build: Levels<1> = Family::default();
        build.get_or_create(&label("version", env!("CARGO_PKG_VERSION"))).set(1);
        registry.register("build_info", "Always 1; the label tells the version that runs", build);
        metrics.lock().register(&mut registry);
        Self { registry, ..metrics }
    }

    pub(crate) fn accepted(&self, source: Source) {
        self.accepted[source as usize].inc();
    }

    /// What is counted of an upstream; to be kept by whoever counts.
    pub(crate) fn of(&self, whose: Whose<'_>) -> Arc<OfUpstream> {
        self.by_upstream.of(whose)
    }

    /// A callback ended.
    pub(crate) fn called_back(&self, state: State) {
        let counter = if state == State::Succeeded { &self.callbacks_succeeded } else { &self.callbacks_failed };
        counter.inc();
    }

    /// Everything as text; of an engine that is gone only what was counted.
    fn text(&self, measured: Option<&Measured>, files: Option<(u64, u64)>) -> String {
        let levels = self.lock();
        levels.clear();
        if let Some(measured) = measured {
            levels.put(measured);
        }
        if let Some((taken, rejected)) = files {
            levels.put_files(taken, rejected);
        }
        text(&self.registry)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "calls",
            "Calls in the store and calls that somebody waits for, by state",
            self.calls.clone(),
        );
        registry.register("calls_waiting", "Calls that wait, by reason", self.waiting.clone());
        let help = "How long the call that waits longest for its turn has waited since it might have gone on";
        registry.register("queue_oldest_age_seconds", help, self.oldest_age.clone());
        registry.register("limit_used", "Slots of a limit that are in use", self.limit_used.clone());
        registry.register("limit_capacity", "Slots that a limit has", self.limit_capacity.clone());
        let help = "How long an upstream has asked everybody to keep away from now on";
        registry.register("cooldown_seconds", help, self.cooldown.clone());
        let help = "How the breaker of an upstream stands: 0 closed (or none), 1 half open, 2 open";
        registry.register("breaker_state", help, self.breaker.clone());
        registry.register("inbox_files", "Call files taken and rejected", self.files.clone());
    }

    fn clear(&self) {
        self.calls.clear();
        self.waiting.clear();
        self.oldest_age.set(0.0);
        self.limit_used.clear();
        self.limit_capacity.clear();
        self.cooldown.clear();
        self.breaker.clear();
    }

    fn put(&self, measured: &Measured) {
        for &state in State::ALL {
            let count = measured.census.calls(state) + measured.ephemeral.calls(state);
            self.calls.get_or_create(&label("state", state.as_str())).set(level(count));
        }
        for &reason in WaitReason::ALL {
            let count = measured.waiting.get(&reason).copied().unwrap_or_default();
            self.waiting.get_or_create(&label("reason", reason.as_str())).set(level(count));
        }
        self.oldest_age.set(measured.oldest_age.as_secs_f64());
        let now = clock::now().timestamp;
        let mut cooldowns: BTreeMap<&str, Duration> = BTreeMap::new();
        let mut breakers: BTreeMap<&str, BreakerState> = BTreeMap::new();
        let mut limits: BTreeMap<(&str, Duration), (u32, u32)> = BTreeMap::new();
        for view in &measured.upstreams {
            let name = if view.is_declared { declared(&view.name) } else { UNDECLARED };
            let left = view.closed_until.map(|until| until.since(now)).unwrap_or_default();
            let longest = cooldowns.entry(name).or_default();
            *longest = left.max(*longest);
            let state = view.breaker.map_or(BreakerState::Closed, |(state, _)| state);
            let worst = breakers.entry(name).or_insert(state);
            *worst = state.max(*worst);
            for limit in &view.limits {
                let one = (limit.used, limit.spec.count.get());
                let fullest = limits.entry((name, limit.spec.window)).or_insert(one);
                *fullest = fuller(*fullest, one);
            }
        }
        for (name, left) in cooldowns {
            self.cooldown.get_or_create(&label("upstream", name)).set(left.as_secs_f64());
        }
        for (name, state) in breakers {
            self.breaker.get_or_create(&label("upstream", name)).set(state as i64);
        }
        for ((name, window), (used, capacity)) in limits {
            let labels = [("upstream", name.to_owned()), ("window", duration::to_text(window))];
            self.limit_used.get_or_create(&labels).set(used.into());
            self.limit_capacity.get_or_create(&labels).set(capacity.into());
        }
    }

    fn put_files(&self, taken: u64, rejected: u64) {
        for (result, count) in [("taken", taken), ("rejected", rejected)] {
            let counter = self.files.get_or_create_owned(&label("result", result));
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
}

impl Handle {
    /// All metrics of the engine in Prometheus's text format. Costs time in proportion to the waiting calls in memory and
    /// to the upstreams. Of an engine that is gone only what was counted.
    pub async fn metrics(&self) -> String {
        let (reply, measured) = oneshot::channel();
        let _ = self.messages.send(Message::Measure { reply }).await;
        let measured = measured.await.ok();
        let files = self.inbox().map(|status| {
            let status = status.borrow();
            (status.taken, status.rejected)
        });
        self.metrics.text(measured.as_ref(), files)
    }
}

/// Of two limits that share their labels the one that is nearer to its end; of equals the smaller.
fn fuller(one: (u32, u32), other: (u32, u32)) -> (u32, u32) {
    let product = |(used, _): (u32, u32), (_, capacity): (u32, u32)| u64::from(used) * u64::from(capacity);
    match product(one, other).cmp(&product(other, one)) {
        std::cmp::Ordering::Greater => one,
        std::cmp::Ordering::Less => other,
        std::cmp::Ordering::Equal => {
            if one.1 <= other.1 {
                one
            } else {
                other
            }
        }
    }
}

fn label(key: &'static str, value: &str) -> Labels<1> {
    [(key, value.to_owned())]
}

fn level(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
