//! Breakers at work: what an open one holds up, the one probe, and who hears of it.

use super::*;
use crate::breaker::{BreakerPolicy, BreakerState};

/// Opens at half of 4, for 5 s; nothing is tried twice.
fn guarded() -> UpstreamPolicy {
    let breaker = BreakerPolicy {
        calls: NonZeroU32::new(4).expect("not zero"),
        open: Duration::from_secs(5),
        ..BreakerPolicy::default()
    };
    UpstreamPolicy { breaker: Some(breaker), retry: RetryPolicy::none(), ..UpstreamPolicy::default() }
}

/// With this policy, opened by the calls 1 to 4.
fn opened(policy: UpstreamPolicy) -> Bench {
    let mut bench = Bench::new(policy);
    for number in 1..=4 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    for number in 1..=4 {
        bench.answer(number, 1, 500);
    }
    assert_eq!(bench.turns(), [BreakerState::Open]);
    bench
}

impl Bench {
    fn turns(&self) -> Vec<BreakerState> {
        let turned = |effect: &Effect| match *effect {
            Effect::BreakerTurned { upstream, state } if upstream == self.upstream => Some(state),
            _ => None,
        };
        self.effects.iter().filter_map(turned).collect()
    }

    fn kinds_of_starts(&self) -> Vec<AttemptKind> {
        let kind = |write: &Write| match *write {
            Write::Start { kind, .. } => Some(kind),
            _ => None,
        };
        self.writes.iter().filter_map(kind).collect()
    }

    fn blocked(&mut self) -> (Option<WaitReason>, Option<Instant>) {
        let standing = self.dispatcher.upstream_standing(self.upstream, self.now().instant);
        (standing.blocked, standing.blocked_until)
    }
}

fn at(ms: i64) -> Option<Instant> {
    Some(Instant::from_micros(ms * 1_000))
}

#[test]
fn an_open_breaker_lets_nothing_start_and_then_one_probe() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=9).advance(4_999);
    assert_eq!(bench.launches().len(), 4);
    assert_eq!(bench.blocked(), (Some(WaitReason::BreakerOpen), at(5_000)));
    let standing = bench.dispatcher.standing(CallId::from_bits(9)).expect("it waits");
    assert_eq!((standing.wait_reason, standing.next_at), (Some(WaitReason::BreakerOpen), at(5_000)));
    bench.advance(1);
    assert_eq!(bench.launches()[4..], [(5, 1)]);
    assert_eq!(bench.kinds_of_starts()[4..], [AttemptKind::Probe]);
    bench.advance(20_000);
    assert_eq!(bench.launches().len(), 5, "nothing goes beside the probe");
    assert_eq!(bench.blocked(), (Some(WaitReason::BreakerOpen), None));
    bench.answer(5, 1, 204);
    assert_eq!(bench.turns(), [BreakerState::Open, BreakerState::Closed]);
    assert_eq!(bench.launches()[5..], [(6, 1), (7, 1), (8, 1), (9, 1)]);
    assert_eq!(bench.kinds_of_starts()[5..], [AttemptKind::First; 4]);
    let ends: Vec<AttemptKind> = bench
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Settle { attempt: Some(end), .. } => Some(end.kind),
            _ => None,
        })
        .collect();
    assert_eq!(ends.last(), Some(&AttemptKind::Probe));
}

#[test]
fn a_probe_that_fails_keeps_everybody_waiting_for_as_long_again() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=6).advance(5_000).answer(5, 1, 503);
    assert_eq!(bench.turns(), [BreakerState::Open, BreakerState::Open]);
    assert_eq!(bench.blocked(), (Some(WaitReason::BreakerOpen), at(10_000)));
    bench.advance(4_999);
    assert_eq!(bench.launches().len(), 5);
    bench.advance(1);
    assert_eq!(bench.launches()[5..], [(6, 1)]);
}

#[test]
fn a_probe_that_times_out_has_failed_and_one_that_is_cancelled_says_nothing() {
    let mut bench = opened(UpstreamPolicy { timeout: Duration::from_secs(2), ..guarded() });
    bench.offer_all(5..=7).advance(5_000).advance(2_000);
    assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(5, 1) }));
    bench.tell(Event::Aborted { attempt: attempt(5, 1), wrote: BytesSent::Maybe });
    assert_eq!(bench.turns(), [BreakerState::Open, BreakerState::Open]);
    bench.advance(5_000);
    assert_eq!(bench.launches()[5..], [(6, 1)]);
    bench.tell(Event::Aborted { attempt: attempt(6, 1), wrote: BytesSent::No });
    assert_eq!(bench.turns().len(), 3, "it could not even connect in time");
}

#[test]
fn a_call_whose_deadline_cuts_the_probe_off_says_nothing_of_the_upstream() {
    let mut bench = opened(guarded());
    let spec = CallSpec { deadline: at(6_000), ..bench.spec(5) };
    bench.offer(spec).offer_all(6..=6).advance(6_000);
    bench.tell(Event::Aborted { attempt: attempt(5, 1), wrote: BytesSent::Maybe });
    assert_eq!(bench.turns(), [BreakerState::Open]);
    assert_eq!(bench.blocked(), (Some(WaitReason::BreakerOpen), at(10_000)));
    bench.advance(4_000);
    assert_eq!(bench.launches()[5..], [(6, 1)]);
}

#[test]
fn it_holds_for_all_that_share_the_quota_and_hears_of_them_and_nobody_else_feels_it() {
    let mut bench = Bench::new(guarded());
    let sharing = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), bench.upstream);
    let other = bench.dispatcher.declare(guarded());
    for number in 1..=4 {
        let spec = CallSpec { upstream: sharing, ..bench.spec(number) };
        bench.offer(spec).answer(number, 1, 501);
    }
    assert_eq!(bench.turns(), [BreakerState::Open]);
    bench.offer_all(5..=5);
    let spec = CallSpec { upstream: other, ..bench.spec(6) };
    bench.offer(spec);
    assert_eq!(bench.launches()[4..], [(6, 1)]);
}

#[test]
fn answers_below_500_do_not_open_it_and_failures_of_ours_neither() {
    let mut bench = Bench::new(guarded());
    for number in 1..=10 {
        let spec = bench.spec(number);
        bench.offer(spec).answer(number, 1, 404);
    }
    for number in 11..=20 {
        let spec = bench.spec(number);
        let result =
            AttemptResult { status: None, error: Some(ErrorKind::Secret), bytes_sent: BytesSent::No, ..answered(0) };
        bench.offer(spec).tell(Event::Finished { attempt: attempt(number, 1), result });
    }
    assert_eq!(bench.turns(), []);
}

#[test]
fn resumed_by_hand_it_is_closed() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=6);
    bench.dispatcher.resume(bench.now(), bench.upstream, 1);
    bench.turn();
    assert_eq!(bench.turns(), [BreakerState::Open, BreakerState::Closed]);
    assert_eq!(bench.launches()[4..], [(5, 1), (6, 1)]);
}

#[test]
fn a_policy_without_a_breaker_lets_everybody_go_and_another_time_holds_at_once() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=6);
    let mut longer = guarded();
    longer.breaker = longer.breaker.map(|breaker| BreakerPolicy { open: Duration::from_secs(60), ..breaker });
    bench.dispatcher.change(bench.now(), bench.upstream, longer, crate::limit::Past::default());
    bench.turn();
    assert_eq!(bench.blocked(), (Some(WaitReason::BreakerOpen), at(60_000)));
    bench.dispatcher.change(bench.now(), bench.upstream, UpstreamPolicy::default(), crate::limit::Past::default());
    bench.turn();
    assert_eq!(bench.launches()[4..], [(5, 1), (6, 1)]);
    assert_eq!(bench.turns(), [BreakerState::Open, BreakerState::Closed]);
}

#[test]
fn a_probe_whose_start_was_not_stored_leaves_the_probe_to_another() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=5);
    bench.now_ms += 5_000;
    let seq = bench.hand_over().expect("it starts the probe");
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
    bench.advance(1_000);
    assert_eq!(bench.launches()[4..], [(5, 1)]);
    assert_eq!(bench.kinds_of_starts()[4..], [AttemptKind::Probe, AttemptKind::Probe]);
}

#[test]
fn an_open_breaker_is_not_forgotten_with_its_upstream_and_one_whose_time_is_over_is() {
    let mut bench = opened(guarded());
    let forgets = |bench: &mut Bench| bench.dispatcher.forget_upstreams(bench.now().instant, &[bench.upstream]).len();
    assert_eq!(forgets(&mut bench), 0);
    bench.advance(5_000);
    assert_eq!(forgets(&mut bench), 1);
}

#[test]
fn whoever_asks_when_a_call_starts_is_told_not_before_it_closes() {
    let mut bench = opened(guarded());
    bench.offer_all(5..=5);
    let explained = bench.dispatcher.explain(bench.now(), CallId::from_bits(5), &[], Duration::ZERO);
    assert_eq!(explained.and_then(|explained| explained.starts_at), at(5_000));
}
