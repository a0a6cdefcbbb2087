//! Calls that somebody waits for: nothing of them is stored, and nothing else about them is different.

use super::*;
use crate::call::Durability;

impl Bench {
    fn waited_for(&self, number: u128) -> CallSpec {
        CallSpec { durability: Durability::Ephemeral, source: Source::Proxy, ..self.spec(number) }
    }

    /// What was told of a call's end, without being stored.
    fn told_end_of(&self, call: u128) -> Option<State> {
        self.unstored.iter().find_map(|write| match write {
            Write::Settle { call: settled, progress: Some(progress), .. } if settled.bits() == call => {
                progress.state.is_end().then_some(progress.state)
            }
            _ => None,
        })
    }

    fn aborts_of_calls(&self) -> Vec<(u128, u32)> {
        let aborted = |effect: &Effect| match effect {
            Effect::Abort { attempt } => Some((attempt.call.bits(), attempt.number)),
            _ => None,
        };
        self.effects.iter().filter_map(aborted).collect()
    }

    fn aborted(&mut self, call: u128, number: u32, wrote: BytesSent) -> &mut Self {
        self.tell(Event::Aborted { attempt: attempt(call, number), wrote })
    }
}

fn two_in_ten_ms() -> UpstreamPolicy {
    let count = NonZeroU32::new(2).expect("not zero");
    let limits = vec![LimitSpec { count, window: Duration::from_millis(10) }];
    UpstreamPolicy { limits, ..UpstreamPolicy::default() }
}

fn with_retries(max: u32) -> UpstreamPolicy {
    UpstreamPolicy { retry_ephemeral: constant_retry(max), ..UpstreamPolicy::default() }
}

#[test]
fn it_is_let_go_in_the_turn_that_starts_it_and_writes_nothing() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.waited_for(1);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let turn = bench.dispatcher.turn(bench.now());
    assert!(matches!(turn.effects[..], [Effect::Launch { .. }]), "{:?}", turn.effects);
    assert!(matches!(turn.unstored[..], [Write::Insert { .. }, Write::Start { .. }]), "{:?}", turn.unstored);
    bench.dispatcher.handle(bench.now(), Event::Launched { attempt: attempt(1, 1) });
    bench.answer(1, 1, 200);
    assert_eq!(bench.told_end_of(1), Some(State::Succeeded));
    assert_eq!(bench.writes, []);
    assert_eq!(bench.effects, [], "nobody is told but with the turn");
    assert!(bench.dispatcher.is_settled());
    assert_eq!(bench.dispatcher.census(), Census::default());
    assert_eq!(bench.dispatcher.ephemeral_census().sum(), 0);
    assert_eq!(bench.dispatcher.ephemeral_census().accepted, 1);
}

#[test]
fn it_is_not_tried_again_unless_its_upstream_says_so() {
    let mut bench = Bench::new(UpstreamPolicy { retry: constant_retry(3), ..UpstreamPolicy::default() });
    let spec = bench.waited_for(1);
    bench.offer(spec).answer(1, 1, 500);
    assert_eq!(bench.told_end_of(1), Some(State::Failed));
    let mut bench = Bench::new(with_retries(1));
    let spec = bench.waited_for(1);
    bench.offer(spec).answer(1, 1, 500).advance(2_000).answer(1, 2, 200);
    assert_eq!((bench.launches(), bench.told_end_of(1)), (vec![(1, 1), (1, 2)], Some(State::Succeeded)));
}

#[test]
fn durable_and_ephemeral_calls_have_concurrency_of_their_own_unless_it_is_configured() {
    let launched = |concurrency| {
        let mut bench = Bench::new(UpstreamPolicy { concurrency, ..UpstreamPolicy::default() });
        for number in 1..=1_100 {
            let (durable, ephemeral) = (bench.spec(number), bench.waited_for(10_000 + number));
            bench.offer(durable).offer(ephemeral);
        }
        let ephemeral = bench.launches().iter().filter(|(call, _)| *call > 10_000).count();
        (bench.launches().len() - ephemeral, ephemeral)
    };
    assert_eq!(launched(None), (16, 1_024));
    assert_eq!(launched(NonZeroU32::new(6)), (3, 3), "they take turns");
}

#[test]
fn it_shares_limits_and_cooldowns_with_all_others() {
    let mut bench = Bench::new(two_in_ten_ms());
    let (first, second, third) = (bench.spec(1), bench.waited_for(2), bench.waited_for(3));
    bench.offer(first).offer(second).offer(third);
    assert_eq!(bench.launches().len(), 2);
    let waits = bench.dispatcher.standing(CallId::from_bits(3)).and_then(|standing| standing.wait_reason);
    assert_eq!(waits, Some(WaitReason::RateLimit));
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(60)), ..answered(429) };
    bench.tell(Event::Finished { attempt: attempt(2, 1), result: throttled });
    assert_eq!(bench.told_end_of(2), Some(State::Failed), "without retries that is the answer");
    bench.answer(1, 1, 200).advance(59_000);
    assert_eq!(bench.launches().len(), 2);
    bench.advance(1_000);
    assert_eq!(bench.launches().len(), 3);
}

#[test]
fn it_goes_on_while_nothing_can_be_stored() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let durable = bench.spec(1);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(durable)));
    let turn = bench.dispatcher.turn(bench.now());
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq: turn.seq });
    let (durable, ephemeral) = (bench.spec(2), bench.waited_for(3));
    bench.offer(durable).offer(ephemeral);
    assert_eq!(bench.launches(), [(3, 1)]);
    assert!(bench.effects.contains(&Effect::Refuse { call: CallId::from_bits(2) }));
    bench.answer(3, 1, 200);
    assert_eq!(bench.told_end_of(3), Some(State::Succeeded));
}

#[test]
fn durable_calls_that_crowd_each_other_do_not_keep_it_waiting() {
    let (mut bench, other) = super::crowded::crowded();
    let spec = CallSpec { upstream: other, ..bench.waited_for(5_000) };
    let before = bench.launches().len();
    bench.offer(spec);
    assert_eq!(bench.launches()[before..], [(5_000, 1)]);
    let spec = bench.waited_for(5_001);
    bench.offer(spec);
    assert_eq!(bench.launches()[before..], [(5_000, 1), (5_001, 1)]);
    bench.answer(5_000, 1, 200).answer(1, 1, 200).answer(2, 1, 200);
    assert_eq!(bench.launches().len(), before + 3, "a durable one has the place that a durable one left");
}

#[test]
fn who_goes_takes_the_call_along() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: NonZeroU32::new(1), ..UpstreamPolicy::default() });
    let (out, waiting, next) = (bench.waited_for(1), bench.waited_for(2), bench.waited_for(3));
    bench.offer(out).offer(waiting).offer(next);
    let call = CallId::from_bits;
    bench.tell(Event::Abandoned { call: call(2) }).tell(Event::Abandoned { call: call(1) });
    assert_eq!(bench.told_end_of(2), Some(State::Cancelled));
    assert_eq!((bench.told_end_of(1), bench.aborts_of_calls()), (Some(State::Cancelled), vec![(1, 1)]));
    assert_eq!(bench.launches(), [(1, 1)], "its attempt is out until it says that it is not");
    bench.aborted(1, 1, BytesSent::Maybe);
    assert_eq!(bench.launches(), [(1, 1), (3, 1)]);
    bench.tell(Event::Abandoned { call: call(1) }).tell(Event::Abandoned { call: call(99) });
    bench.answer(3, 1, 200);
    assert_eq!(bench.dispatcher.ephemeral_census().sum(), 0);
}

/// Found by the simulator.
#[test]
fn who_goes_when_the_deadline_has_passed_has_gone() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = CallSpec { deadline: Some(Instant::from_micros(1_000)), ..bench.waited_for(1) };
    bench.offer(spec).advance(1);
    assert_eq!(bench.aborts_of_calls(), [(1, 1)]);
    bench.tell(Event::Abandoned { call: CallId::from_bits(1) }).aborted(1, 1, BytesSent::Maybe);
    assert_eq!((bench.told_end_of(1), bench.aborts_of_calls()), (Some(State::Cancelled), vec![(1, 1)]));
}

#[test]
fn a_durable_call_is_abandoned_by_nobody() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).tell(Event::Abandoned { call: CallId::from_bits(1) });
    assert_eq!((bench.aborts_of_calls(), bench.end_of(1)), (vec![], None));
}

#[test]
fn nothing_is_waited_for_that_would_come_after_the_deadline() {
    let mut bench = Bench::new(with_retries(3));
    let deadline = Some(Instant::from_micros(1_500_000));
    let spec = CallSpec { deadline, ..bench.waited_for(1) };
    bench.offer(spec).answer(1, 1, 500);
    assert_eq!(bench.told_end_of(1), Some(State::Failed), "a retry in two seconds is of no use");
    let spec = CallSpec { deadline, ..bench.waited_for(2) };
    bench.offer(spec).advance(1_500);
    assert_eq!(bench.aborts_of_calls(), [(2, 1)]);
    bench.aborted(2, 1, BytesSent::Maybe);
    assert_eq!(bench.told_end_of(2), Some(State::Expired));
}

#[test]
fn whoever_waits_is_sent_away_when_farcall_stops() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: NonZeroU32::new(2), ..with_retries(3) });
    let (out, retries, waiting) = (bench.waited_for(1), bench.waited_for(2), bench.waited_for(3));
    bench.offer(out).offer(retries).offer(waiting);
    bench.tell(Event::Drain { until: Instant::from_micros(5_000_000) });
    assert_eq!(bench.told_end_of(3), Some(State::Cancelled));
    bench.answer(2, 1, 500);
    assert_eq!(bench.told_end_of(2), Some(State::Failed), "it is not tried again");
    bench.advance(5_000);
    assert_eq!(bench.aborts_of_calls(), [(1, 1)]);
    bench.aborted(1, 1, BytesSent::No);
    assert_eq!(bench.told_end_of(1), Some(State::Failed));
    assert!(bench.dispatcher.is_drained() && bench.dispatcher.is_settled());
}

#[test]
fn it_is_cancelled_like_any_other() {
    let mut bench = Bench::new(with_retries(3));
    let call = CallId::from_bits(1);
    let spec = bench.waited_for(1);
    bench.offer(spec).tell(Event::Cancel { call });
    assert!(bench.effects.contains(&Effect::CancelNoted { call }), "{:?}", bench.effects);
    bench.answer(1, 1, 500);
    assert_eq!((bench.told_end_of(1), bench.writes.len()), (Some(State::Failed), 0));
}

#[test]
fn it_has_no_callbacks_and_follows_no_redirect() {
    use crate::hop::Redirect;
    let mut bench = Bench::new(UpstreamPolicy { redirects: 3, ..UpstreamPolicy::default() });
    let (webhooks, upstream) = (bench.dispatcher.declare(UpstreamPolicy::default()), bench.upstream);
    let callbacks = CallbackPolicy { on_success: Some(webhooks), on_fail: Some(webhooks) };
    bench.dispatcher.set_callbacks(upstream, callbacks);
    let spec = bench.waited_for(1);
    let to = Redirect::To { upstream, method: Method::Get };
    let result = AttemptResult { redirect: Some(to), ..answered(302) };
    bench.offer(spec).tell(Event::Finished { attempt: attempt(1, 1), result });
    assert_eq!((bench.told_end_of(1), bench.launches().len()), (Some(State::Failed), 1));
    assert_eq!(bench.writes, []);
}
