//! What a restart must not begin again: calls that were to be cancelled, and those that farcall dies of.

use super::*;

/// A dispatcher that takes over one idempotent call, whose attempt was out.
fn taken_over(recovered: Recovered) -> Bench {
    let mut bench = Bench::new(UpstreamPolicy { idempotent: true, ..UpstreamPolicy::default() });
    take_over(&mut bench, vec![recovered]);
    bench
}

fn take_over(bench: &mut Bench, recovered: Vec<Recovered>) {
    let mut calls = [0; State::ALL.len()];
    calls[State::Running as usize] = recovered.len() as u64;
    bench.dispatcher.restore_census(Census::new(recovered.len() as u64, 0, calls));
    for recovered in recovered {
        bench.dispatcher.restore(bench.now(), recovered);
    }
    bench.turn();
}

fn running(number: u128, tries: Tries) -> Recovered {
    let bench = Bench::new(UpstreamPolicy::default());
    Recovered {
        spec: bench.spec(number),
        state: State::Running,
        hop: None,
        tries,
        attempts: 1,
        ready_at: None,
        is_cancel_requested: false,
        open: vec![OpenAttempt { number: 1, kind: AttemptKind::First }],
    }
}

fn orphaned(orphaned: u32) -> Tries {
    Tries { orphaned, ..Tries::default() }
}

fn marks(bench: &Bench) -> Vec<Mark> {
    let mark = |write: &Write| if let Write::Mark { mark, .. } = write { Some(*mark) } else { None };
    bench.writes.iter().filter_map(mark).collect()
}

/// The counters that were stored last.
fn stored(bench: &Bench) -> Tries {
    let tries = |write: &Write| match write {
        Write::Settle { progress: Some(progress), .. } => Some(progress.tries),
        _ => None,
    };
    bench.writes.iter().rev().find_map(tries).expect("a progress was stored")
}

#[test]
fn a_wish_to_cancel_a_call_that_runs_is_stored_once() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec);
    for _ in 0..2 {
        bench.tell(Event::Cancel { call: CallId::from_bits(1) });
    }
    assert_eq!(marks(&bench), [Mark::CancelRequested]);
}

#[test]
fn a_call_that_was_to_be_cancelled_is_not_tried_again_after_a_restart() {
    let mut bench = taken_over(Recovered { is_cancel_requested: true, ..running(1, Tries::default()) });
    assert_eq!(bench.end_of(1), Some(State::Unknown), "nobody knows what became of its attempt");
    assert_eq!(bench.advance(60_000).launches(), []);
}

#[test]
fn a_call_that_farcall_dies_of_three_times_is_poisoned() {
    for (before, after) in [(0, 1), (1, 2)] {
        let mut bench = taken_over(running(1, orphaned(before)));
        assert_eq!((bench.end_of(1), stored(&bench).orphaned), (None, after));
        assert_eq!(bench.advance(3_000).launches(), [(1, 2)]);
    }
    let mut bench = taken_over(running(1, orphaned(2)));
    assert_eq!(bench.end_of(1), Some(State::Poisoned));
    assert_eq!(bench.advance(60_000).launches(), []);
}

#[test]
fn calls_that_farcall_may_have_died_of_go_one_after_the_other_and_others_at_once() {
    let mut bench = Bench::new(UpstreamPolicy { idempotent: true, ..UpstreamPolicy::default() });
    take_over(&mut bench, vec![running(1, orphaned(1)), running(2, orphaned(1)), running(3, orphaned(0))]);
    assert_eq!(bench.launches(), [(3, 2)], "deaths that come at once are not theirs");
    assert_eq!(bench.advance(3_100).launches(), [(3, 2), (1, 2)]);
    assert_eq!(bench.advance(2_800).launches().len(), 2);
    assert_eq!(marks(&bench), [Mark::Survived, Mark::Survived], "by then the first is known not to be it");
    assert_eq!(bench.advance(200).launches(), [(3, 2), (1, 2), (2, 2)]);
}

#[test]
fn a_death_long_after_the_attempt_began_or_after_it_ended_does_not_count() {
    let mut bench = taken_over(running(1, orphaned(1)));
    bench.advance(4_900);
    assert_eq!(marks(&bench), []);
    bench.advance(200);
    assert_eq!(marks(&bench), [Mark::Survived]);
    let mut bench = taken_over(running(1, orphaned(1)));
    bench.advance(3_000).answer(1, 2, 503).advance(2_000);
    assert_eq!((stored(&bench).orphaned, marks(&bench)), (0, vec![]));
}

#[test]
fn deaths_of_our_handling_count_over_restarts() {
    let died = AttemptResult { status: None, error: Some(ErrorKind::Internal), ..answered(0) };
    let mut bench = taken_over(running(1, Tries { deaths: 2, ..Tries::default() }));
    bench.tell(Event::Finished { attempt: attempt(1, 2), result: died });
    assert_eq!((bench.end_of(1), stored(&bench).deaths), (Some(State::Poisoned), 3));
}
