//! What ephemeral attempts take of windows that outlast a restart is stored before they are let go; nothing else of them is.

use super::*;
use crate::call::Durability;
use crate::limit::{Ask, Past, PastGrant};

fn two_in_a_minute() -> UpstreamPolicy {
    let count = NonZeroU32::new(2).expect("not zero");
    let limits = vec![LimitSpec { count, window: Duration::from_secs(60) }];
    UpstreamPolicy { limits, ..UpstreamPolicy::default() }
}

fn waited_for(bench: &Bench, number: u128) -> CallSpec {
    CallSpec { durability: Durability::Ephemeral, source: Source::Proxy, ..bench.spec(number) }
}

fn at(ms: i64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

#[test]
fn the_launch_waits_until_its_grant_is_stored() {
    let mut bench = Bench::new(two_in_a_minute());
    let spec = waited_for(&bench, 1);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let turn = bench.dispatcher.turn(bench.now());
    assert!(matches!(turn.writes[..], [Write::Grant { cost: 1, .. }]), "{:?}", turn.writes);
    assert_eq!(turn.effects, []);
    bench.dispatcher.handle(bench.now(), Event::Committed { seq: turn.seq });
    assert!(matches!(bench.dispatcher.turn(bench.now()).effects[..], [Effect::Launch { .. }]));
}

#[test]
fn its_end_goes_with_the_next_write_or_after_a_second() {
    let mut bench = Bench::new(two_in_a_minute());
    let (first, second) = (waited_for(&bench, 1), waited_for(&bench, 2));
    bench.offer(first).tell(Event::FirstByte { attempt: attempt(1, 1), at: at(0) }).answer(1, 1, 200).advance(10);
    assert_eq!(bench.writes.len(), 1, "nobody waits for it: {:?}", bench.writes);
    bench.offer(second);
    let ends = |bench: &Bench| -> Vec<(u128, Option<Instant>)> {
        let end = |write: &Write| match *write {
            Write::GrantEnd { attempt, proved_at, .. } => Some((attempt.call.bits(), proved_at)),
            _ => None,
        };
        bench.writes.iter().filter_map(end).collect()
    };
    assert_eq!(ends(&bench), [(1, Some(at(0)))]);
    let result = AttemptResult { bytes_sent: BytesSent::No, error: Some(ErrorKind::Connect), ..answered(0) };
    bench.tell(Event::Finished { attempt: attempt(2, 1), result });
    assert!(!bench.dispatcher.is_settled());
    bench.advance(999);
    assert_eq!(ends(&bench).len(), 1);
    bench.advance(1);
    assert_eq!(ends(&bench), [(1, Some(at(0))), (2, None)]);
    assert!(bench.dispatcher.is_settled());
}

#[test]
fn a_grant_that_was_not_stored_is_taken_back_and_the_call_waits() {
    let mut bench = Bench::new(two_in_a_minute());
    let (first, gone) = (waited_for(&bench, 1), waited_for(&bench, 2));
    for spec in [first, gone] {
        bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    }
    let seq = bench.hand_over().expect("grants");
    bench.tell(Event::Abandoned { call: CallId::from_bits(2) });
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
    bench.turn();
    let used = |bench: &mut Bench| {
        let now = bench.now().instant;
        bench.dispatcher.upstream_standing(bench.upstream, now).limits[0].used
    };
    assert_eq!((bench.launches(), used(&mut bench)), (vec![], 0));
    bench.advance(1_000);
    assert_eq!((bench.launches(), used(&mut bench)), (vec![(1, 1)], 1));
    bench.answer(1, 1, 200);
    assert_eq!(bench.dispatcher.ephemeral_census().sum(), 0);
}

#[test]
fn nobody_is_left_waiting_for_a_store_when_farcall_stops() {
    let mut bench = Bench::new(two_in_a_minute());
    let spec = waited_for(&bench, 1);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let seq = bench.hand_over().expect("a grant");
    bench.dispatcher.handle(bench.now(), Event::Drain { until: at(1_000) });
    bench.dispatcher.handle(bench.now(), Event::CommitFailed { seq });
    bench.turn();
    assert!(bench.dispatcher.is_drained());
    assert_eq!(bench.dispatcher.ephemeral_census().sum(), 0);
}

#[test]
fn what_an_earlier_process_left_behind_counts_from_now() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let left = PastGrant { cost: 1, proved_at: None, open: Some(attempt(9, 1)) };
    let ended = PastGrant { cost: 1, proved_at: Some(at(-30_000)), open: None };
    let ask = Ask::Latest { since: at(-61_000), count: 2 };
    let past = Past { certain_since: Instant::MIN, windows: vec![(ask, vec![left, ended])] };
    bench.upstream = bench.dispatcher.declare_restored(two_in_a_minute(), &past, bench.now());
    bench.dispatcher.restore_grants(bench.now());
    let (first, second) = (waited_for(&bench, 1), waited_for(&bench, 2));
    bench.offer(first).offer(second);
    assert_eq!(bench.writes, [Write::GrantsLeft { proved_at: at(100) }]);
    bench.advance(30_059);
    assert_eq!(bench.launches(), []);
    bench.advance(1);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.advance(30_100);
    assert_eq!(bench.launches(), [(1, 1), (2, 1)]);
}
