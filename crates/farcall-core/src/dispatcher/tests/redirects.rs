//! Redirects that are followed: a hop is an attempt of its own for every limit, and no new try.

use super::*;
use crate::hop::{Heading, Hop, Redirect};

fn following(redirects: u32) -> UpstreamPolicy {
    UpstreamPolicy { redirects, retry: constant_retry(1), ..UpstreamPolicy::default() }
}

fn window(count: u32, seconds: u64) -> Vec<LimitSpec> {
    vec![LimitSpec { count: NonZeroU32::new(count).expect("not zero"), window: Duration::from_secs(seconds) }]
}

fn redirected(upstream: UpstreamId, method: Method) -> AttemptResult {
    AttemptResult { redirect: Some(Redirect::To { upstream, method }), ..answered(302) }
}

impl Bench {
    fn redirect(&mut self, call: u128, number: u32, to: UpstreamId, method: Method) -> &mut Self {
        self.tell(Event::Finished { attempt: attempt(call, number), result: redirected(to, method) })
    }

    fn get(&self, number: u128) -> CallSpec {
        CallSpec { method: Method::Get, ..self.spec(number) }
    }

    /// Where each attempt of a call went, and what kind it was.
    fn course(&self, call: u128) -> Vec<(Option<UpstreamId>, AttemptKind)> {
        let kinds = self.writes.iter().filter_map(|write| match write {
            Write::Start { attempt, kind, .. } if attempt.call.bits() == call => Some(*kind),
            _ => None,
        });
        let hops = self.effects.iter().filter_map(|effect| match effect {
            Effect::Launch { attempt, hop, .. } if attempt.call.bits() == call => Some(*hop),
            _ => None,
        });
        hops.zip(kinds).collect()
    }

    fn last_progress(&self) -> Progress {
        let progress = self.writes.iter().rev().find_map(|write| match write {
            Write::Settle { progress, .. } => *progress,
            _ => None,
        });
        progress.expect("something was settled")
    }

    fn reason(&self, call: u128) -> Option<WaitReason> {
        self.dispatcher.standing(CallId::from_bits(call)).and_then(|standing| standing.wait_reason)
    }
}

#[test]
fn a_redirect_is_followed_as_an_attempt_of_the_same_try() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let spec = bench.get(1);
    bench.offer(spec).redirect(1, 1, other, Method::Get);
    let hop = Hop { upstream: other, method: Method::Get, count: 1 };
    assert_eq!(bench.last_progress().heading, Some(Heading::Hop(hop)));
    bench.redirect(1, 2, bench.upstream, Method::Get).answer(1, 3, 200);
    let home = bench.upstream;
    let first = AttemptKind::First;
    assert_eq!(bench.course(1), [(None, first), (Some(other), first), (Some(home), first)]);
    assert_eq!(bench.outcomes(), [AttemptOutcome::Success; 3]);
    let last = bench.last_progress();
    assert_eq!((last.state, last.tries, last.heading), (State::Succeeded, Tries::default(), Some(Heading::Home)));
    assert!(bench.dispatcher.is_drained());
}

#[test]
fn a_try_follows_so_many_redirects_and_then_the_answer_stands() {
    let mut bench = Bench::new(following(2));
    let (spec, home) = (bench.get(1), bench.upstream);
    bench.offer(spec).redirect(1, 1, home, Method::Get).redirect(1, 2, home, Method::Get);
    assert_eq!(bench.end_of(1), None);
    bench.redirect(1, 3, home, Method::Get);
    let last = bench.last_progress();
    assert_eq!((last.state, last.status, last.error), (State::Failed, Some(302), Some(ErrorKind::HttpStatus)));
    assert_eq!(bench.launches().len(), 3);
}

#[test]
fn without_leave_to_follow_a_redirect_is_an_answer() {
    let mut bench = Bench::new(following(0));
    let (spec, home) = (bench.get(1), bench.upstream);
    bench.offer(spec).redirect(1, 1, home, Method::Get);
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 1));
}

#[test]
fn a_hop_waits_for_the_limits_of_where_it_goes_and_holds_up_nobody_at_home() {
    let mut bench = Bench::new(UpstreamPolicy { limits: window(2, 60), ..following(5) });
    let other = bench.dispatcher.declare(UpstreamPolicy { limits: window(1, 10), ..UpstreamPolicy::default() });
    for number in 1..=2 {
        let spec = bench.get(number);
        bench.offer(spec).redirect(number, 1, other, Method::Get);
    }
    assert_eq!(bench.launches(), [(1, 1), (1, 2), (2, 1)]);
    assert_eq!((bench.reason(2), bench.dispatcher.census().calls(State::Retrying)), (Some(WaitReason::RateLimit), 1));
    let standing = bench.dispatcher.upstream_standing(other, bench.now().instant);
    assert_eq!((standing.waiting, standing.in_flight, standing.limits[0].used), (1, 1, 1));
    bench.answer(1, 2, 200).advance(10_100);
    assert_eq!(bench.launches().len(), 3, "its slot cools from the end of the one before");
    bench.advance(20);
    assert_eq!(bench.launches()[3..], [(2, 2)]);
}

#[test]
fn a_hop_takes_the_calls_cost_and_never_more_than_there_is() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy { limits: window(3, 10), ..UpstreamPolicy::default() });
    for (number, cost) in [(1, 2), (2, 9)] {
        let spec = CallSpec { cost: NonZeroU32::new(cost).expect("not zero"), ..bench.get(number) };
        bench.offer(spec).redirect(number, 1, other, Method::Get);
    }
    assert_eq!(bench.dispatcher.upstream_standing(other, bench.now().instant).limits[0].used, 2);
    bench.answer(1, 2, 200).advance(10_120);
    assert_eq!(bench.launches().last(), Some(&(2, 2)));
}

#[test]
fn a_paused_and_a_closed_upstream_keep_hops_away_too() {
    let mut bench = Bench::new(following(5));
    let (paused, closed) = (UpstreamPolicy::default(), UpstreamPolicy::default());
    let (paused, closed) = (bench.dispatcher.declare(paused), bench.dispatcher.declare(closed));
    bench.dispatcher.withdraw(paused);
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(503) };
    let at_closed = CallSpec { upstream: closed, ..bench.get(9) };
    bench.offer(at_closed).tell(Event::Finished { attempt: attempt(9, 1), result: throttled });
    for (number, to) in [(1, paused), (2, closed)] {
        let spec = bench.get(number);
        bench.offer(spec).redirect(number, 1, to, Method::Get);
    }
    assert_eq!((bench.reason(1), bench.reason(2)), (Some(WaitReason::Paused), Some(WaitReason::Cooldown)));
    bench.dispatcher.reinstate(paused);
    bench.turn().advance(9_000);
    assert!(bench.launches().contains(&(1, 2)) && bench.launches().contains(&(2, 2)), "{:?}", bench.launches());
}

#[test]
fn an_answer_that_asks_to_wait_closes_where_it_came_from() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let (spec, second) = (bench.get(1), bench.get(2));
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    bench.offer(spec).redirect(1, 1, other, Method::Get);
    bench.tell(Event::Finished { attempt: attempt(1, 2), result: throttled }).offer(second);
    assert_eq!(bench.launches().last(), Some(&(2, 1)), "its own upstream is open");
    bench.redirect(2, 1, other, Method::Get);
    assert_eq!(bench.reason(2), Some(WaitReason::Cooldown));
}

#[test]
fn after_a_hop_that_failed_a_new_try_begins_at_the_calls_own_url() {
    let mut bench = Bench::new(following(1));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let spec = bench.get(1);
    bench.offer(spec).redirect(1, 1, other, Method::Get).answer(1, 2, 500);
    let last = bench.last_progress();
    assert_eq!((last.tries.retries, last.heading), (1, Some(Heading::Home)));
    bench.advance(2_000).redirect(1, 3, other, Method::Get).answer(1, 4, 200);
    let (first, retry) = (AttemptKind::First, AttemptKind::Retry);
    assert_eq!(bench.course(1), [(None, first), (Some(other), first), (None, retry), (Some(other), retry)]);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
}

/// A POST that was answered with "see other" has been accepted: it is not made again because of what came after.
#[test]
fn once_a_redirect_has_made_a_get_of_it_a_post_is_not_sent_again() {
    let mut bench = Bench::new(following(2));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).redirect(1, 1, other, Method::Get);
    let timeout = AttemptResult { status: None, error: Some(ErrorKind::Timeout), ..answered(0) };
    bench.tell(Event::Finished { attempt: attempt(1, 2), result: timeout });
    assert_eq!(bench.last_progress().heading, None, "a GET may be repeated, and is");
    bench.advance(2_000);
    let (first, retry) = (AttemptKind::First, AttemptKind::Retry);
    assert_eq!(bench.course(1), [(None, first), (Some(other), first), (Some(other), retry)]);
    bench.redirect(1, 3, bench.upstream, Method::Get).redirect(1, 4, other, Method::Get);
    assert_eq!((bench.end_of(1), bench.launches().len()), (Some(State::Failed), 4), "two redirects in all");
}

#[test]
fn whether_an_unknown_hop_is_repeated_is_for_its_own_method_to_say() {
    for (method, end) in [(Method::Post, Some(State::Unknown)), (Method::Get, None)] {
        let mut bench = Bench::new(following(5));
        let other = bench.dispatcher.declare(UpstreamPolicy::default());
        let spec = bench.spec(1);
        bench.offer(spec).redirect(1, 1, other, method);
        let reset = AttemptResult { status: None, error: Some(ErrorKind::Reset), ..answered(0) };
        bench.tell(Event::Finished { attempt: attempt(1, 2), result: reset });
        assert_eq!(bench.end_of(1), end, "{method:?}");
    }
}

#[test]
fn each_hop_has_a_timeout_of_its_own_and_all_share_the_deadline() {
    let mut bench = Bench::new(UpstreamPolicy { timeout: Duration::from_secs(2), ..following(9) });
    let other =
        bench.dispatcher.declare(UpstreamPolicy { timeout: Duration::from_secs(60), ..UpstreamPolicy::default() });
    let spec = CallSpec { deadline: Some(Instant::from_micros(3_000_000)), ..bench.get(1) };
    bench.offer(spec).advance(1_500).redirect(1, 1, other, Method::Get).advance(1_499);
    assert!(!bench.effects.contains(&Effect::Abort { attempt: attempt(1, 2) }));
    bench.advance(1);
    assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(1, 2) }));
    bench.tell(Event::Aborted { attempt: attempt(1, 2), wrote: BytesSent::Maybe });
    assert_eq!(bench.end_of(1), Some(State::Expired));
    let spec = bench.get(2);
    bench.offer(spec).redirect(2, 1, other, Method::Get).advance(2_000);
    assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(2, 2) }), "the timeout is its own upstream's");
}

#[test]
fn a_call_that_waits_for_a_hop_expires_and_can_be_cancelled() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    bench.dispatcher.withdraw(other);
    let first = CallSpec { deadline: Some(Instant::from_micros(5_000_000)), ..bench.get(1) };
    let second = bench.get(2);
    bench.offer(first).redirect(1, 1, other, Method::Get).offer(second).redirect(2, 1, other, Method::Get);
    bench.tell(Event::Cancel { call: CallId::from_bits(2) }).advance(5_000);
    assert_eq!((bench.end_of(1), bench.end_of(2)), (Some(State::Expired), Some(State::Cancelled)));
    assert_eq!(bench.dispatcher.upstream_standing(other, bench.now().instant).waiting, 0);
}

#[test]
fn a_call_that_is_to_be_cancelled_follows_nothing() {
    let mut bench = Bench::new(following(5));
    let (spec, home) = (bench.get(1), bench.upstream);
    bench.offer(spec).tell(Event::Cancel { call: CallId::from_bits(1) }).redirect(1, 1, home, Method::Get);
    let last = bench.last_progress();
    assert_eq!((last.state, last.error), (State::Failed, Some(ErrorKind::HttpStatus)));
    assert_eq!(bench.outcomes(), [AttemptOutcome::Failure]);
}

#[test]
fn a_redirect_from_https_to_http_fails_the_call() {
    let mut bench = Bench::new(following(5));
    let spec = bench.get(1);
    let result = AttemptResult { redirect: Some(Redirect::Downgrade), ..answered(302) };
    bench.offer(spec).tell(Event::Finished { attempt: attempt(1, 1), result });
    let last = bench.last_progress();
    assert_eq!((last.state, last.status, last.error), (State::Failed, Some(302), Some(ErrorKind::BlockedAddress)));
}

#[test]
fn a_hop_that_was_out_at_the_crash_is_unknown_and_the_next_try_begins_at_home() {
    for (sent_as, goes_as, end, course) in [
        (Method::Put, Method::Put, None, vec![(None, AttemptKind::Retry)]),
        (Method::Post, Method::Get, None, vec![(Some(UpstreamId(2)), AttemptKind::Retry)]),
        (Method::Post, Method::Post, Some(State::Unknown), vec![]),
    ] {
        let mut bench = Bench::new(following(5));
        let limits = window(1, 30);
        let other = bench.dispatcher.declare(UpstreamPolicy { limits, ..UpstreamPolicy::default() });
        let mut calls = [0; State::ALL.len()];
        calls[State::Running as usize] = 1;
        bench.dispatcher.restore_census(Census::new(1, 0, calls));
        let recovered = Recovered {
            spec: CallSpec { method: sent_as, ..bench.spec(1) },
            state: State::Running,
            hop: Some(Hop { upstream: other, method: goes_as, count: 1 }),
            tries: Tries::default(),
            attempts: 2,
            ready_at: None,
            is_cancel_requested: false,
            open: vec![OpenAttempt { number: 2, kind: AttemptKind::First }],
        };
        bench.dispatcher.restore(bench.now(), recovered);
        bench.turn();
        assert_eq!((bench.end_of(1), bench.outcomes()), (end, vec![AttemptOutcome::Unknown]), "{sent_as:?}");
        assert_eq!(bench.course(1), course, "{sent_as:?} that went on as {goes_as:?}");
    }
}

#[test]
fn a_hop_that_was_handed_back_unsent_goes_on_where_it_was() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).redirect(1, 1, other, Method::Post);
    bench.tell(Event::Drain { until: bench.now().instant }).advance(1);
    bench.tell(Event::Aborted { attempt: attempt(1, 2), wrote: BytesSent::No });
    let last = bench.last_progress();
    assert_eq!((last.state, last.tries, last.heading), (State::Retrying, Tries::default(), None));
}

#[test]
fn a_hop_whose_start_could_not_be_stored_waits_where_it_goes() {
    let mut bench = Bench::new(following(5));
    let other = bench.dispatcher.declare(UpstreamPolicy { limits: window(1, 30), ..UpstreamPolicy::default() });
    let spec = bench.get(1);
    bench.offer(spec);
    let result = redirected(other, Method::Get);
    bench.dispatcher.handle(bench.now(), Event::Finished { attempt: attempt(1, 1), result });
    let seq = bench.hand_over().expect("the redirect and the start of the hop");
    bench.tell(Event::CommitFailed { seq });
    let standing = bench.dispatcher.upstream_standing(other, bench.now().instant);
    assert_eq!((standing.waiting, standing.in_flight, standing.limits[0].used), (1, 0, 0));
    bench.advance(1_000).answer(1, 2, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
    assert_eq!(bench.course(1).last(), Some(&(Some(other), AttemptKind::First)));
}
