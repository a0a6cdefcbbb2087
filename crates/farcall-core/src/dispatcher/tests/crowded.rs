//! More attempts than may be out in all: who gets the places.

use super::*;

/// A dispatcher with two upstreams, the first with so many attempts out that places are scarce, the second with one.
pub(super) fn crowded() -> (Bench, UpstreamId) {
    let policy = || UpstreamPolicy { concurrency: NonZeroU32::new(5_000), ..UpstreamPolicy::default() };
    let mut bench = Bench::new(policy());
    let other = bench.dispatcher.declare(policy());
    for number in 1..=1_200 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    for number in 2_001..=2_100 {
        let spec = CallSpec { upstream: other, ..bench.spec(number) };
        bench.offer(spec);
    }
    assert_eq!(bench.launches().len(), 1_025, "an upstream with none out may always start one");
    (bench, other)
}

#[test]
fn scarce_places_go_to_the_upstreams_in_turns() {
    let (mut bench, _) = crowded();
    for number in 1..=41 {
        bench.answer(number, 1, 200);
    }
    let launched = bench.launches()[1_025..].iter().filter(|(call, _)| *call > 2_000).count();
    assert_eq!((bench.launches().len(), launched), (1_025 + 40, 20));
    assert!(bench.dispatcher.crowded_out.len() <= 2, "{:?}", bench.dispatcher.crowded_out);
}

#[test]
fn a_free_place_is_not_kept_for_an_upstream_that_has_nothing_to_start() {
    let (mut bench, other) = crowded();
    for number in 2_002..=2_100 {
        bench.dispatcher.expire(bench.now(), CallId::from_bits(number));
    }
    assert_eq!(bench.turn().dispatcher.upstream_standing(other, Instant::default()).waiting, 0);
    bench.answer(1, 1, 200).answer(2, 1, 200);
    assert_eq!(bench.launches().len(), 1_026);
}

#[test]
fn an_upstream_whose_last_attempt_ended_starts_one_however_many_others_are_out() {
    let (mut bench, _) = crowded();
    bench.answer(2_001, 1, 200);
    assert_eq!(bench.launches().len(), 1_026);
    assert_eq!(bench.launches().last(), Some(&(2_002, 1)));
}
