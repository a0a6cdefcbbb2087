//! Deadlines that cannot be met: calls that end or are refused at once, and those that are not.

use super::*;
use crate::breaker::BreakerPolicy;
use crate::call::Durability;

fn at(ms: i64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

fn limited(count: u32, seconds: u64) -> UpstreamPolicy {
    let limits =
        vec![LimitSpec { count: NonZeroU32::new(count).expect("not zero"), window: Duration::from_secs(seconds) }];
    UpstreamPolicy { limits, jitter: Duration::ZERO, ..UpstreamPolicy::default() }
}

impl Bench {
    fn due(&self, number: u128, deadline_ms: i64) -> CallSpec {
        CallSpec { deadline: Some(at(deadline_ms)), ..self.spec(number) }
    }

    fn ephemeral(&self, number: u128, deadline_ms: i64) -> CallSpec {
        CallSpec { durability: Durability::Ephemeral, ..self.due(number, deadline_ms) }
    }

    fn refusals(&self) -> Vec<(u128, WaitReason, Duration)> {
        let refused = |effect: &Effect| match *effect {
            Effect::Refused { call, refusal } => Some((call.bits(), refusal.reason, refusal.retry_after)),
            _ => None,
        };
        self.effects.iter().filter_map(refused).collect()
    }
}

#[test]
fn a_call_that_the_limits_leave_no_time_for_ends_at_once_and_takes_no_slot() {
    let mut bench = Bench::new(limited(1, 60));
    let first = bench.spec(1);
    bench.offer(first).answer(1, 1, 200);
    let (late, in_time) = (bench.due(2, 60_059), bench.due(3, 60_061));
    bench.offer(late).offer(in_time);
    assert_eq!((bench.end_of(2), bench.end_of(3)), (Some(State::Expired), None));
    bench.advance(60_060);
    assert_eq!(bench.launches(), [(1, 1), (3, 1)], "the slot is free in a thousandth more than a minute");
}

#[test]
fn those_that_wait_before_it_count_and_those_that_will_have_expired_do_not() {
    let mut bench = Bench::new(limited(1, 10));
    let first = bench.spec(1);
    bench.offer(first).answer(1, 1, 200);
    let (waits, expires) = (bench.spec(2), bench.due(3, 20_000));
    bench.offer(waits);
    // Slots are free at 10.01 s, 20.02 s, 30.03 s.
    bench.offer(expires);
    assert_eq!(bench.end_of(3), Some(State::Expired));
    let second = bench.due(4, 20_021);
    bench.offer(second);
    assert_eq!(bench.end_of(4), None);
    let third = bench.due(5, 30_000);
    bench.offer(third);
    assert_eq!(bench.end_of(5), Some(State::Expired), "two go before it");
}

#[test]
fn of_slots_that_are_out_nobody_knows_so_nobody_is_turned_away_for_them() {
    let mut bench = Bench::new(limited(1, 60));
    let (first, second) = (bench.spec(1), bench.due(2, 1_000));
    bench.offer(first).offer(second);
    assert_eq!(bench.end_of(2), None);
    let result =
        AttemptResult { status: None, error: Some(ErrorKind::Secret), bytes_sent: BytesSent::No, ..answered(0) };
    bench.tell(Event::Finished { attempt: attempt(1, 1), result });
    assert_eq!(bench.launches(), [(1, 1), (2, 1)], "it sent nothing");
}

#[test]
fn another_priority_or_tenant_is_not_counted_and_a_pause_turns_nobody_away() {
    let mut bench = Bench::new(limited(1, 10));
    let (first, waits) = (bench.spec(1), bench.spec(2));
    bench.offer(first).answer(1, 1, 200).offer(waits);
    let other = CallSpec { tenant: TenantId(9), ..bench.due(3, 10_011) };
    bench.offer(other);
    assert_eq!(bench.end_of(3), None, "its tenant may have the next turn");
    bench.dispatcher.pause(bench.upstream, 1);
    let paused = bench.due(4, 1);
    bench.offer(paused);
    assert_eq!(bench.end_of(4), None);
}

#[test]
fn what_is_not_to_start_before_its_deadline_and_what_is_told_to_keep_away_ends_at_once() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let never = CallSpec { not_before: Some(at(2_000)), ..bench.due(1, 2_000) };
    bench.offer(never);
    assert_eq!(bench.end_of(1), Some(State::Expired));
    let first = bench.spec(2);
    let result = AttemptResult { retry_after: Some(Duration::from_secs(30)), ..answered(429) };
    bench.offer(first).tell(Event::Finished { attempt: attempt(2, 1), result });
    let (late, in_time) = (bench.due(3, 30_000), bench.due(4, 30_001));
    bench.offer(late).offer(in_time);
    assert_eq!((bench.end_of(3), bench.end_of(4)), (Some(State::Expired), None));
}

#[test]
fn a_retry_that_would_come_after_the_deadline_is_not_waited_for() {
    let retry = RetryPolicy {
        backoff: Backoff::Constant(Duration::from_secs(5)),
        jitter: Jitter::None,
        ..RetryPolicy::durable()
    };
    let mut bench = Bench::new(UpstreamPolicy { retry, ..UpstreamPolicy::default() });
    let (late, in_time) = (bench.due(1, 5_000), bench.due(2, 5_001));
    bench.offer(late).offer(in_time).answer(1, 1, 503).answer(2, 1, 503);
    assert_eq!((bench.end_of(1), bench.end_of(2)), (Some(State::Expired), None));
    bench.advance(5_000);
    assert_eq!(bench.launches().last(), Some(&(2, 2)));
}

#[test]
fn whoever_waits_on_a_connection_is_told_what_holds_and_when_to_come_again() {
    let mut bench = Bench::new(limited(1, 60));
    let first = bench.spec(1);
    bench.offer(first).answer(1, 1, 200);
    let (late, in_time, endless) =
        (bench.ephemeral(2, 10_000), bench.ephemeral(3, 61_000), CallSpec { deadline: None, ..bench.ephemeral(4, 0) });
    bench.offer(late).offer(in_time).offer(endless);
    assert_eq!(bench.refusals(), [(2, WaitReason::RateLimit, Duration::from_micros(60_060_000))]);
    bench.advance(60_060);
    assert_eq!(bench.launches().last(), Some(&(3, 1)));
}

#[test]
fn nobody_waits_on_a_connection_for_an_open_breaker_nor_for_its_probe() {
    let breaker = BreakerPolicy { calls: NonZeroU32::MIN, open: Duration::from_secs(5), ..BreakerPolicy::default() };
    let policy = UpstreamPolicy {
        breaker: Some(breaker),
        concurrency: NonZeroU32::new(1),
        retry: RetryPolicy::none(),
        ..UpstreamPolicy::default()
    };
    let mut bench = Bench::new(policy);
    let endless = |bench: &Bench, number| CallSpec { deadline: None, ..bench.ephemeral(number, 0) };
    let (first, waits) = (bench.spec(1), endless(&bench, 2));
    bench.offer(first).offer(waits).answer(1, 1, 500);
    assert_eq!(bench.refusals(), [(2, WaitReason::BreakerOpen, Duration::from_secs(5))], "it waited for a place");
    bench.advance(2_000);
    let soon = endless(&bench, 3);
    bench.offer(soon);
    assert_eq!(bench.refusals()[1..], [(3, WaitReason::BreakerOpen, Duration::from_secs(3))]);
    bench.advance(3_000);
    let (probe, beside) = (endless(&bench, 4), endless(&bench, 5));
    bench.offer(probe).offer(beside);
    assert_eq!(bench.refusals()[2..], [(5, WaitReason::BreakerOpen, Duration::from_secs(1))]);
    assert_eq!(bench.launches().last(), Some(&(4, 1)));
    bench.answer(4, 1, 200);
    let (goes, durable) = (endless(&bench, 6), bench.spec(7));
    bench.offer(goes).offer(durable);
    assert_eq!((bench.refusals().len(), bench.launches().last()), (3, Some(&(6, 1))));
}
