//! Upstreams that share a quota: what holds for them together, and that neither holds the other up.

use super::*;

fn sharing(policy: UpstreamPolicy, own: UpstreamPolicy) -> (Bench, UpstreamId) {
    let mut bench = Bench::new(policy);
    let other = bench.dispatcher.declare_sharing(own, bench.upstream);
    (bench, other)
}

fn window(count: u32, seconds: u64) -> Vec<LimitSpec> {
    vec![LimitSpec { count: NonZeroU32::new(count).expect("not zero"), window: Duration::from_secs(seconds) }]
}

#[test]
fn upstreams_that_share_a_quota_share_its_limits_in_turns() {
    let (mut bench, other) =
        sharing(UpstreamPolicy { limits: window(4, 1), ..UpstreamPolicy::default() }, UpstreamPolicy::default());
    for number in 1..=10 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    for number in 11..=20 {
        let spec = CallSpec { upstream: other, ..bench.spec(number) };
        bench.offer(spec);
    }
    assert_eq!(bench.launches().len(), 4);
    for number in 1..=4 {
        bench.answer(number, 1, 200);
    }
    bench.advance(1_102);
    assert_eq!(bench.launches()[4..], [(5, 1), (11, 1), (6, 1), (12, 1)], "neither waits for the other's backlog");
}

#[test]
fn a_call_that_needs_many_slots_is_not_overtaken_by_those_that_share_them() {
    let (mut bench, other) =
        sharing(UpstreamPolicy { limits: window(4, 1), ..UpstreamPolicy::default() }, UpstreamPolicy::default());
    let first = bench.spec(1);
    let costly = CallSpec { cost: NonZeroU32::new(4).expect("not zero"), ..bench.spec(2) };
    bench.offer(first).offer(costly);
    for number in 3..=9 {
        let spec = CallSpec { upstream: other, ..bench.spec(number) };
        bench.offer(spec);
    }
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.answer(1, 1, 200).advance(1_102);
    assert_eq!(bench.launches(), [(1, 1), (2, 1)]);
}

#[test]
fn one_that_has_enough_out_itself_does_not_keep_those_that_share_its_quota_waiting() {
    let own = UpstreamPolicy { concurrency: NonZeroU32::new(2), ..UpstreamPolicy::default() };
    let (mut bench, other) = sharing(UpstreamPolicy { limits: window(9, 1), ..UpstreamPolicy::default() }, own);
    for number in 1..=5 {
        let spec = CallSpec { upstream: other, ..bench.spec(number) };
        bench.offer(spec);
    }
    let spec = bench.spec(6);
    bench.offer(spec);
    assert_eq!(bench.launches(), [(1, 1), (2, 1), (6, 1)]);
    assert_eq!(
        bench.dispatcher.standing(CallId::from_bits(3)).and_then(|standing| standing.wait_reason),
        Some(WaitReason::Concurrency)
    );
    bench.answer(2, 1, 200);
    assert_eq!(bench.launches()[3..], [(3, 1)]);
}

#[test]
fn a_concurrency_that_is_set_bounds_all_that_share_it() {
    let policy = UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() };
    let (mut bench, other) = sharing(policy, UpstreamPolicy::default());
    let (first, second) = (bench.spec(1), CallSpec { upstream: other, ..bench.spec(2) });
    bench.offer(first).offer(second);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.answer(1, 1, 200);
    assert_eq!(bench.launches(), [(1, 1), (2, 1)]);
}

#[test]
fn an_answer_that_asks_to_wait_closes_all_that_share_the_quota() {
    let (mut bench, other) = sharing(UpstreamPolicy::default(), UpstreamPolicy::default());
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    let (first, second) = (CallSpec { upstream: other, ..bench.spec(1) }, bench.spec(2));
    bench.offer(first).tell(Event::Finished { attempt: attempt(1, 1), result: throttled }).offer(second);
    bench.advance(8_999);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.advance(1);
    assert_eq!(bench.launches().len(), 3);
}
