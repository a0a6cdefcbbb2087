//! Upstreams that nothing needs any more, and those that something does.

use super::*;
use crate::limit::Past;

fn limited() -> UpstreamPolicy {
    let limit = LimitSpec { count: NonZeroU32::MIN, window: Duration::from_secs(2) };
    UpstreamPolicy { limits: vec![limit], ..UpstreamPolicy::default() }
}

impl Bench {
    fn forget(&mut self) -> bool {
        let now = self.now().instant;
        let forgotten = self.dispatcher.forget_upstreams(now, &[self.upstream]);
        assert!(forgotten.is_empty() || forgotten == [self.upstream]);
        !forgotten.is_empty()
    }
}

#[test]
fn one_that_nothing_needs_goes_when_its_last_slot_is_free() {
    let mut bench = Bench::new(limited());
    bench.offer(bench.spec(1));
    assert!(!bench.forget(), "an attempt is out");
    bench.answer(1, 1, 200);
    assert!(!bench.forget(), "a slot cools");
    bench.advance(1_900);
    assert!(!bench.forget(), "a slot still cools");
    bench.advance(300);
    assert!(bench.forget());
    assert!(!bench.forget(), "it is gone already");
}

#[test]
fn its_number_names_another_that_is_as_new() {
    let mut bench = Bench::new(limited());
    bench.offer(bench.spec(1));
    bench.answer(1, 1, 200);
    bench.advance(3_000);
    let before = bench.dispatcher.upstreams_known();
    assert!(bench.forget());
    assert_eq!(bench.dispatcher.upstreams_known(), before - 1);
    let now = bench.now();
    let again = bench.dispatcher.declare_restored(UpstreamPolicy::default(), &Past::default(), now);
    assert_eq!((again, bench.dispatcher.upstreams_known()), (bench.upstream, before));
    for call in 2..6 {
        bench.offer(bench.spec(call));
    }
    assert_eq!(bench.launches().len(), 5, "the limit of the one before is no more");
}

#[test]
fn calls_that_wait_keep_it_in_memory_and_in_the_store() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let memory = Memory { calls_max: 1, lane_max: 1, lane_min: 1 };
    bench.dispatcher = Dispatcher::new(UpstreamPolicy::default(), 7).with_memory(memory);
    bench.upstream = bench.dispatcher.declare(UpstreamPolicy::default());
    let later = Some(Instant::from_micros(60_000_000));
    bench.offer(CallSpec { not_before: later, ..bench.spec(1) });
    assert!(!bench.forget(), "one sleeps");
    bench.offer(CallSpec { not_before: later, ..bench.spec(2) });
    bench.tell(Event::Cancel { call: CallId::from_bits(1) });
    assert!(!bench.dispatcher.is_loaded(CallId::from_bits(2)));
    assert!(!bench.forget(), "only the store holds one");
}

#[test]
fn a_pause_and_a_closing_keep_it() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.pause(bench.upstream, 1);
    bench.turn();
    assert!(!bench.forget(), "it is paused");
    let now = bench.now();
    bench.dispatcher.resume(now, bench.upstream, 2);
    assert!(!bench.forget(), "that it is no more paused is not handed over");
    bench.turn();
    bench.dispatcher.restore_closing(bench.upstream, Instant::from_micros(5_000_000));
    assert!(!bench.forget(), "it asked to keep away");
    bench.advance(5_000);
    assert!(bench.forget());
}

#[test]
fn what_is_on_its_way_to_the_store_keeps_it() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.offer(bench.spec(1));
    let now = bench.now();
    bench.dispatcher.handle(now, Event::Finished { attempt: attempt(1, 1), result: answered(200) });
    assert!(!bench.forget(), "its outcome is not handed over");
    let seq = bench.hand_over().expect("an outcome is written");
    assert!(!bench.forget(), "its outcome is not durable");
    bench.dispatcher.handle(now, Event::Committed { seq });
    assert!(bench.forget());
}

#[test]
fn one_that_others_call_back_goes_with_nobody() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let receiver = bench.dispatcher.declare(UpstreamPolicy::default());
    let webhooks = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), receiver);
    bench.dispatcher.pause(bench.upstream, 1);
    bench.offer(CallSpec { callback: Some(webhooks), ..bench.spec(1) });
    let now = bench.now().instant;
    assert!(bench.dispatcher.forget_upstreams(now, &[receiver, webhooks]).is_empty(), "a call is to be told of there");
    bench.tell(Event::Cancel { call: CallId::from_bits(1) });
    let inserted = bench.writes.iter().find_map(|write| match write {
        Write::Insert { call, callback: Some(_), .. } => Some(*call),
        _ => None,
    });
    let callback = inserted.expect("the end is told").bits();
    assert!(bench.dispatcher.forget_upstreams(now, &[receiver, webhooks]).is_empty(), "it is being told");
    bench.answer(callback, 1, 200);
    assert!(bench.dispatcher.forget_upstreams(now, &[receiver]).is_empty(), "it goes with all that share its quota");
    assert_eq!(bench.dispatcher.forget_upstreams(now, &[receiver, webhooks]), [receiver, webhooks]);
}

#[test]
fn a_hundred_thousand_one_after_another_take_the_memory_of_few() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let mut known = vec![bench.upstream];
    for number in 1..=100_000 {
        bench.upstream = bench.dispatcher.declare(UpstreamPolicy::default());
        known.push(bench.upstream);
        bench.offer(bench.spec(number)).answer(number, 1, 200);
        if number.is_multiple_of(1_000) {
            let now = bench.now().instant;
            let forgotten = bench.dispatcher.forget_upstreams(now, &known);
            assert_eq!(forgotten.len(), known.len());
            known.clear();
        }
        bench.writes.clear();
        bench.effects.clear();
        assert!(bench.upstream.0 <= 1_100, "numbers are used again");
    }
}
