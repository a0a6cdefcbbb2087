//! What answers say of how much remains: what starts then, what waits for which reason, what is stored, what opens it.

use super::*;
use crate::remaining::{Bound, Remaining};

fn said(remaining: u64, seconds: u64) -> Option<Remaining> {
    Remaining::of([Bound::new(remaining, Duration::from_secs(seconds))])
}

impl Bench {
    pub(super) fn offer_all(&mut self, numbers: std::ops::RangeInclusive<u128>) -> &mut Self {
        for number in numbers {
            let spec = self.spec(number);
            self.offer(spec);
        }
        self
    }

    /// The first attempt of this call is answered, a millisecond later.
    fn told(&mut self, call: u128, status: u16, quota: Option<Remaining>) -> &mut Self {
        self.advance(1);
        self.tell(Event::Finished { attempt: attempt(call, 1), result: AttemptResult { quota, ..answered(status) } })
    }

    fn started(&self) -> Vec<u128> {
        self.launches().into_iter().map(|(call, _)| call).collect()
    }

    fn waits_as(&self, call: u128) -> (Option<WaitReason>, Option<i64>) {
        let standing = self.dispatcher.standing(CallId::from_bits(call)).expect("it is in memory");
        (standing.wait_reason, standing.next_at.map(|at| at.as_micros() / 1_000))
    }

    fn closings(&self) -> Vec<i64> {
        let until = |write: &Write| match write {
            Write::Close { until, .. } => Some(until.as_micros() / 1_000),
            _ => None,
        };
        self.writes.iter().filter_map(until).collect()
    }
}

#[test]
fn no_more_is_started_than_remains() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=1).told(1, 200, said(3, 60)).advance(1);
    bench.offer_all(2..=9);
    assert_eq!(bench.started(), [1, 2, 3, 4]);
    assert_eq!(bench.waits_as(5), (Some(WaitReason::RateLimit), Some(60_001)));
    bench.told(2, 200, said(2, 60));
    assert_eq!(bench.started(), [1, 2, 3, 4], "the two that are out may be the two that remain");
    bench.told(3, 200, said(1, 60)).told(4, 200, said(0, 60));
    assert_eq!(bench.started(), [1, 2, 3, 4]);
    bench.advance(60_000);
    assert_eq!(bench.started(), [1, 2, 3, 4, 5, 6, 7, 8, 9], "nobody said anything of the next window");
}

#[test]
fn what_others_take_of_the_quota_is_not_started() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=2).told(1, 200, said(100, 60)).told(2, 200, said(1, 60)).advance(1).offer_all(3..=5);
    assert_eq!(bench.started(), [1, 2, 3], "somebody else has used 98");
}

#[test]
fn it_never_lets_more_start_than_the_limits() {
    let minute = Duration::from_secs(60);
    let limits = vec![LimitSpec { count: NonZeroU32::new(2).expect("two"), window: minute }];
    let mut bench = Bench::new(UpstreamPolicy { limits, ..UpstreamPolicy::default() });
    bench.offer_all(1..=1).told(1, 200, said(1_000, 60)).offer_all(2..=5);
    assert_eq!(bench.started(), [1, 2]);
    assert_eq!(bench.waits_as(3).0, Some(WaitReason::RateLimit));
}

#[test]
fn nothing_remaining_is_a_cooldown_for_everybody_that_is_stored_and_that_resuming_ends() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let sharing = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), bench.upstream);
    bench.offer_all(1..=2).told(1, 200, said(0, 60)).offer_all(3..=3);
    let shared = CallSpec { upstream: sharing, ..bench.spec(4) };
    bench.offer(shared);
    assert_eq!((bench.started(), bench.closings()), (vec![1, 2], vec![60_001]));
    assert_eq!(bench.waits_as(3), (Some(WaitReason::Cooldown), Some(60_001)));
    assert_eq!(bench.waits_as(4), (Some(WaitReason::Cooldown), Some(60_001)));
    bench.told(2, 200, said(0, 59));
    assert_eq!(bench.closings(), [60_001], "it is closed longer already");
    bench.dispatcher.resume(bench.now(), bench.upstream, 1);
    assert_eq!(bench.turn().started(), [1, 2, 3, 4]);
}

#[test]
fn whoever_is_turned_away_because_nothing_remains_waits_without_using_up_a_retry() {
    let retry = RetryPolicy { max: 1, ..RetryPolicy::durable() };
    let mut bench = Bench::new(UpstreamPolicy { retry, ..UpstreamPolicy::default() });
    bench.offer_all(1..=1).told(1, 429, said(0, 60));
    assert_eq!(bench.outcomes(), [AttemptOutcome::Throttled]);
    assert_eq!(bench.waits_as(1), (Some(WaitReason::Cooldown), Some(60_001)));
    bench.advance(60_000).answer(1, 2, 500).advance(10_000);
    assert_eq!(bench.launches(), [(1, 1), (1, 2), (1, 3)], "its retry is still there");
}

#[test]
fn retry_after_is_believed_rather_than_the_reset() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=1).advance(1);
    let wait = Some(Duration::from_secs(5));
    let result = AttemptResult { retry_after: wait, quota: said(0, 60), ..answered(429) };
    bench.tell(Event::Finished { attempt: attempt(1, 1), result });
    assert_eq!(bench.closings(), [5_001]);
    bench.offer_all(2..=2).advance(5_000);
    assert_eq!(bench.launches(), [(1, 1), (2, 1), (1, 2)]);
}

#[test]
fn a_foolish_reset_holds_nobody_up_for_longer_than_the_longest_retry_after() {
    let retry = RetryPolicy { retry_after_max: Duration::from_secs(30), ..RetryPolicy::durable() };
    let mut bench = Bench::new(UpstreamPolicy { retry, ..UpstreamPolicy::default() });
    bench.offer_all(1..=2).told(1, 200, said(1, 30_000_000)).told(2, 200, said(0, 30_000_000)).offer_all(3..=3);
    assert_eq!(bench.waits_as(3), (Some(WaitReason::Cooldown), Some(30_002)));
    bench.advance(30_000);
    assert_eq!(bench.started(), [1, 2, 3]);
}

#[test]
fn an_attempt_that_sent_nothing_takes_nothing_of_what_remains() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=1).told(1, 200, said(1, 60)).offer_all(2..=3);
    assert_eq!(bench.started(), [1, 2]);
    let refused =
        AttemptResult { status: None, error: Some(ErrorKind::Connect), bytes_sent: BytesSent::No, ..answered(0) };
    bench.tell(Event::Finished { attempt: attempt(2, 1), result: refused });
    assert_eq!(bench.started(), [1, 2, 3]);
}

#[test]
fn a_start_that_is_undone_takes_nothing_of_what_remains() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=1).told(1, 200, said(1, 60));
    let spec = bench.spec(2);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let seq = bench.hand_over().expect("it is written");
    bench.tell(Event::CommitFailed { seq }).advance(5_000).offer_all(3..=4);
    assert_eq!(bench.started(), [1, 3]);
}

#[test]
fn an_upstream_that_told_is_not_forgotten_before_that_is_out_of_date() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer_all(1..=1).told(1, 200, said(5, 60));
    let ids = [bench.upstream];
    assert_eq!(bench.dispatcher.forget_upstreams(bench.now().instant, &ids), []);
    bench.advance(60_000);
    assert_eq!(bench.dispatcher.forget_upstreams(bench.now().instant, &ids), ids);
}
