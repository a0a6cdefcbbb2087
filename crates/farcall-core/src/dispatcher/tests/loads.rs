//! Loads that take their time: what they read of a call may be out of date when it comes.

use super::*;

/// The call's number, and from when on it may go on.
fn sleeper(bench: &Bench, number: u128, secs: i64, deadline_ms: Option<i64>) -> CallSpec {
    CallSpec {
        not_before: Some(Instant::from_micros(secs * 1_000_000)),
        deadline: deadline_ms.map(|ms| Instant::from_micros(ms * 1_000)),
        ..bench.spec(number)
    }
}

fn read(spec: CallSpec) -> Recovered {
    Recovered {
        state: State::Scheduled,
        hop: None,
        tries: Tries::default(),
        attempts: 0,
        ready_at: spec.not_before,
        is_cancel_requested: false,
        open: Vec::new(),
        spec,
    }
}

/// The call ends in memory, and its place is the store's alone by the time at which the answer comes.
#[test]
fn a_call_that_ended_while_it_was_read_does_not_end_again() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let memory = Memory { calls_max: 100, lane_max: 2, lane_min: 1 };
    bench.dispatcher = Dispatcher::new(UpstreamPolicy::default(), 7).with_memory(memory);
    bench.upstream = bench.dispatcher.declare(UpstreamPolicy::default());
    // Else they would end at once: their deadlines come before their times.
    bench.dispatcher.restore_pause(bench.upstream);
    let near = sleeper(&bench, 1, 500, None);
    let (ends_here, ends_there) = (sleeper(&bench, 2, 1_000, Some(20)), sleeper(&bench, 3, 2_000, Some(10)));
    for spec in [&near, &ends_here, &ends_there] {
        bench.offer(spec.clone());
    }
    assert!(!bench.dispatcher.is_loaded(ends_there.id), "the last one is left to the store");
    bench.advance(15);
    assert_eq!(bench.dispatcher.wanted().map(|wanted| wanted.deadlines > 0), Some(true));
    let deadlines = vec![read(ends_there), read(ends_here.clone())];
    bench.advance(10);
    assert_eq!(bench.end_of(2), Some(State::Expired));
    // Nearer ones come, and those that lay before it are left to the store.
    for (number, secs) in [(4, 100), (5, 50)] {
        bench.offer(sleeper(&bench, number, secs, None));
    }
    assert!(!bench.dispatcher.is_loaded(near.id), "it does not fit any more");

    bench.tell(Event::Loaded(Box::new(Loaded { deadlines, ..Loaded::default() })));
    let ends = |call: CallId| {
        let is_end = |write: &&Write| matches!(write, Write::Settle { call: settled, .. } if *settled == call);
        bench.writes.iter().filter(is_end).count()
    };
    assert_eq!((ends(ends_here.id), bench.end_of(3)), (1, Some(State::Expired)));
    let census = bench.dispatcher.durable_census();
    assert_eq!((census.accepted, census.sum(), census.calls(State::Expired)), (5, 5, 2));
}
