//! Cancelling at every phase, calls that our handling kills, and attempts that outlived their calls.

use super::*;

fn cancel(bench: &mut Bench, call: u128) {
    bench.tell(Event::Cancel { call: CallId::from_bits(call) });
}

#[test]
fn a_waiting_call_is_cancelled_at_once() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() });
    let later = Some(Instant::from_micros(9_000_000));
    let (running, queued) = (bench.spec(1), bench.spec(2));
    bench.offer(running).offer(queued);
    let scheduled = CallSpec { not_before: later, ..bench.spec(3) };
    bench.offer(scheduled);
    cancel(&mut bench, 2);
    cancel(&mut bench, 3);
    assert_eq!((bench.end_of(2), bench.end_of(3)), (Some(State::Cancelled), Some(State::Cancelled)));
    bench.answer(1, 1, 200).advance(20_000);
    assert_eq!(bench.launches(), [(1, 1)]);
    assert_eq!(bench.dispatcher.census().calls(State::Cancelled), 2);
}

#[test]
fn a_call_whose_start_is_on_its_way_to_the_disk_is_cancelled_and_never_sent() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(bench.spec(1))));
    let seq = bench.hand_over().expect("an insert and a start");
    bench.dispatcher.handle(bench.now(), Event::Cancel { call: CallId::from_bits(1) });
    bench.tell(Event::Committed { seq });
    assert_eq!((bench.end_of(1), bench.launches()), (Some(State::Cancelled), vec![]));
    assert_eq!(bench.outcomes(), [AttemptOutcome::Cancelled]);
}

#[test]
fn a_call_that_may_have_been_sent_ends_as_it_really_ends() {
    let unsent =
        AttemptResult { status: None, error: Some(ErrorKind::Connect), bytes_sent: BytesSent::No, ..answered(0) };
    let silent = AttemptResult { status: None, error: Some(ErrorKind::Timeout), ..answered(0) };
    let ends = [
        (answered(200), State::Succeeded),
        (answered(404), State::Failed),
        (answered(500), State::Failed),
        (AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) }, State::Failed),
        (silent, State::Unknown),
        (unsent, State::Cancelled),
    ];
    for (result, end) in ends {
        let mut bench = Bench::new(UpstreamPolicy { idempotent: true, ..UpstreamPolicy::default() });
        let spec = bench.spec(1);
        bench.offer(spec);
        cancel(&mut bench, 1);
        assert_eq!(bench.end_of(1), None, "it may be out");
        let standing = bench.dispatcher.standing(CallId::from_bits(1));
        assert!(standing.is_some_and(|standing| standing.is_cancel_requested));
        bench.tell(Event::Finished { attempt: attempt(1, 1), result });
        assert_eq!(bench.end_of(1), Some(end), "{result:?}");
    }
}

#[test]
fn a_call_that_is_tried_again_later_is_cancelled_while_it_waits() {
    let mut bench = Bench::new(UpstreamPolicy { retry: constant_retry(3), ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.offer(spec).answer(1, 1, 500);
    cancel(&mut bench, 1);
    assert_eq!(bench.end_of(1), Some(State::Cancelled));
    bench.advance(10_000);
    assert_eq!(bench.launches(), [(1, 1)]);
}

#[test]
fn a_cancelled_call_whose_start_could_not_be_stored_is_cancelled_when_that_can() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.restore_closing(bench.upstream, Instant::from_micros(10_000));
    let spec = bench.spec(1);
    bench.offer(spec);
    bench.now_ms = 10;
    let seq = bench.hand_over().expect("a start");
    bench.dispatcher.handle(bench.now(), Event::Cancel { call: CallId::from_bits(1) });
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
    bench.advance(100);
    assert_eq!((bench.end_of(1), bench.launches()), (Some(State::Cancelled), vec![]));
    assert_eq!(bench.outcomes(), [], "no attempt was made");
}

#[test]
fn whoever_cancels_is_told_what_came_of_it_once_that_is_durable() {
    let told = |bench: &Bench, call| {
        let call = CallId::from_bits(call);
        let answers = bench.effects.iter().filter(|effect| match **effect {
            Effect::CancelNoted { call: told }
            | Effect::CancelMissed { call: told }
            | Effect::Ended { call: told, .. } => told == call,
            _ => false,
        });
        answers.copied().collect::<Vec<_>>()
    };
    let mut bench = Bench::new(UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() });
    for call in [1, 2] {
        let spec = bench.spec(call);
        bench.offer(spec);
    }
    bench.dispatcher.handle(bench.now(), Event::Cancel { call: CallId::from_bits(1) });
    bench.dispatcher.handle(bench.now(), Event::Cancel { call: CallId::from_bits(2) });
    let seq = bench.hand_over().expect("a wish and an end");
    assert_eq!((told(&bench, 1), told(&bench, 2)), (vec![], vec![]), "nothing of it is durable");
    bench.tell(Event::Committed { seq });
    let [one, two, seven] = [1, 2, 7].map(CallId::from_bits);
    assert_eq!(told(&bench, 1), [Effect::CancelNoted { call: one }]);
    assert_eq!(told(&bench, 2), [Effect::Ended { call: two, has_file: false }]);
    cancel(&mut bench, 2);
    cancel(&mut bench, 7);
    assert_eq!(told(&bench, 2).last(), Some(&Effect::CancelMissed { call: two }));
    assert_eq!(told(&bench, 7), [Effect::CancelMissed { call: seven }]);
}

#[test]
fn cancelling_what_has_ended_or_never_was_changes_nothing() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).answer(1, 1, 200);
    let before = bench.writes.len();
    cancel(&mut bench, 1);
    cancel(&mut bench, 7);
    assert_eq!(bench.writes.len(), before);
}

#[test]
fn a_call_that_our_handling_kills_three_times_is_poisoned() {
    let died = AttemptResult { status: None, error: Some(ErrorKind::Internal), ..answered(0) };
    let mut bench =
        Bench::new(UpstreamPolicy { idempotent: true, retry: constant_retry(9), ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.offer(spec);
    for number in 1..=3 {
        assert_eq!(bench.end_of(1), None);
        bench.tell(Event::Finished { attempt: attempt(1, number), result: died }).advance(2_000);
    }
    assert_eq!(bench.end_of(1), Some(State::Poisoned));
    assert_eq!(bench.launches().len(), 3);
}

#[test]
fn a_call_that_must_not_be_repeated_ends_unknown_when_our_handling_of_it_dies() {
    let died = AttemptResult { status: None, error: Some(ErrorKind::Internal), ..answered(0) };
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).tell(Event::Finished { attempt: attempt(1, 1), result: died });
    assert_eq!(bench.end_of(1), Some(State::Unknown));
}

#[test]
fn an_attempt_that_outlived_its_call_is_settled_at_the_next_start() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let open = OpenAttempt { number: 2, kind: AttemptKind::Hedge };
    bench.dispatcher.restore_loser(bench.now(), CallId::from_bits(1), bench.upstream, open);
    bench.turn();
    assert_eq!((bench.outcomes(), bench.end_of(1)), (vec![AttemptOutcome::Unknown], None));
}

#[test]
fn a_withdrawn_upstream_leaves_the_quota_to_those_that_share_it() {
    let limits = vec![LimitSpec { count: NonZeroU32::new(2).expect("not zero"), window: Duration::from_secs(60) }];
    let mut bench = Bench::new(UpstreamPolicy { limits, ..UpstreamPolicy::default() });
    let sharing = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), bench.upstream);
    let first = bench.spec(1);
    bench.offer(first);
    let large = CallSpec { cost: NonZeroU32::new(2).expect("not zero"), ..bench.spec(2) };
    let small = CallSpec { upstream: sharing, ..bench.spec(3) };
    bench.offer(large).offer(small);
    assert_eq!(bench.launches(), [(1, 1)], "the large one is waited for");
    bench.dispatcher.withdraw(bench.upstream);
    assert_eq!(bench.turn().launches(), [(1, 1), (3, 1)]);
}
