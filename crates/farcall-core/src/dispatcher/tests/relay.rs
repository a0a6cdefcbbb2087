//! Answers that are given on as they come: which head is the answer, and what a body comes to.

use super::*;
use crate::call::Durability;

fn waited_for(bench: &Bench, number: u128) -> CallSpec {
    CallSpec { durability: Durability::Ephemeral, source: Source::Proxy, ..bench.spec(number) }
}

fn with_retries(max: u32) -> UpstreamPolicy {
    UpstreamPolicy { retry_ephemeral: constant_retry(max), ..UpstreamPolicy::default() }
}

impl Bench {
    fn head(&mut self, call: u128, number: u32, status: u16) -> &mut Self {
        self.tell(Event::Answered { attempt: attempt(call, number), result: answered(status) })
    }

    /// Calls whose answers are given on, and calls of which they are not.
    fn rulings(&self) -> (Vec<u128>, Vec<u128>) {
        let of = |wanted: fn(&Effect) -> Option<AttemptId>| {
            self.effects.iter().filter_map(wanted).map(|attempt| attempt.call.bits()).collect()
        };
        let relayed = of(|effect| if let Effect::Relay { attempt } = effect { Some(*attempt) } else { None });
        let withheld = of(|effect| if let Effect::Withhold { attempt } = effect { Some(*attempt) } else { None });
        (relayed, withheld)
    }

    fn end_told(&self, call: u128) -> Option<(State, Option<ErrorKind>)> {
        self.unstored.iter().find_map(|write| match write {
            Write::Settle { call: settled, progress: Some(progress), .. } if settled.bits() == call => {
                progress.state.is_end().then_some((progress.state, progress.error))
            }
            _ => None,
        })
    }
}

#[test]
fn the_answer_is_the_one_after_which_nothing_follows() {
    let mut bench = Bench::new(with_retries(1));
    let (good, bad, wrong) = (waited_for(&bench, 1), waited_for(&bench, 2), waited_for(&bench, 3));
    bench.offer(good).offer(bad).offer(wrong).head(1, 1, 200).head(2, 1, 503).head(3, 1, 404);
    assert_eq!(bench.rulings(), (vec![1, 3], vec![2]));
    bench.answer(1, 1, 200).answer(2, 1, 503).answer(3, 1, 404);
    assert_eq!(bench.end_told(1), Some((State::Succeeded, None)));
    assert_eq!(bench.end_told(3), Some((State::Failed, Some(ErrorKind::HttpStatus))));
    bench.advance(2_000).head(2, 2, 503);
    assert_eq!(bench.rulings(), (vec![1, 3, 2], vec![2]), "the last retry brings the answer, whatever it is");
}

#[test]
fn a_body_that_breaks_off_is_a_failure_and_nothing_is_tried_again() {
    let mut bench = Bench::new(with_retries(3));
    let spec = CallSpec { method: Method::Get, ..waited_for(&bench, 1) };
    let result = AttemptResult { error: Some(ErrorKind::Truncated), ..answered(200) };
    bench.offer(spec).head(1, 1, 200).tell(Event::Finished { attempt: attempt(1, 1), result }).advance(60_000);
    assert_eq!(bench.end_told(1), Some((State::Failed, Some(ErrorKind::Truncated))));
    assert_eq!(bench.launches().len(), 1);
}

#[test]
fn a_body_may_take_longer_than_an_attempt_but_not_longer_than_the_call() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let deadline = Some(Instant::from_micros(90_000_000));
    let (slow, bound) = (waited_for(&bench, 1), CallSpec { deadline, ..waited_for(&bench, 2) });
    bench.offer(slow).offer(bound).head(1, 1, 200).head(2, 1, 200).advance(89_999);
    let aborts = |bench: &Bench| bench.effects.iter().filter(|effect| matches!(effect, Effect::Abort { .. })).count();
    assert_eq!(aborts(&bench), 0);
    bench.advance(1);
    assert_eq!(aborts(&bench), 1);
    bench.tell(Event::Aborted { attempt: attempt(2, 1), wrote: BytesSent::Maybe });
    assert_eq!(bench.end_told(2), Some((State::Expired, Some(ErrorKind::Deadline))));
    bench.answer(1, 1, 200);
    assert_eq!(bench.end_told(1), Some((State::Succeeded, None)));
}

#[test]
fn an_answer_given_on_closes_its_upstream_like_any_other() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let (first, second) = (waited_for(&bench, 1), waited_for(&bench, 2));
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    bench.offer(first).tell(Event::Answered { attempt: attempt(1, 1), result: throttled });
    bench.tell(Event::Finished { attempt: attempt(1, 1), result: throttled }).offer(second).advance(8_999);
    assert_eq!((bench.rulings().0, bench.launches().len()), (vec![1], 1));
    bench.advance(1);
    assert_eq!(bench.launches().len(), 2);
}

#[test]
fn nobody_is_answered_who_has_gone() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = waited_for(&bench, 1);
    bench.offer(spec).tell(Event::Abandoned { call: CallId::from_bits(1) }).head(1, 1, 200).head(7, 1, 200);
    assert_eq!(bench.rulings(), (vec![], vec![]));
}
