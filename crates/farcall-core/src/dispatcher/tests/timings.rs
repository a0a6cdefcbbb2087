//! What the metrics are told of a call's times: how long it waited, how long its attempts took, why they were made.

use super::*;

fn waited(bench: &Bench) -> Vec<Option<Duration>> {
    let waited = |write: &Write| if let Write::Start { waited, .. } = write { Some(*waited) } else { None };
    bench.writes.iter().filter_map(waited).collect()
}

fn ended(bench: &Bench) -> Vec<(AttemptKind, Option<Duration>)> {
    let end = |write: &Write| match write {
        Write::Settle { attempt, .. } => attempt.map(|end| (end.kind, end.took)),
        _ => None,
    };
    bench.writes.iter().filter_map(end).collect()
}

const fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

#[test]
fn a_call_waits_from_when_it_might_have_gone_on() {
    let policy =
        UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), retry: constant_retry(3), ..UpstreamPolicy::default() };
    let mut bench = Bench::new(policy);
    let (first, second) = (bench.spec(1), bench.spec(2));
    let later = CallSpec { not_before: Some(Instant::from_micros(4_000_000)), ..bench.spec(3) };
    bench.offer(first).offer(later).advance(1_000).offer(second).advance(5_000);
    assert_eq!(bench.dispatcher.waiters(bench.now()).oldest_age, Duration::from_secs(5));
    bench.answer(1, 1, 200).answer(2, 1, 200).answer(3, 1, 500);
    assert_eq!(waited(&bench), [seconds(0), seconds(5), seconds(2)]);
    assert_eq!(bench.dispatcher.waiters(bench.now()).oldest_age, Duration::ZERO, "a delay is no wait for a turn");
    bench.advance(3_000);
    assert_eq!(waited(&bench)[3], seconds(0), "nor does it count as one");
}

#[test]
fn where_a_redirect_leads_a_call_it_waits_from_then_on() {
    use crate::hop::Redirect;
    let mut bench = Bench::new(UpstreamPolicy { redirects: 1, ..UpstreamPolicy::default() });
    let there =
        bench.dispatcher.declare(UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() });
    let (other, spec) = (CallSpec { upstream: there, ..bench.spec(2) }, bench.spec(1));
    bench.offer(other).offer(spec).advance(7_000);
    let redirect = Some(Redirect::To { upstream: there, method: Method::Get });
    bench.tell(Event::Finished { attempt: attempt(1, 1), result: AttemptResult { redirect, ..answered(302) } });
    bench.advance(3_000);
    assert_eq!(bench.dispatcher.waiters(bench.now()).oldest_age, Duration::from_secs(3));
    bench.answer(2, 1, 200);
    assert_eq!(waited(&bench), [seconds(0), seconds(0), seconds(3)], "the request before it is no wait");
}

#[test]
fn an_attempt_takes_what_its_report_says_or_until_it_is_known_to_be_cut_off() {
    let mut bench =
        Bench::new(UpstreamPolicy { retry: constant_retry(3), idempotent: true, ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.offer(spec).advance(700);
    let result = AttemptResult { latency: Duration::from_secs(9), ..answered(500) };
    bench.tell(Event::Finished { attempt: attempt(1, 1), result }).advance(2_000).advance(3_000);
    bench.tell(Event::Aborted { attempt: attempt(1, 2), wrote: BytesSent::Maybe });
    assert_eq!(ended(&bench), [(AttemptKind::First, seconds(9)), (AttemptKind::Retry, seconds(3))]);
}

#[test]
fn of_what_an_earlier_process_left_no_time_is_known() {
    let mut bench = Bench::new(UpstreamPolicy { idempotent: true, ..UpstreamPolicy::default() });
    let recovered = Recovered {
        spec: bench.spec(1),
        state: State::Running,
        hop: None,
        tries: Tries::default(),
        attempts: 1,
        ready_at: None,
        is_cancel_requested: false,
        open: vec![OpenAttempt { number: 1, kind: AttemptKind::First }],
    };
    let mut calls = [0; State::ALL.len()];
    calls[State::Running as usize] = 1;
    bench.dispatcher.restore_census(Census::new(1, 0, calls));
    bench.dispatcher.restore(bench.now(), recovered);
    assert_eq!(bench.dispatcher.waiters(bench.now()).oldest_age, Duration::ZERO, "it has the first place");
    bench.turn();
    assert_eq!((ended(&bench), waited(&bench)), (vec![(AttemptKind::First, None)], vec![None]));
}
