//! Pruning: what is asked for and when, what goes, and what a failed commit makes of it.

use super::*;
use crate::retention::{KEY_KEPT, Retention};

const HOUR_MS: i64 = 3_600_000;

/// A bench on which calls have ended, two of them well, and pruning begins with this retention.
fn bench(succeeded: Option<Duration>, failed: Option<Duration>) -> Bench {
    let mut bench = Bench::new(UpstreamPolicy::default());
    for call in [1, 2] {
        bench.offer(bench.spec(call));
        bench.answer(call, 1, 200);
    }
    for (call, status) in [(3, 400), (4, 404)] {
        bench.offer(bench.spec(call));
        bench.answer(call, 1, status);
    }
    bench.advance(10);
    bench.effects.clear();
    let retention = Retention { succeeded, failed, ..Retention::default() };
    bench.dispatcher.set_retention(bench.now().instant, retention);
    bench.turn();
    bench
}

fn hours(hours: u64) -> Option<Duration> {
    Some(Duration::from_secs(hours * 3_600))
}

impl Bench {
    /// What is asked now, which must have been let go just once.
    fn asked(&mut self) -> StaleAsk {
        let effects = std::mem::take(&mut self.effects);
        assert_eq!(effects.iter().filter(|effect| **effect == Effect::FindStale).count(), 1);
        *self.dispatcher.stale_wanted().expect("it has just asked")
    }

    fn find(&mut self, found: &[(u128, bool)]) -> StaleAsk {
        let ask = self.asked();
        let stale = |&(call, is_held): &(u128, bool)| StaleCall {
            call: CallId::from_bits(call),
            ended_at: ask.until - Duration::from_secs(call as u64),
            is_held,
        };
        self.tell(Event::StaleFound { ask, found: found.iter().map(stale).collect() });
        ask
    }

    fn pruned(&self) -> Vec<u128> {
        let pruned = |write: &Write| matches!(write, Write::Prune { .. }).then(|| write.call().map_or(0, CallId::bits));
        self.writes.iter().filter_map(pruned).collect()
    }

    fn counts(&self) -> (u64, u64, u64) {
        let census = self.dispatcher.durable_census();
        (census.accepted, census.pruned, census.sum())
    }
}

/// Answers until it rests; what was asked for.
fn sweep(bench: &mut Bench) -> Vec<(Stale, i64)> {
    let mut asked = Vec::new();
    while bench.dispatcher.stale_wanted().is_some() {
        let ask = bench.find(&[]);
        asked.push((ask.of, (bench.now().instant.as_micros() - ask.until.as_micros()) / 1_000 / HOUR_MS));
    }
    asked
}

#[test]
fn every_kind_is_looked_for_by_its_own_age_and_then_it_rests() {
    let mut bench = bench(hours(5), hours(9));
    let keys = i64::try_from(KEY_KEPT.as_secs()).expect("short") * 1_000 / HOUR_MS;
    // There are no others.
    let ends = [(State::Succeeded, 5), (State::Failed, 9)];
    let expected: Vec<_> = [(Stale::Keys, keys)]
        .into_iter()
        .chain(ends.into_iter().map(|(state, age)| (Stale::Calls(state), age)))
        .collect();
    assert_eq!(sweep(&mut bench), expected);
    let wakeup = bench.dispatcher.next_wakeup(bench.now().instant).expect("it looks again");
    assert_eq!(wakeup.since(bench.now().instant), Duration::from_secs(60));
    bench.advance(60_000);
    assert_eq!(sweep(&mut bench), expected);
}

#[test]
fn what_is_kept_for_ever_is_not_looked_for() {
    let mut bench = bench(None, hours(1));
    assert!(sweep(&mut bench).iter().all(|(of, _)| *of != Stale::Calls(State::Succeeded)));
    let mut silent = Bench::new(UpstreamPolicy::default());
    silent.advance(HOUR_MS);
    assert_eq!(silent.dispatcher.stale_wanted(), None, "without a retention nothing is pruned");
}

#[test]
fn what_nothing_holds_goes_and_is_counted_when_that_is_durable() {
    let mut bench = bench(hours(1), hours(1));
    bench.find(&[(7, true)]);
    bench.advance(2);
    assert_eq!(bench.pruned(), [], "that was a key");
    assert!(bench.writes.contains(&Write::FreeKey { call: CallId::from_bits(7) }));
    bench.find(&[(1, false), (2, true)]);
    bench.dispatcher.turn(bench.now());
    assert_eq!(bench.counts(), (4, 0, 4));
    bench.advance(100);
    assert_eq!(bench.pruned(), [1]);
    assert_eq!(bench.counts(), (4, 1, 3));
}

#[test]
fn the_next_question_rests_on_the_batch_before_it_and_goes_on_behind_it() {
    let mut bench = bench(hours(1), hours(1));
    bench.find(&[]);
    let ask = bench.asked();
    let calls: Vec<StaleCall> = (0..ask.count)
        .map(|n| StaleCall { call: CallId::from_bits(1_000 + u128::from(n)), ended_at: ask.until, is_held: true })
        .collect();
    bench.dispatcher.handle(bench.now(), Event::StaleFound { ask, found: calls });
    bench.advance(50);
    let next = bench.asked();
    assert_eq!(
        (next.of, next.after.map(|(_, call)| call)),
        (ask.of, Some(CallId::from_bits(999 + u128::from(ask.count))))
    );

    bench.dispatcher.handle(bench.now(), Event::StaleFound { ask, found: vec![] });
    assert_eq!(bench.dispatcher.stale_wanted(), Some(&next), "an answer to an older question");
    let stale = StaleCall { call: CallId::from_bits(1), ended_at: next.until, is_held: false };
    bench.dispatcher.handle(bench.now(), Event::StaleFound { ask: next, found: vec![stale] });
    bench.now_ms += 50;
    let seq = bench.hand_over().expect("a call goes");
    assert_eq!(bench.hand_over(), None);
    assert!(!bench.effects.contains(&Effect::FindStale), "the batch is not durable yet");
    bench.dispatcher.handle(bench.now(), Event::Committed { seq });
    bench.turn();
    assert_ne!(bench.asked(), next);
}

#[test]
fn a_slow_batch_makes_the_next_one_smaller_and_later() {
    let mut bench = bench(hours(1), hours(1));
    let full = |ask: StaleAsk| {
        let stale =
            |n| StaleCall { call: CallId::from_bits(1_000 + u128::from(n)), ended_at: ask.until, is_held: true };
        Event::StaleFound { ask, found: (0..ask.count).map(stale).collect() }
    };
    let mut counts = Vec::new();
    for took_ms in [1, 1, 1, 1, 1, 1, 20, 500, 500] {
        let ask = bench.asked();
        counts.push(ask.count);
        bench.advance(took_ms);
        bench.tell(full(ask));
        let wakeup = bench.dispatcher.next_wakeup(bench.now().instant).expect("the pause ends");
        let pause = i64::try_from(wakeup.since(bench.now().instant).as_millis()).expect("short");
        assert_eq!(pause, took_ms.clamp(2, 40));
        bench.advance(pause);
    }
    assert_eq!(counts, [32, 64, 128, 256, 512, 512, 512, 512, 256]);
}

#[test]
fn a_failed_commit_keeps_the_calls_and_looks_again_later() {
    let mut bench = bench(hours(1), hours(1));
    bench.find(&[]);
    let ask = bench.asked();
    let stale = StaleCall { call: CallId::from_bits(1), ended_at: ask.until, is_held: false };
    bench.dispatcher.handle(bench.now(), Event::StaleFound { ask, found: vec![stale] });
    bench.now_ms += 50;
    let seq = bench.hand_over().expect("a call goes");
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
    assert_eq!((bench.dispatcher.census().pruned, bench.dispatcher.census().sum()), (0, 4));
    assert_eq!(bench.dispatcher.stale_wanted(), None);
    bench.writes.clear();
    bench.advance(900);
    assert_eq!(bench.pruned(), [], "it is not written again by itself");
    bench.advance(1_000);
    assert_eq!(bench.find(&[]).of, Stale::Keys, "from the beginning");
    bench.find(&[(1, false)]);
    bench.advance(100);
    assert_eq!((bench.pruned(), bench.counts()), (vec![1], (4, 1, 3)));
}

#[test]
fn nothing_is_pruned_while_it_drains_or_cannot_be_read() {
    let mut bench = bench(hours(1), hours(1));
    bench.asked();
    bench.tell(Event::StaleUnread);
    assert_eq!(bench.dispatcher.stale_wanted(), None);
    bench.advance(1_000);
    bench.find(&[]);
    bench.find(&[(1, false)]);
    let until = bench.now().instant;
    bench.tell(Event::Drain { until });
    bench.advance(HOUR_MS);
    assert_eq!(bench.pruned(), []);
}

/// Rests until it looks at the size; what it then asks for beside what is old, and has.
fn until_room(bench: &mut Bench, bytes: u64) -> StaleAsk {
    bench.advance(5_000);
    loop {
        bench.tell(Event::Stored { bytes });
        let ask = *bench.dispatcher.stale_wanted().expect("it asks on");
        if matches!(ask.of, Stale::Calls(_)) && ask.until + crate::retention::SPARED == bench.now().instant {
            return bench.asked();
        }
        bench.find(&[]);
    }
}

#[test]
fn calls_go_for_want_of_room_as_many_as_it_takes_and_the_wanted_ends_first() {
    let mut bench = bench(None, None);
    let retention = Retention { succeeded: None, failed: None, bytes_max: Some(3_000), ..Retention::default() };
    bench.effects.clear();
    bench.dispatcher.set_retention(bench.now().instant, retention);
    bench.turn();
    bench.tell(Event::Stored { bytes: 3_000 });
    assert_eq!(sweep(&mut bench).len(), 1, "there is room: only keys are looked for");
    // Of four calls of 1,500 bytes the room is for two.
    let ask = until_room(&mut bench, 6_000);
    assert_eq!((ask.of, ask.count), (Stale::Calls(State::Succeeded), 2));
    let stale = |call: u128| StaleCall { call: CallId::from_bits(call), ended_at: ask.until, is_held: false };
    bench.tell(Event::Stored { bytes: 3_700 });
    bench.tell(Event::StaleFound { ask, found: vec![stale(1), stale(2)] });
    bench.advance(50);
    assert_eq!(bench.pruned(), [1], "as many as are too many by now");
    // It is asked whether that was enough, and it was.
    let again = *bench.dispatcher.stale_wanted().expect("it asks on");
    bench.effects.clear();
    bench.tell(Event::Stored { bytes: 2_900 });
    bench.tell(Event::StaleFound { ask: again, found: vec![stale(2)] });
    bench.advance(50);
    assert_eq!((bench.pruned(), bench.counts()), (vec![1], (4, 1, 3)));
    assert_eq!(bench.dispatcher.stale_wanted(), None);
}

#[test]
fn without_a_limit_no_size_makes_a_call_go() {
    let mut bench = bench(None, None);
    bench.tell(Event::Stored { bytes: u64::MAX });
    assert_eq!(sweep(&mut bench).len(), 1);
    bench.advance(HOUR_MS);
    assert_eq!(bench.pruned(), []);
}
