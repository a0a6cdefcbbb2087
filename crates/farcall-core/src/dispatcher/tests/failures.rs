//! Several commits in flight, and commits that fail: what is undone, what is kept, and when all goes on.

use super::*;

/// Offers a call without committing anything.
fn offer(bench: &mut Bench, spec: CallSpec) -> Seq {
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    bench.hand_over().expect("an offer is a write")
}

fn fail(bench: &mut Bench, seq: Seq) {
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
}

fn refusals(bench: &Bench) -> Vec<u128> {
    let refused = |effect: &Effect| match effect {
        Effect::Refuse { call } => Some(call.bits()),
        _ => None,
    };
    bench.effects.iter().filter_map(refused).collect()
}

fn one_at_a_time() -> UpstreamPolicy {
    UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), retry: constant_retry(3), ..UpstreamPolicy::default() }
}

#[test]
fn turns_follow_each_other_while_commits_are_in_flight_up_to_a_bound() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let bound = TURNS_IN_FLIGHT_MAX as u128;
    let seqs: Vec<Seq> = (1..=bound)
        .map(|number| {
            let spec = bench.spec(number);
            offer(&mut bench, spec)
        })
        .collect();
    assert_eq!(bench.dispatcher.turns_in_flight(), TURNS_IN_FLIGHT_MAX);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(bench.spec(bound + 1))));
    assert_eq!(bench.hand_over(), None, "the next one waits");
    assert_eq!(bench.dispatcher.next_wakeup(bench.now().instant), None, "and nobody is woken for it");
    bench.dispatcher.handle(bench.now(), Event::Committed { seq: seqs[1] });
    assert!(bench.hand_over().is_some());
    assert_eq!(bench.launches(), [(1, 1), (2, 1)], "the third is not durable yet");
}

#[test]
fn a_failed_insert_is_refused_and_nothing_of_it_is_kept() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let (first, second) = (bench.spec(1), bench.spec(2));
    let seq = offer(&mut bench, first);
    offer(&mut bench, second);
    fail(&mut bench, seq);
    assert_eq!(bench.hand_over(), None);
    assert_eq!(refusals(&bench), [1, 2], "the later turn fails with the earlier one");
    assert_eq!((bench.launches(), bench.dispatcher.in_flight()), (vec![], 0));
    assert_eq!((bench.dispatcher.census().accepted, bench.dispatcher.census().sum()), (0, 0));
    assert_eq!(bench.dispatcher.standing(CallId::from_bits(1)), None);
}

#[test]
fn nobody_is_let_in_until_a_commit_may_be_tried_again() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    let seq = offer(&mut bench, spec);
    fail(&mut bench, seq);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(bench.spec(2))));
    assert_eq!(bench.hand_over(), None);
    assert_eq!(refusals(&bench), [1, 2]);
    bench.advance(100);
    let spec = bench.spec(3);
    bench.offer(spec);
    assert_eq!(bench.launches(), [(3, 1)]);
}

#[test]
fn a_start_that_failed_is_undone_and_its_call_goes_first_again() {
    let limits = vec![LimitSpec { count: NonZeroU32::MIN, window: Duration::from_secs(60) }];
    let mut bench = Bench::new(UpstreamPolicy { limits, ..one_at_a_time() });
    bench.dispatcher.restore_closing(bench.upstream, Instant::from_micros(10_000));
    for number in 1..=3 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    bench.now_ms = 10;
    let seq = bench.hand_over().expect("a start");
    assert_eq!(bench.dispatcher.census().calls(State::Running), 1);
    fail(&mut bench, seq);
    let standing = bench.dispatcher.upstream_standing(bench.upstream, bench.now().instant);
    assert_eq!((standing.in_flight, standing.limits[0].used, standing.waiting), (0, 0, 3));
    assert_eq!(bench.dispatcher.census().calls(State::Queued), 3);
    bench.advance(99);
    assert_eq!(bench.launches(), []);
    bench.advance(1);
    assert_eq!(bench.launches(), [(1, 1)], "the same call, and its first attempt still");
}

#[test]
fn an_outcome_is_kept_and_written_alone_until_that_works() {
    let mut bench = Bench::new(one_at_a_time());
    let (first, second) = (bench.spec(1), bench.spec(2));
    bench.offer(first).offer(second);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result: answered(200) });
    let seq = bench.hand_over().expect("a settlement and a start");
    let decided = bench.writes.iter().rev().find(|write| matches!(write, Write::Settle { .. })).cloned();
    fail(&mut bench, seq);
    for wait_ms in [100, 200, 400, 800, 1_000, 1_000] {
        bench.writes.clear();
        bench.now_ms += wait_ms - 1;
        assert_eq!(bench.hand_over(), None, "not before {wait_ms} ms");
        bench.now_ms += 1;
        let seq = bench.hand_over().expect("the settlement again");
        assert_eq!(bench.writes, decided.clone().into_iter().collect::<Vec<_>>());
        assert!(!bench.effects.iter().any(|effect| matches!(effect, Effect::Ended { .. })));
        fail(&mut bench, seq);
    }
    bench.advance(1_000);
    assert!(bench.effects.contains(&Effect::Ended { call: CallId::from_bits(1), has_file: false }));
    assert_eq!(bench.launches(), [(1, 1), (2, 1)]);
    assert_eq!(bench.dispatcher.durable_census(), bench.dispatcher.census());
}

#[test]
fn a_retry_that_could_not_be_written_keeps_what_it_followed_from() {
    let retry = RetryPolicy { max: 1, backoff: Backoff::Constant(Duration::ZERO), ..constant_retry(1) };
    let mut bench = Bench::new(UpstreamPolicy { retry, ..one_at_a_time() });
    let spec = bench.spec(1);
    bench.offer(spec);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result: answered(500) });
    let seq = bench.hand_over().expect("a settlement and a start");
    fail(&mut bench, seq);
    assert_eq!(bench.dispatcher.census().calls(State::Retrying), 1);
    bench.advance(100);
    assert_eq!(bench.launches(), [(1, 1), (1, 2)]);
    bench.answer(1, 2, 500);
    assert_eq!(bench.end_of(1), Some(State::Failed), "the retry was used up once");
}

#[test]
fn a_call_that_expires_on_its_way_to_the_disk_is_refused_with_its_callback() {
    let callbacks = CallbackPolicy { on_success: Some(UpstreamId(0)), on_fail: Some(UpstreamId(0)) };
    let mut bench = Bench::new(UpstreamPolicy { callbacks, ..one_at_a_time() });
    bench.dispatcher.withdraw(bench.upstream);
    let spec = CallSpec { deadline: Some(Instant::from_micros(5_000)), ..bench.spec(1) };
    let seq = offer(&mut bench, spec);
    bench.now_ms = 5;
    assert!(bench.hand_over().is_some(), "it expires, and calls back");
    fail(&mut bench, seq);
    assert_eq!(bench.hand_over(), None);
    assert_eq!(refusals(&bench), [1]);
    assert_eq!((bench.dispatcher.census().accepted, bench.dispatcher.census().sum()), (0, 0));
    bench.advance(10_000);
    assert_eq!(bench.launches(), []);
}

#[test]
fn a_deadline_that_passed_while_a_start_failed_ends_the_call() {
    let mut bench = Bench::new(one_at_a_time());
    bench.dispatcher.restore_closing(bench.upstream, Instant::from_micros(10_000));
    let spec = CallSpec { deadline: Some(Instant::from_micros(50_000)), ..bench.spec(1) };
    bench.offer(spec);
    bench.now_ms = 10;
    let seq = bench.hand_over().expect("a start");
    bench.now_ms = 50;
    bench.hand_over();
    fail(&mut bench, seq);
    bench.advance(100);
    assert_eq!((bench.end_of(1), bench.launches()), (Some(State::Expired), vec![]));
    assert_eq!(bench.outcomes(), [], "no attempt was made");
}
