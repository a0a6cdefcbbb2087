//! What is told of a waiting call, against what then really happens.

use super::*;
use crate::lane::{LaneId, Position, StoredLane};
use proptest::prelude::*;

/// How long attempts take on this bench.
const LATENCY: Duration = Duration::from_millis(20);

impl Bench {
    fn explain(&mut self, call: u128) -> Explanation {
        let now = self.now();
        self.dispatcher.explain(now, CallId::from_bits(call), &[], LATENCY).expect("it is in memory")
    }

    /// Lets everything run, every attempt answered after [`LATENCY`]; when and in which order calls started, in ms.
    fn run_to_the_end(&mut self, until_ms: i64) -> Vec<(u128, i64)> {
        let (mut started, mut seen) = (Vec::new(), self.launches().len());
        let mut answers: Vec<(i64, u128, u32)> =
            self.launches().iter().map(|&(call, number)| (self.now_ms + 20, call, number)).collect();
        while self.now_ms < until_ms {
            self.now_ms += 1;
            let due: Vec<_> = answers.extract_if(.., |(at, ..)| *at <= self.now_ms).collect();
            for (_, call, number) in due {
                self.tell(Event::FirstByte { attempt: attempt(call, number), at: self.now().instant });
                self.answer(call, number, 200);
            }
            self.turn();
            for &(call, number) in &self.launches()[seen..] {
                started.push((call, self.now_ms));
                answers.push((self.now_ms + 20, call, number));
            }
            seen = self.launches().len();
        }
        started
    }
}

fn limited(count: u32, window_ms: u64) -> UpstreamPolicy {
    let count = NonZeroU32::new(count).expect("not zero");
    let limits = vec![LimitSpec { count, window: Duration::from_millis(window_ms) }];
    UpstreamPolicy { limits, ..UpstreamPolicy::default() }
}

fn ms(at: Option<Instant>) -> Option<i64> {
    at.map(|at| at.as_micros() / 1_000)
}

#[test]
fn the_estimate_of_calls_behind_a_limit_is_when_they_start() {
    let mut bench = Bench::new(limited(3, 1_000));
    for number in 1..=20 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let told: Vec<_> = (4..=20).map(|call| (call, bench.explain(call))).collect();
    for (place, (call, explanation)) in told.iter().enumerate() {
        let ahead = explanation.ahead.as_ref().expect("it waits");
        assert_eq!((ahead.calls, ahead.is_exact), (place, true), "call {call}");
        assert_eq!(explanation.standing.wait_reason, Some(WaitReason::RateLimit));
    }
    let started = bench.run_to_the_end(8_000);
    for (call, explanation) in told {
        let at = started.iter().find(|(other, _)| *other == call).expect("it starts").1;
        let estimate = ms(explanation.starts_at).expect("it can be told");
        assert!((at - estimate).abs() <= 15, "call {call} started at {at}, told was {estimate}");
    }
}

#[test]
fn the_estimate_behind_concurrency_goes_by_how_long_attempts_take() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: NonZeroU32::new(2), ..UpstreamPolicy::default() });
    for number in 1..=12 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let told: Vec<_> = (3..=12).map(|call| (call, bench.explain(call))).collect();
    assert_eq!(told[0].1.standing.wait_reason, Some(WaitReason::Concurrency));
    let started = bench.run_to_the_end(500);
    for (call, explanation) in told {
        let at = started.iter().find(|(other, _)| *other == call).expect("it starts").1;
        let estimate = ms(explanation.starts_at).expect("it can be told");
        assert!((at - estimate).abs() <= 10, "call {call} started at {at}, told was {estimate}");
    }
}

#[test]
fn a_closed_a_paused_and_a_scheduled_call_are_told_apart() {
    let mut bench = Bench::new(limited(2, 1_000));
    let first = bench.spec(1);
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    let scheduled = CallSpec { not_before: Some(Instant::from_micros(30_000_000)), ..bench.spec(3) };
    let second = bench.spec(2);
    bench
        .offer(first)
        .tell(Event::Finished { attempt: attempt(1, 1), result: throttled })
        .offer(second)
        .offer(scheduled);
    let closed = bench.explain(2);
    assert_eq!((closed.standing.wait_reason, ms(closed.starts_at)), (Some(WaitReason::Cooldown), Some(9_000)));
    let later = bench.explain(3);
    assert_eq!((later.standing.wait_reason, ms(later.starts_at)), (Some(WaitReason::NotBefore), Some(30_000)));
    assert_eq!(later.ahead.map(|ahead| ahead.calls), Some(2), "one that may go on and one that wakes before it");
    bench.dispatcher.pause(bench.upstream, 1);
    bench.turn();
    let paused = bench.explain(2);
    assert_eq!((paused.standing.wait_reason, paused.starts_at), (Some(WaitReason::Paused), None));
}

#[test]
fn a_running_call_waits_for_nothing() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    let running = bench.offer(spec).explain(1);
    assert_eq!((running.standing.state, running.standing.wait_reason), (State::Running, None));
    assert_eq!((running.ahead, running.starts_at), (None, None));
    bench.dispatcher.handle(bench.now(), Event::Drain { until: Instant::from_micros(i64::MAX) });
    let waits = bench.spec(2);
    assert_eq!(bench.offer(waits).explain(2).held, Some(Held::Draining));
}

#[test]
fn beyond_a_thousand_the_position_is_not_exact() {
    let mut bench = Bench::new(limited(1, 1_000));
    for number in 0..1_100 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let ahead = |bench: &mut Bench, call| {
        let ahead = bench.explain(call).ahead.expect("it waits");
        (ahead.calls, ahead.is_exact)
    };
    assert_eq!(ahead(&mut bench, 1), (0, true));
    assert_eq!(ahead(&mut bench, 1_000), (999, true));
    assert_eq!(ahead(&mut bench, 1_001), (1_000, false));
    assert_eq!(bench.explain(1_050).starts_at, None);
}

#[test]
fn a_call_in_the_store_alone_is_found_among_those_that_were_read() {
    let mut bench = Bench::new(limited(1, 1_000));
    bench.dispatcher =
        Dispatcher::new(UpstreamPolicy::default(), 7).with_memory(Memory { calls_max: 4, lane_max: 4, lane_min: 2 });
    bench.upstream = bench.dispatcher.declare(limited(1, 1_000));
    for number in 1..=30 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    // By then all of them may go on.
    bench.advance(1);
    let call = |number: u128| {
        // Every call's place is a microsecond behind that of the one before.
        let ready_at = Instant::from_micros(i64::try_from(number).expect("small") - 1);
        Position { ready_at, call: CallId::from_bits(number) }
    };
    let lane = LaneId { priority: Priority::default(), tenant: TenantId::default() };
    let place = StoredPlace { upstream: bench.upstream, lane, position: call(25), cost: 1, state: State::Queued };
    let now = bench.now();
    let unknown = bench.dispatcher.explain_stored(now, place, &[], LATENCY).ahead.expect("it waits");
    assert!(!unknown.is_exact && unknown.missing.len() == 1, "{unknown:?}");
    let (_, from) = unknown.missing[0];
    let calls = (1..=30).map(call).filter(|position| *position >= from).map(|position| (position, 1)).collect();
    let stored = [StoredLane { lane, calls, is_cut: false }];
    let known = bench.dispatcher.explain_stored(now, place, &stored, LATENCY);
    let ahead = known.ahead.expect("it waits");
    assert_eq!((ahead.calls, ahead.is_exact), (23, true), "the first runs");
    assert_eq!(known.standing.wait_reason, Some(WaitReason::RateLimit));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// With priorities, tenants and costs the walk says the order in which they then start.
    #[test]
    fn positions_are_the_order_in_which_calls_start(
        calls in prop::collection::vec((1..=5_u8, 0..4_u64, 1..=3_u32), 2..80),
    ) {
        let mut bench = Bench::new(limited(3, 100));
        for (number, &(priority, tenant, cost)) in (1..).zip(&calls) {
            let spec = CallSpec {
                priority: Priority::new(priority).expect("1 to 5"),
                tenant: TenantId(tenant),
                cost: NonZeroU32::new(cost).expect("not zero"),
                ..bench.spec(number)
            };
            bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
        }
        bench.turn();
        let running = bench.launches().len();
        let waiting: Vec<u128> = (1..=calls.len() as u128).filter(|call| !bench.launches().contains(&(*call, 1))).collect();
        let mut told: Vec<(usize, u128)> = Vec::new();
        for call in waiting {
            let ahead = bench.explain(call).ahead.expect("it waits");
            prop_assert!(ahead.is_exact);
            told.push((ahead.calls, call));
        }
        told.sort_unstable();
        bench.run_to_the_end(60_000);
        let order: Vec<u128> = bench.launches()[running..].iter().map(|&(call, _)| call).collect();
        prop_assert_eq!(told.into_iter().map(|(_, call)| call).collect::<Vec<_>>(), order);
    }
}
