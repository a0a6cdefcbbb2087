//! Attempts that are added to a try: when, out of what, which one decides, and what becomes of the others.

use super::*;
use crate::hedge::{HedgeDelay, HedgePolicy, Hedging, HeldBack, Percentile};
use crate::hop::Redirect;
use crate::share::Share;

const AFTER_MS: i64 = 300;

fn hedge(extra: u32) -> HedgePolicy {
    let after = HedgeDelay::Fixed(Duration::from_millis(AFTER_MS.unsigned_abs()));
    HedgePolicy { after, extra, budget: None, on_failure: false }
}

fn hedged(hedge: HedgePolicy) -> UpstreamPolicy {
    UpstreamPolicy { hedge: Some(hedge), retry: constant_retry(3), ..UpstreamPolicy::default() }
}

fn limited(count: u32, hedge: HedgePolicy) -> UpstreamPolicy {
    let count = NonZeroU32::new(count).expect("not zero");
    let limits = vec![LimitSpec { count, window: Duration::from_secs(60) }];
    UpstreamPolicy { limits, ..hedged(hedge) }
}

fn lost(number: u32) -> Event {
    Event::Aborted { attempt: attempt(1, number), wrote: BytesSent::Maybe }
}

fn failed(kind: ErrorKind, bytes_sent: BytesSent) -> AttemptResult {
    AttemptResult { status: None, error: Some(kind), bytes_sent, ..answered(0) }
}

impl Bench {
    /// Offers a GET that takes longer than its hedge waits.
    fn slow(&mut self) -> &mut Self {
        let spec = CallSpec { method: Method::Get, ..self.spec(1) };
        self.offer(spec).advance(AFTER_MS)
    }

    fn kinds(&self) -> Vec<AttemptKind> {
        let kind = |write: &Write| if let Write::Start { kind, .. } = write { Some(*kind) } else { None };
        self.writes.iter().filter_map(kind).collect()
    }

    fn aborts(&self) -> Vec<u32> {
        let number = |effect: &Effect| if let Effect::Abort { attempt } = effect { Some(attempt.number) } else { None };
        self.effects.iter().filter_map(number).collect()
    }

    fn hedging(&self) -> HedgeStanding {
        self.dispatcher.hedge_standing(CallId::from_bits(1)).expect("it runs and may be hedged")
    }

    fn suppressed(&mut self) -> u32 {
        self.dispatcher.take_suppressed().iter().map(|(_, count)| count).sum()
    }

    fn state(&self) -> Option<State> {
        self.dispatcher.standing(CallId::from_bits(1)).map(|standing| standing.state)
    }
}

#[test]
fn an_attempt_that_takes_long_gets_all_its_hedges_at_once() {
    let mut bench = Bench::new(hedged(hedge(2)));
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).advance(AFTER_MS - 1);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.advance(1);
    assert_eq!(bench.launches(), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(bench.kinds(), [AttemptKind::First, AttemptKind::Hedge, AttemptKind::Hedge]);
    bench.advance(20_000);
    assert_eq!(bench.launches().len(), 3, "and no more");
}

#[test]
fn the_first_success_wins_and_the_others_are_cut_off_at_once() {
    let mut bench = Bench::new(hedged(hedge(2)));
    bench.slow().answer(1, 3, 200);
    assert_eq!((bench.end_of(1), bench.aborts()), (Some(State::Succeeded), vec![1, 2]));
    bench.tell(lost(2)).tell(Event::Finished { attempt: attempt(1, 1), result: answered(200) });
    use AttemptOutcome::{Cancelled, Success};
    assert_eq!(bench.outcomes(), [Success, Cancelled, Cancelled]);
    assert_eq!(bench.dispatcher.census().calls(State::Succeeded), 1);
    assert!(bench.dispatcher.is_drained() && !bench.dispatcher.is_loaded(CallId::from_bits(1)));
}

#[test]
fn an_answer_in_time_is_not_hedged_nor_a_method_that_changes_something() {
    let mut bench = Bench::new(hedged(hedge(2)));
    let get = CallSpec { method: Method::Get, ..bench.spec(1) };
    let post = bench.spec(2);
    bench.offer(get).offer(post).advance(AFTER_MS - 1).answer(1, 1, 200).advance(20_000);
    assert_eq!(bench.launches(), [(1, 1), (2, 1)]);
    let own = Overrides { idempotent: Some(true), ..Overrides::default() };
    let declared = CallSpec { overrides: Some(Box::new(own)), ..bench.spec(3) };
    bench.offer(declared).advance(AFTER_MS);
    assert_eq!(bench.launches().len(), 5);
    let own = Overrides { hedge: Some(Hedging::Never), ..Overrides::default() };
    let never = CallSpec { method: Method::Get, overrides: Some(Box::new(own)), ..bench.spec(4) };
    bench.offer(never).advance(AFTER_MS);
    assert_eq!(bench.launches().len(), 6);
}

#[test]
fn the_last_to_fail_decides_by_the_rules_of_retries_and_hedges_use_none_up() {
    let mut bench = Bench::new(hedged(hedge(2)));
    bench.slow().answer(1, 2, 404).answer(1, 1, 500);
    assert_eq!((bench.end_of(1), bench.state()), (None, Some(State::Running)));
    bench.answer(1, 3, 503);
    assert_eq!(bench.state(), Some(State::Retrying));
    bench.advance(2_000);
    assert_eq!((bench.launches().len(), bench.kinds()[3]), (4, AttemptKind::Retry));
    bench.advance(AFTER_MS);
    assert_eq!(bench.launches().len(), 6, "a retry is hedged as the first was");
    for number in 4..=6 {
        bench.answer(1, number, 500);
    }
    let stored = bench.writes.iter().rev().find_map(|write| match write {
        Write::Settle { progress: Some(progress), .. } => Some(progress.tries),
        _ => None,
    });
    assert_eq!(stored.map(|tries| tries.retries), Some(2), "one after each try");
}

#[test]
fn what_is_used_up_is_never_hedged_and_what_is_spare_is_as_far_as_it_goes() {
    let mut bench = Bench::new(limited(1, hedge(2)));
    bench.slow().advance(10_000);
    assert_eq!((bench.launches().len(), bench.hedging().held_back), (1, Some(HeldBack::RateLimit)));
    assert_eq!(bench.suppressed(), 2, "once for each, however often it is looked at");
    let mut bench = Bench::new(limited(2, hedge(2)));
    bench.slow().advance(10_000);
    assert_eq!((bench.launches().len(), bench.suppressed()), (2, 1));
    assert!(bench.aborts().is_empty(), "what is out goes on");
}

#[test]
fn nobody_is_overtaken_by_a_hedge() {
    let mut bench = Bench::new(limited(3, hedge(1)));
    let dear = CallSpec { cost: NonZeroU32::new(3).expect("not zero"), ..bench.spec(2) };
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).offer(dear).advance(AFTER_MS);
    assert_eq!((bench.launches(), bench.hedging().held_back), (vec![(1, 1)], Some(HeldBack::Waiting)));
    bench.tell(Event::Cancel { call: CallId::from_bits(2) }).advance(AFTER_MS);
    assert_eq!(bench.launches(), [(1, 1), (1, 2)], "it is looked at again after twice the time");
}

#[test]
fn whoever_shares_the_quota_and_waits_goes_first() {
    let mut bench = Bench::new(limited(3, hedge(1)));
    let one = UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() };
    let sharing = bench.dispatcher.declare_sharing(one, bench.upstream);
    for number in [2, 3] {
        let spec = CallSpec { upstream: sharing, ..bench.spec(number) };
        bench.offer(spec);
    }
    bench.slow();
    assert_eq!(bench.launches(), [(2, 1), (1, 1)], "the third slot is for the one that waits");
}

#[test]
fn concurrency_a_cooldown_and_a_pause_keep_hedges_back() {
    let check = |policy: UpstreamPolicy, prepare: fn(&mut Bench), expected| {
        let mut bench = Bench::new(policy);
        let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
        bench.offer(spec);
        prepare(&mut bench);
        bench.advance(AFTER_MS);
        assert_eq!((bench.launches().len(), bench.hedging().held_back), (1, Some(expected)));
    };
    let one = UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..hedged(hedge(1)) };
    check(one, |_| {}, HeldBack::Concurrency);
    let close = |bench: &mut Bench| bench.dispatcher.restore_closing(bench.upstream, Instant::from_micros(1_000_000));
    check(hedged(hedge(1)), close, HeldBack::Cooldown);
    check(hedged(hedge(1)), |bench| bench.dispatcher.pause(bench.upstream, 1), HeldBack::Paused);
    check(hedged(hedge(1)), |bench| bench.dispatcher.withdraw(bench.upstream), HeldBack::Paused);
    let drain = |bench: &mut Bench| {
        bench.tell(Event::Drain { until: Instant::from_micros(60_000_000) });
    };
    check(hedged(hedge(1)), drain, HeldBack::Stopped);
}

#[test]
fn the_budget_bounds_hedges_and_never_harms_what_is_out() {
    let budget = Some(Share::from_permille(500));
    let mut bench = Bench::new(hedged(HedgePolicy { budget, ..hedge(1) }));
    for number in 1..=5 {
        let spec = CallSpec { method: Method::Get, ..bench.spec(number) };
        bench.offer(spec);
    }
    bench.advance(AFTER_MS);
    assert_eq!((bench.launches().len(), bench.suppressed()), (5 + 2, 3), "half of five");
    assert!(bench.aborts().is_empty());
    let kept_back = (1..=5).find(|&number| {
        let standing = bench.dispatcher.hedge_standing(CallId::from_bits(number)).expect("it runs");
        standing.held_back == Some(HeldBack::Budget)
    });
    bench.answer(kept_back.expect("one was"), 1, 200);
    assert_eq!(bench.end_of(kept_back.expect("one was")), Some(State::Succeeded));
}

#[test]
fn a_learned_delay_comes_from_those_that_ended_well_and_waits_until_enough_is_known() {
    let after = HedgeDelay::Learned(Percentile::from_permille(900).expect("it is one"));
    let mut bench = Bench::new(hedged(HedgePolicy { after, ..hedge(1) }));
    let took = |ms| AttemptResult { latency: Duration::from_millis(ms), ..answered(200) };
    for number in 100..120 {
        let spec = CallSpec { method: Method::Get, ..bench.spec(number) };
        bench.offer(spec).advance(50);
        bench.tell(Event::Finished { attempt: attempt(number, 1), result: took(50) });
        let spec = CallSpec { method: Method::Get, ..bench.spec(number + 100) };
        let at_once = AttemptResult { latency: Duration::ZERO, ..failed(ErrorKind::Connect, BytesSent::No) };
        bench.offer(spec).tell(Event::Finished { attempt: attempt(number + 100, 1), result: at_once });
        bench.tell(Event::Cancel { call: CallId::from_bits(number + 100) });
    }
    assert!(bench.kinds().iter().all(|&kind| kind == AttemptKind::First), "nothing was known, and nothing hedged");
    let before = bench.launches().len();
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).advance(49);
    assert_eq!(bench.launches().len(), before + 1);
    bench.advance(5);
    assert_eq!(bench.launches()[before..], [(1, 1), (1, 2)], "those that failed at once count for nothing");
}

#[test]
fn one_that_was_hedged_counts_as_slow_in_what_is_learned_and_its_hedge_does_not_count() {
    let after = HedgeDelay::Learned(Percentile::from_permille(500).expect("it is one"));
    let mut bench = Bench::new(hedged(HedgePolicy { after, ..hedge(1) }));
    let took = |ms| AttemptResult { latency: Duration::from_millis(ms), ..answered(200) };
    for number in 100..120 {
        let spec = CallSpec { method: Method::Get, ..bench.spec(number) };
        bench.offer(spec).advance(100).tell(Event::Finished { attempt: attempt(number, 1), result: took(100) });
    }
    for number in 200..221 {
        let spec = CallSpec { method: Method::Get, ..bench.spec(number) };
        bench.offer(spec).advance(400).tell(Event::Finished { attempt: attempt(number, 2), result: took(1) });
        bench.tell(Event::Aborted { attempt: attempt(number, 1), wrote: BytesSent::Maybe });
    }
    let before = bench.launches().len();
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).advance(390);
    assert_eq!(bench.launches()[before..], [(1, 1)], "most of them took 400 ms and more");
}

#[test]
fn a_deadline_or_a_timeout_ends_every_attempt_of_a_try() {
    let mut bench = Bench::new(hedged(hedge(2)));
    let spec = CallSpec { method: Method::Get, deadline: Some(Instant::from_micros(1_000_000)), ..bench.spec(1) };
    bench.offer(spec).advance(1_000);
    assert_eq!(bench.aborts(), [1, 2, 3]);
    bench.tell(lost(1)).tell(lost(3));
    assert_eq!(bench.end_of(1), None);
    bench.tell(lost(2));
    assert_eq!(bench.end_of(1), Some(State::Expired));
    let mut bench = Bench::new(UpstreamPolicy { timeout: Duration::from_secs(1), ..hedged(hedge(1)) });
    bench.slow().advance(700).tell(lost(1));
    assert_eq!((bench.aborts(), bench.state()), (vec![1], Some(State::Running)));
    bench.answer(1, 2, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
}

#[test]
fn whatever_cut_a_loser_off_it_changes_nothing_of_a_call_that_has_ended() {
    let mut bench = Bench::new(UpstreamPolicy { timeout: Duration::from_secs(1), ..hedged(hedge(1)) });
    bench.slow().advance(700).answer(1, 2, 200).tell(lost(1));
    use AttemptOutcome::{Success, Unknown};
    assert_eq!((bench.end_of(1), bench.outcomes()), (Some(State::Succeeded), vec![Success, Unknown]));
    assert!(bench.dispatcher.is_drained() && !bench.dispatcher.is_loaded(CallId::from_bits(1)));
    let mut bench = Bench::new(UpstreamPolicy { timeout: Duration::from_secs(1), ..hedged(hedge(1)) });
    bench.slow().advance(700).answer(1, 2, 200).answer(1, 1, 200);
    assert_eq!((bench.end_of(1), bench.outcomes()), (Some(State::Succeeded), vec![Success, Success]));
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    let mut bench = Bench::new(hedged(hedge(1)));
    bench.slow().answer(1, 2, 200).tell(Event::Finished { attempt: attempt(1, 1), result: throttled });
    let closed = bench.dispatcher.upstream_standing(bench.upstream, bench.now().instant).closed_until;
    assert!(closed.is_some(), "an upstream that asks to keep away is heard, whoever it tells");
}

#[test]
fn a_call_that_is_to_be_cancelled_gets_no_hedge_and_ends_as_the_last_of_its_attempts_does() {
    let mut bench = Bench::new(hedged(hedge(1)));
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).tell(Event::Cancel { call: CallId::from_bits(1) }).advance(AFTER_MS);
    assert_eq!(bench.launches().len(), 1);
    let mut bench = Bench::new(hedged(hedge(1)));
    bench.slow().tell(Event::Cancel { call: CallId::from_bits(1) });
    bench.tell(Event::Finished { attempt: attempt(1, 1), result: failed(ErrorKind::Reset, BytesSent::Maybe) });
    bench.tell(Event::Finished { attempt: attempt(1, 2), result: failed(ErrorKind::Connect, BytesSent::No) });
    assert_eq!(bench.end_of(1), Some(State::Unknown), "the first may have arrived");
}

#[test]
fn a_cancelled_hedge_that_was_never_let_go_does_not_hide_that_the_first_may_have_arrived() {
    let mut bench = Bench::new(hedged(hedge(1)));
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    bench.now_ms = AFTER_MS;
    let seq = bench.hand_over().expect("the start of a hedge");
    bench.dispatcher.handle(bench.now(), Event::Cancel { call: CallId::from_bits(1) });
    let result = failed(ErrorKind::Reset, BytesSent::Maybe);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result });
    bench.tell(Event::Committed { seq });
    assert_eq!((bench.end_of(1), bench.launches()), (Some(State::Unknown), vec![(1, 1)]));
}

#[test]
fn a_drain_cuts_all_attempts_of_a_try_and_it_is_handed_back() {
    let mut bench = Bench::new(hedged(hedge(1)));
    bench.slow();
    bench.tell(Event::Drain { until: bench.now().instant }).advance(1);
    assert_eq!(bench.aborts(), [1, 2]);
    bench.tell(lost(1)).tell(Event::Aborted { attempt: attempt(1, 2), wrote: BytesSent::No });
    assert_eq!((bench.end_of(1), bench.state()), (None, Some(State::Retrying)));
    assert!(bench.dispatcher.is_drained());
}

#[test]
fn a_redirect_wins_like_a_success_and_goes_on_when_the_others_have_reported() {
    let mut bench = Bench::new(UpstreamPolicy { redirects: 2, ..hedged(hedge(1)) });
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let redirect = Some(Redirect::To { upstream: other, method: Method::Get });
    bench.slow().tell(Event::Finished { attempt: attempt(1, 2), result: AttemptResult { redirect, ..answered(302) } });
    assert_eq!((bench.aborts(), bench.launches().len()), (vec![1], 2));
    bench.tell(lost(1));
    assert_eq!((bench.launches().last(), bench.kinds()[2]), (Some(&(1, 3)), AttemptKind::First));
    bench.advance(AFTER_MS);
    assert_eq!(bench.launches().len(), 4, "a hop is hedged, too");
    bench.answer(1, 4, 200).tell(lost(3));
    use AttemptOutcome::{Cancelled, Success};
    assert_eq!(bench.outcomes(), [Cancelled, Success, Success, Cancelled]);
}

#[test]
fn a_hedge_that_could_not_be_stored_never_was() {
    let budget = Some(Share::ALL);
    let mut bench = Bench::new(limited(2, HedgePolicy { budget, ..hedge(1) }));
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    bench.now_ms = AFTER_MS;
    let seq = bench.hand_over().expect("the start of a hedge");
    bench.tell(Event::CommitFailed { seq });
    assert_eq!((bench.hedging().made, bench.launches().len()), (0, 1));
    bench.answer(1, 1, 200);
    assert_eq!(bench.end_of(1), None, "nothing can be stored just now");
    bench.advance(1_000);
    assert_eq!((bench.end_of(1), bench.outcomes()), (Some(State::Succeeded), vec![AttemptOutcome::Success]));
}

#[test]
fn a_call_whose_hedge_could_not_be_stored_and_whose_first_attempt_failed_is_tried_again() {
    let mut bench = Bench::new(hedged(hedge(1)));
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    bench.now_ms = AFTER_MS;
    let seq = bench.hand_over().expect("the start of a hedge");
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result: answered(500) });
    bench.tell(Event::CommitFailed { seq }).advance(AFTER_MS - 1);
    assert_eq!((bench.launches(), bench.kinds().last()), (vec![(1, 1), (1, 2)], Some(&AttemptKind::Retry)));
    bench.answer(1, 2, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
}

#[test]
fn a_crash_with_several_attempts_out_settles_all_and_the_call_goes_on_once() {
    let mut bench = Bench::new(hedged(hedge(1)));
    let mut calls = [0; State::ALL.len()];
    calls[State::Running as usize] = 1;
    bench.dispatcher.restore_census(Census::new(1, 0, calls));
    let open = |number, kind| OpenAttempt { number, kind };
    let recovered = Recovered {
        spec: CallSpec { method: Method::Get, ..bench.spec(1) },
        state: State::Running,
        hop: None,
        tries: Tries::default(),
        attempts: 2,
        ready_at: None,
        is_cancel_requested: false,
        open: vec![open(1, AttemptKind::First), open(2, AttemptKind::Hedge)],
    };
    bench.dispatcher.restore(bench.now(), recovered);
    bench.turn();
    assert_eq!(bench.outcomes(), [AttemptOutcome::Unknown; 2]);
    assert_eq!((bench.launches(), bench.kinds()), (vec![(1, 3)], vec![AttemptKind::Retry]));
    bench.advance(AFTER_MS).answer(1, 4, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
}

/// Requestko's: two more after 300 ms, or as soon as the first has failed.
fn smart() -> UpstreamPolicy {
    UpstreamPolicy { retry: RetryPolicy::none(), ..hedged(HedgePolicy { on_failure: true, ..hedge(2) }) }
}

#[test]
fn where_that_is_asked_for_a_failure_is_hedged_at_once_and_decides_nothing() {
    let mut bench = Bench::new(smart());
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).advance(10).answer(1, 1, 404);
    assert_eq!((bench.launches(), bench.end_of(1)), (vec![(1, 1), (1, 2), (1, 3)], None));
    bench.answer(1, 2, 500);
    assert_eq!(bench.end_of(1), None);
    bench.answer(1, 3, 200);
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Succeeded), 3));
    let mut bench = Bench::new(smart());
    bench.slow().answer(1, 1, 500).answer(1, 2, 500).answer(1, 3, 404);
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 3), "all have failed");
}

#[test]
fn a_failure_that_cannot_be_hedged_is_the_end_of_the_try() {
    let mut bench = Bench::new(UpstreamPolicy { limits: limited(1, hedge(2)).limits, ..smart() });
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec).answer(1, 1, 500);
    assert_eq!((bench.end_of(1), bench.suppressed()), (Some(State::Failed), 2));
    let mut bench = Bench::new(smart());
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    bench.tell(Event::Finished { attempt: attempt(1, 1), result: throttled });
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 1), "it asked everybody to keep away");
}

#[test]
fn a_failure_that_waits_for_its_hedges_is_cancelled_or_expires_like_any_call() {
    let mut bench = Bench::new(smart());
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result: answered(500) });
    bench.tell(Event::Cancel { call: CallId::from_bits(1) });
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 1));
    let mut bench = Bench::new(smart());
    let spec = CallSpec { method: Method::Get, ..bench.spec(1) };
    bench.offer(spec);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result: answered(500) });
    bench.tell(Event::Drain { until: Instant::from_micros(60_000_000) });
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 1));
}
