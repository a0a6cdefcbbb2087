//! What is counted by upstream. There may be ten thousand of them with ninety series each, so each keeps plain numbers in
//! one block, and lines of text are made of them only while somebody reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The label of all upstreams that are not declared.
pub(super) const UNDECLARED: &str = "undeclared";
/// The label of callbacks, wherever they go.
const CALLBACKS: &str = "callbacks";
/// That of an upstream which has this name; no other can have it, because names have no `#`.
const NAMED_CALLBACKS: &str = "callbacks#";

/// Kinds of attempts that are shown before there was one.
const KINDS: [AttemptKind; 2] = [AttemptKind::First, AttemptKind::Retry];

/// What came of hedges.
const HEDGE_RESULTS: [&str; 3] = ["won", "lost", "suppressed"];
const WON: usize = 0;
const LOST: usize = 1;
const SUPPRESSED: usize = 2;

/// Upper bounds in seconds.
static ATTEMPT_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
static WAIT_SECONDS: [f64; 13] =
    [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// Whose label an upstream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    Declared(&'a str),
    Undeclared,
    Callbacks,
}

/// What is counted of one upstream, or of all that share its label.
#[derive(Debug)]
pub(crate) struct OfUpstream {
    finished: [AtomicU64; State::ALL.len()],
    attempts: [[AtomicU64; AttemptOutcome::ALL.len()]; AttemptKind::ALL.len()],
    hedges: [AtomicU64; HEDGE_RESULTS.len()],
    attempt_seconds: Times<15>,
    wait_seconds: Times<13>,
}

/// All upstreams that something may be counted of, by label.
#[derive(Debug, Default)]
pub(super) struct ByUpstream {
    by_label: Mutex<BTreeMap<String, Arc<OfUpstream>>>,
}

/// How long things took.
#[derive(Debug)]
struct Times<const N: usize> {
    bounds: &'static [f64; N],
    /// Each counts what is above the bound before it.
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Whose<'_> {
    const fn label(&self) -> &str {
        match self {
            Self::Declared(name) => declared(name),
            Self::Undeclared => UNDECLARED,
            Self::Callbacks => CALLBACKS,
        }
    }
}

impl OfUpstream {
    fn new() -> Self {
        Self {
            finished: Default::default(),
            attempts: Default::default(),
            hedges: Default::default(),
            attempt_seconds: Times::new(&ATTEMPT_SECONDS),
            wait_seconds: Times::new(&WAIT_SECONDS),
        }
    }

    pub(crate) fn waited(&self, waited: Duration) {
        self.wait_seconds.observe(waited);
    }

    /// An attempt ended; of one that was never launched nobody knows how long it took.
    pub(crate) fn attempted(&self, outcome: AttemptOutcome, kind: AttemptKind, took: Option<Duration>) {
        self.attempts[kind as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        if kind == AttemptKind::Hedge {
            let result = if outcome == AttemptOutcome::Success { WON } else { LOST };
            self.hedges[result].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(took) = took {
            self.attempt_seconds.observe(took);
        }
    }

    /// So many hedges were due and not made.
    pub(crate) fn suppressed(&self, hedges: u32) {
        self.hedges[SUPPRESSED].fetch_add(hedges.into(), Ordering::Relaxed);
    }

    /// A call ended.
    pub(crate) fn finished(&self, state: State) {
        self.finished[state as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl<const N: usize> Times<N> {
    fn new(bounds: &'static [f64; N]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, beyond: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }

    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = self.bounds.partition_point(|&bound| bound < seconds);
        self.counts.get(place).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let counts = self.counts.iter().chain([&self.beyond]).map(|count| count.load(Ordering::Relaxed));
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let all = buckets.iter().map(|(_, count)| count).sum();
        let seconds = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(seconds, all, &buckets, None)
    }
}

impl ByUpstream {
    /// What is counted of an upstream; to be kept by whoever counts.
    pub(super) fn of(&self, whose: Whose<'_>) -> Arc<OfUpstream> {
        let mut by_label = self.by_label.lock().unwrap_or_else(PoisonError::into_inner);
        let of = by_label.entry(whose.label().to_owned()).or_insert_with(|| Arc::new(OfUpstream::new()));
        Arc::clone(of)
    }
}

impl Collector for ByUpstream {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let by_label = self.by_label.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Calls that ended, by upstream and end";
        let mut metric = encoder.encode_descriptor("calls_finished", help, None, MetricType::Counter)?;
        for (name, of) in &*by_label {
            for &state in State::ALL.iter().filter(|state| state.is_end()) {
                let labels = [("upstream", name.as_str()), ("state", state.as_str())];
                counter(&mut metric, &labels, &of.finished[state as usize])?;
            }
        }
        let help = "Attempts that ended, by upstream, outcome and kind";
        let mut metric = encoder.encode_descriptor("attempts", help, None, MetricType::Counter)?;
        for (name, of) in &*by_label {
            for (&kind, outcomes) in AttemptKind::ALL.iter().zip(&of.attempts) {
                for (&outcome, count) in AttemptOutcome::ALL.iter().zip(outcomes) {
                    let is_always_shown = KINDS.contains(&kind) && outcome != AttemptOutcome::Running;
                    if is_always_shown || count.load(Ordering::Relaxed) > 0 {
                        let labels =
                            [("upstream", name.as_str()), ("outcome", outcome.as_str()), ("kind", kind.as_str())];
                        counter(&mut metric, &labels, count)?;
                    }
                }
            }
        }
        let help = "Hedges that won, that lost, and that were due and not made";
        let mut metric = encoder.encode_descriptor("hedges", help, None, MetricType::Counter)?;
        for (name, of) in &*by_label {
            for (result, count) in HEDGE_RESULTS.iter().zip(&of.hedges) {
                counter(&mut metric, &[("upstream", name.as_str()), ("result", result)], count)?;
            }
        }
        let help = "Time from the launch of an attempt to its end";
        let mut metric = encoder.encode_descriptor("attempt_duration_seconds", help, None, MetricType::Histogram)?;
        for (name, of) in &*by_label {
            of.attempt_seconds.encode(&mut metric.encode_family(&[("upstream", name.as_str())])?)?;
        }
        let help = "Time from when a call might have gone on until an attempt of it was started";
        let mut metric = encoder.encode_descriptor("queue_wait_seconds", help, None, MetricType::Histogram)?;
        for (name, of) in &*by_label {
            of.wait_seconds.encode(&mut metric.encode_family(&[("upstream", name.as_str())])?)?;
        }
        Ok(())
    }
}

/// The label of a declared upstream: its name. None is called like the undeclared ones, which the configuration refuses.
pub(super) const fn declared(name: &str) -> &str {
    if matches!(name.as_bytes(), b"callbacks") { NAMED_CALLBACKS } else { name }
}

fn counter<L: EncodeLabelSet>(metric: &mut MetricEncoder<'_>, labels: &L, count: &AtomicU64) -> fmt::Result {
    metric.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&count.load(Ordering::Relaxed), None)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn times_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let by_upstream = ByUpstream::default();
        let of = by_upstream.of(Whose::Declared("etsy"));
        [1, 2, 3_000, 90_000].into_iter().for_each(|milliseconds| of.waited(Duration::from_millis(milliseconds)));
        of.waited(Duration::from_secs(100_000));
        let mut registry = Registry::with_prefix("farcall");
        registry.register_collector(Box::new(by_upstream));
        let text = super::super::text(&registry);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("farcall_queue_wait_seconds_")).collect();
        let bucket = |bound: &str, count: u64| {
            format!("farcall_queue_wait_seconds_bucket{{le=\"{bound}\",upstream=\"etsy\"}} {count}")
        };
        assert_eq!(lines[0], "farcall_queue_wait_seconds_sum{upstream=\"etsy\"} 100093.003");
        assert_eq!(lines[1], "farcall_queue_wait_seconds_count{upstream=\"etsy\"} 5");
        for (bound, count) in
            [("0.001", 1), ("0.01", 2), ("1.0", 2), ("5.0", 3), ("60.0", 3), ("300.0", 4), ("+Inf", 5)]
        {
            assert!(lines.contains(&bucket(bound, count).as_str()), "{bound}: {lines:#?}");
        }
    }
}
