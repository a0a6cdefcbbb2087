//! Limits hold at the upstream: for every schedule, delay, crash and changed count; and they admit what they may.

use std::time::Duration;

use farcall_core::limit::Admission;
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Bench, Fate, Network, Wish, is_short};

/// What happens next.
#[derive(Debug, Clone)]
enum Act {
    Send(Wish),
    Pass(Duration),
    Crash { counts: Vec<u32>, downtime: Duration },
    Change { limits: Vec<LimitSpec>, lag: Duration },
}

/// Every order of magnitude alike.
fn duration(low_us: u64, high_us: u64) -> impl Strategy<Value = Duration> {
    let (low, high) = (low_us as f64, high_us as f64);
    (low.ln()..=high.ln()).prop_map(|exponent: f64| Duration::from_micros(exponent.exp() as u64))
}

fn limit() -> impl Strategy<Value = LimitSpec> {
    let window = prop_oneof![duration(100_000, 2_000_000), duration(1_000_000, 7_200_000_000)];
    let count = prop_oneof![9 => 1u32..=12, 1 => 10_001u32..=40_000];
    (count, window).prop_map(|(count, window)| LimitSpec { count: count.try_into().expect("from one"), window })
}

/// Windows of different lengths, some of which come again and again.
fn limits() -> impl Strategy<Value = Vec<LimitSpec>> {
    let usual = prop_oneof![Just(1_000u64), Just(30_000), Just(90_000)].prop_map(Duration::from_millis);
    let usual =
        (1u32..=20, usual).prop_map(|(count, window)| LimitSpec { count: count.try_into().expect("from one"), window });
    vec(prop_oneof![usual, limit()], 1..=3).prop_map(|mut limits| {
        limits.sort_by_key(|limit| (limit.window, limit.count));
        limits.dedup_by_key(|limit| limit.window);
        limits
    })
}

fn policy() -> impl Strategy<Value = UpstreamPolicy> {
    (limits(), any::<bool>(), prop::bool::weighted(0.2), duration(1_000, 3_000_000)).prop_map(
        |(limits, strict, smooth, jitter)| UpstreamPolicy {
            limits,
            strict,
            smooth,
            jitter,
            ..UpstreamPolicy::default()
        },
    )
}

fn wish() -> impl Strategy<Value = Wish> {
    let fate = prop_oneof![
        4 => duration(10, 20_000_000).prop_map(|after| Fate::Answered { after }),
        1 => duration(10_000, 20_000_000).prop_map(|until| Fate::Silent { until }),
        1 => Just(Fate::Unsent),
    ];
    let cost = prop_oneof![8 => Just(1u32), 2 => 1u32..=15, 1 => 1u32..=20_000];
    (cost, prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0], fate, prop::bool::weighted(0.8))
        .prop_map(|(cost, slowness, fate, reports_sent)| Wish { cost, slowness, fate, reports_sent })
}

fn act() -> impl Strategy<Value = Act> {
    let count = prop_oneof![9 => 1u32..=24, 1 => 9_000u32..=40_000];
    let crash = (vec(count, 3), duration(1, 10_000_000));
    let change = (limits(), duration(1, 5_000_000));
    prop_oneof![
        10 => wish().prop_map(Act::Send),
        6 => duration(100, 1_000_000_000).prop_map(Act::Pass),
        1 => crash.prop_map(|(counts, downtime)| Act::Crash { counts, downtime }),
        1 => change.prop_map(|(limits, lag)| Act::Change { limits, lag }),
    ]
}

/// The widest network that the contract's conditions allow for a policy and what it is going to be changed to.
fn network(policy: &UpstreamPolicy, acts: &[Act], base: Duration, wild: Duration) -> Network {
    let changes = acts.iter().flat_map(|act| match act {
        Act::Change { limits, .. } => limits.as_slice(),
        Act::Send(_) | Act::Pass(_) | Act::Crash { .. } => &[],
    });
    let is_steady = !policy.strict && policy.limits.iter().chain(changes).any(is_short);
    let spread = if is_steady { policy.jitter - Duration::from_micros(1) } else { wild };
    Network { base, spread, is_steady }
}

/// Sends, and when told to wait, waits as long as told and sends then.
fn insist(bench: &mut Bench, wish: Wish) {
    if let Admission::NotBefore(at) = bench.send(wish) {
        bench.pass(at.since(bench.now));
        bench.send(wish);
    }
}

fn play(bench: &mut Bench, acts: Vec<Act>) {
    for act in acts {
        match act {
            Act::Send(wish) => insist(bench, wish),
            Act::Pass(time) => bench.pass(time),
            Act::Crash { counts, downtime } => bench.crash(&counts, downtime),
            Act::Change { limits, lag } => bench.change(limits, lag),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn no_window_ever_holds_more_than_its_count(
        policy in policy(),
        base in duration(1, 5_000_000),
        wild in duration(1, 20_000_000),
        acts in vec(act(), 1..120),
    ) {
        let network = network(&policy, &acts, base, wild);
        let mut bench = Bench::new(policy, network);
        play(&mut bench, acts);
        bench.pass(Duration::from_secs(100_000));
        prop_assert_eq!(bench.excess(), None);
    }

    #[test]
    fn a_limiter_at_rest_for_its_longest_window_admits_anything_that_fits(
        policy in policy(),
        acts in vec(act(), 1..60),
        cost in 1u32..=12,
    ) {
        let network = network(&policy, &acts, Duration::from_millis(1), Duration::from_millis(1));
        let mut bench = Bench::new(policy, network);
        play(&mut bench, acts);
        // Everything out has ended by then; smoothing may space a large cost by many intervals.
        bench.pass(Duration::from_secs(41));
        let policy = bench.policies.last().expect("there is one from the start").clone();
        let longest = policy.limits.iter().map(|limit| limit.window).max().unwrap_or_default();
        let spaced = if policy.smooth { longest * 15 } else { Duration::ZERO };
        bench.pass(longest + longest / 1_000 + policy.jitter + spaced + Duration::from_micros(1));
        let cost = bench.capped(cost);
        prop_assert_eq!(bench.limits.admit(bench.now, cost), Admission::Ready);
    }
}

#[test]
fn prompt_answers_leave_a_hundred_per_second_almost_whole() {
    let limit = LimitSpec { count: 100.try_into().expect("not zero"), window: Duration::from_secs(1) };
    let policy = UpstreamPolicy { limits: vec![limit], ..UpstreamPolicy::default() };
    let network = Network { base: Duration::from_millis(1), spread: Duration::from_millis(1), is_steady: true };
    let mut bench = Bench::new(policy, network);
    let fate = Fate::Answered { after: Duration::from_millis(3) };
    let wish = Wish { cost: 1, slowness: 0.5, fate, reports_sent: true };
    let start = bench.now;
    while bench.now.since(start) < Duration::from_secs(100) {
        let is_sent = bench.send(wish) == Admission::Ready;
        bench.pass(Duration::from_micros(if is_sent { 10 } else { 1_000 }));
    }
    let used = f64::from(bench.arrived()) / 10_000.0;
    assert!(used >= 0.99, "{used}");
    assert_eq!(bench.excess(), None);
}

#[test]
fn a_window_of_very_many_wastes_less_than_a_hundredth() {
    let limit = LimitSpec { count: 100_000.try_into().expect("not zero"), window: Duration::from_secs(100) };
    let policy = UpstreamPolicy { limits: vec![limit], ..UpstreamPolicy::default() };
    let network = Network { base: Duration::from_millis(1), spread: Duration::from_millis(1), is_steady: true };
    let mut bench = Bench::new(policy, network);
    let fate = Fate::Answered { after: Duration::from_millis(3) };
    let wish = Wish { cost: 100, slowness: 0.5, fate, reports_sent: true };
    let start = bench.now;
    while bench.now.since(start) < Duration::from_secs(2_000) {
        match bench.send(wish) {
            Admission::Ready => {}
            Admission::NotBefore(at) => bench.pass(at.since(bench.now)),
            Admission::Full => bench.pass(Duration::from_millis(1)),
        }
    }
    let used = f64::from(bench.arrived()) / 2_000_000.0;
    assert!((0.99..=1.0).contains(&used), "{used}");
    assert_eq!(bench.excess(), None);
}
