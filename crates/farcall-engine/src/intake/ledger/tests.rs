//! The rules of the inbox on a virtual clock.

use super::*;

const SETTLE: Duration = Duration::from_secs(2);
const NAME: &[u8] = b"order.json";

fn at(millis: i64) -> Now {
    // The two clocks differ, as they do.
    Now {
        instant: Instant::from_micros(1_000_000_000 + millis * 1_000),
        timestamp: Timestamp::from_micros(7_000_000_000 + millis * 1_000),
    }
}

/// A file of one version, changed at a time.
fn stamp(version: u64, changed_millis: i64) -> Stamp {
    let changed_ns = at(changed_millis).timestamp.as_micros() * 1_000;
    Stamp { device: 1, inode: 2, changed_ns, modified_ns: changed_ns, size: version, has_other_names: false }
}

struct Bench {
    ledger: Ledger,
}

impl Bench {
    fn new() -> Self {
        Self { ledger: Ledger::new(SETTLE) }
    }

    fn note(&mut self, millis: i64, change: Change) {
        self.ledger.note(NAME, change, at(millis).instant);
    }

    fn judge(&mut self, millis: i64, sight: Sight) -> Decision {
        self.ledger.judge(NAME, sight, at(millis))
    }

    /// When the name is looked at next, in milliseconds.
    fn next_look(&self) -> Option<i64> {
        self.ledger.next_look().map(|look| (look.as_micros() - 1_000_000_000) / 1_000)
    }

    fn is_due(&mut self, millis: i64) -> bool {
        !self.ledger.due(at(millis).instant, 10).is_empty()
    }
}

#[test]
fn a_file_renamed_into_place_or_closed_is_looked_at_and_offered_at_once() {
    for change in [Change::MovedIn, Change::Closed] {
        let mut bench = Bench::new();
        bench.note(0, change);
        assert!(bench.is_due(0), "{change:?}");
        assert_eq!(bench.judge(0, Sight::Valid(stamp(9, 0))), Decision::Offer);
        bench.ledger.forget(NAME);
        assert_eq!((bench.ledger.len(), bench.next_look()), (0, None));
    }
}

#[test]
fn a_file_being_written_is_left_alone_however_long_it_takes() {
    let mut bench = Bench::new();
    bench.note(0, Change::Created);
    bench.note(1, Change::Written);
    assert!(!bench.is_due(60_000));
    assert!(!bench.ledger.meets(NAME), "a scan leaves it alone too");
    assert_eq!(bench.judge(60_000, Sight::Valid(stamp(5, 1))), Decision::Wait, "even if it parses");
    assert_eq!(bench.judge(60_000, Sight::Invalid(stamp(5, 1))), Decision::Wait);
    bench.note(70_000, Change::Closed);
    assert!(bench.is_due(70_000));
    assert_eq!(bench.judge(70_000, Sight::Valid(stamp(9, 70_000))), Decision::Offer);
}

#[test]
fn a_new_file_without_contents_waits_for_its_writer() {
    let mut bench = Bench::new();
    bench.note(0, Change::Created);
    assert_eq!(bench.next_look(), Some(20));
    assert!(bench.is_due(20));
    assert_eq!(bench.judge(20, Sight::Invalid(stamp(0, 0))), Decision::Wait);
    assert_eq!(bench.next_look(), None, "its closing will be noticed");
    bench.note(9_000, Change::Closed);
    assert_eq!(bench.judge(9_000, Sight::Invalid(stamp(0, 0))), Decision::Wait);
    assert_eq!(bench.next_look(), Some(11_000), "an empty file is no call");
    assert_eq!(bench.judge(11_000, Sight::Invalid(stamp(0, 0))), Decision::Reject);
}

#[test]
fn a_linked_file_is_taken_without_being_closed() {
    let mut bench = Bench::new();
    bench.note(0, Change::Created);
    assert_eq!(bench.judge(20, Sight::Valid(stamp(9, -5_000))), Decision::Offer);
    bench.note(30, Change::Created);
    let empty = Stamp { has_other_names: true, ..stamp(0, -5_000) };
    assert_eq!(bench.judge(50, Sight::Invalid(empty)), Decision::Wait);
    assert_eq!(bench.next_look(), Some(2_030));
}

#[test]
fn what_does_not_parse_is_rejected_when_it_has_settled() {
    let mut bench = Bench::new();
    bench.note(0, Change::MovedIn);
    assert_eq!(bench.judge(1, Sight::Invalid(stamp(5, 0))), Decision::Wait);
    assert_eq!(bench.next_look(), Some(2_000));
    assert!(!bench.is_due(1_999));
    assert!(bench.is_due(2_000));
    assert_eq!(bench.judge(2_000, Sight::Invalid(stamp(5, 0))), Decision::Reject);
}

#[test]
fn a_change_begins_the_settling_anew_with_or_without_a_notification() {
    let mut bench = Bench::new();
    bench.note(0, Change::MovedIn);
    bench.judge(0, Sight::Invalid(stamp(5, 0)));
    bench.note(1_500, Change::Closed);
    assert_eq!(bench.judge(1_500, Sight::Invalid(stamp(6, 1_500))), Decision::Wait);
    assert_eq!(bench.next_look(), Some(3_500));
    assert_eq!(bench.judge(3_500, Sight::Invalid(stamp(7, 3_000))), Decision::Wait, "changed unnoticed");
    assert_eq!(bench.next_look(), Some(5_500));
    assert_eq!(bench.judge(5_500, Sight::Invalid(stamp(7, 3_000))), Decision::Reject);
}

#[test]
fn files_found_by_a_scan_settle_from_their_own_time() {
    let check = |changed_millis: i64, decision: Decision, next_look: Option<i64>| {
        let mut bench = Bench::new();
        assert!(bench.ledger.meets(NAME));
        assert_eq!(bench.judge(0, Sight::Invalid(stamp(5, changed_millis))), decision, "{changed_millis}");
        assert_eq!(bench.next_look(), next_look, "{changed_millis}");
    };
    check(-2_000, Decision::Reject, None);
    check(-1_500, Decision::Wait, Some(500));
    check(0, Decision::Wait, Some(2_000));
    check(3_600_000, Decision::Wait, Some(2_000));
    let mut bench = Bench::new();
    assert_eq!(bench.judge(0, Sight::Valid(stamp(9, 0))), Decision::Offer);
    assert_eq!(bench.ledger.len(), 0, "what is taken at once leaves no trace");
}

#[test]
fn after_lost_notifications_only_time_tells_that_a_writer_has_ended() {
    let mut bench = Bench::new();
    bench.note(0, Change::Written);
    bench.ledger.notes_lost(at(100).instant);
    assert_eq!(bench.next_look(), Some(2_100));
    assert!(!bench.ledger.meets(NAME));
    assert_eq!(bench.judge(500, Sight::Valid(stamp(9, 400))), Decision::Wait);
    assert!(bench.is_due(2_500));
    assert_eq!(bench.judge(2_500, Sight::Valid(stamp(9, 400))), Decision::Offer);

    bench.note(3_000, Change::Written);
    bench.ledger.notes_lost(at(3_100).instant);
    bench.note(3_200, Change::Closed);
    assert_eq!(bench.judge(3_200, Sight::Valid(stamp(9, 3_200))), Decision::Offer, "a notification is certain again");
}

#[test]
fn what_is_no_file_is_warned_of_once() {
    let mut bench = Bench::new();
    let link = Sight::Odd(Oddity::SymbolicLink);
    assert_eq!(bench.judge(0, link), Decision::Warn(Oddity::SymbolicLink));
    for scan in 1..4 {
        bench.ledger.begin_scan();
        assert!(bench.ledger.meets(NAME), "it may have become a file");
        assert_eq!(bench.judge(scan, link), Decision::Wait);
        bench.ledger.end_scan(at(scan).instant);
    }
    assert_eq!(bench.judge(10, Sight::Odd(Oddity::Folder)), Decision::Warn(Oddity::Folder));
    assert_eq!(bench.ledger.len(), 0, "nothing waits for it");
    bench.ledger.begin_scan();
    bench.ledger.end_scan(at(11).instant);
    assert_eq!(bench.judge(12, Sight::Odd(Oddity::Folder)), Decision::Warn(Oddity::Folder), "it was gone meanwhile");
    assert_eq!(bench.judge(13, Sight::Valid(stamp(9, 13))), Decision::Offer);
}

#[test]
fn names_that_are_gone_are_forgotten_after_a_scan() {
    let mut bench = Bench::new();
    bench.note(0, Change::Written);
    bench.ledger.begin_scan();
    bench.ledger.end_scan(at(5).instant);
    assert!(bench.is_due(5));
    assert_eq!(bench.judge(5, Sight::Gone), Decision::Wait);
    assert_eq!((bench.ledger.len(), bench.next_look()), (0, None));

    bench.note(10, Change::Written);
    bench.ledger.begin_scan();
    assert!(!bench.ledger.meets(NAME));
    bench.ledger.end_scan(at(15).instant);
    assert_eq!(bench.next_look(), None, "one that is still there goes on waiting for its writer");
}

#[test]
fn looks_come_in_the_order_of_arrival_and_in_batches() {
    let mut ledger = Ledger::new(SETTLE);
    let names: Vec<Vec<u8>> = (0..10).rev().map(|number| format!("{number}.json").into_bytes()).collect();
    for name in &names {
        ledger.note(name, Change::MovedIn, at(0).instant);
    }
    ledger.note(&names[1], Change::Closed, at(0).instant);
    let due: Vec<Name> = [ledger.due(at(0).instant, 6), ledger.due(at(0).instant, 6)].concat();
    let order: Vec<&[u8]> = due.iter().map(|name| &**name).collect();
    let mut expected: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    let changed_again = expected.remove(1);
    expected.push(changed_again);
    assert_eq!(order, expected);
}

#[test]
fn what_could_not_be_done_is_tried_again_later() {
    let mut bench = Bench::new();
    bench.ledger.look_again(NAME, at(0).instant, Duration::from_secs(1));
    assert!(!bench.ledger.meets(NAME), "a scan does not hurry it");
    assert!(!bench.is_due(999));
    assert!(bench.is_due(1_000));
    assert_eq!(bench.judge(1_000, Sight::Changing), Decision::Wait);
    assert_eq!(bench.next_look(), Some(3_000));
}

#[test]
fn what_is_offered_is_not_looked_at_before_it_is_answered() {
    let mut bench = Bench::new();
    bench.note(0, Change::MovedIn);
    assert!(bench.is_due(0));
    assert_eq!(bench.judge(0, Sight::Valid(stamp(9, 0))), Decision::Offer);
    bench.ledger.offer(Name::from(NAME));
    bench.ledger.offer(Name::from(&b"met.json"[..]));
    assert_eq!((bench.ledger.len(), bench.ledger.unsettled()), (1, 2), "one was met by a scan and has no entry");
    bench.note(5, Change::MovedIn);
    assert!(!bench.is_due(5) && !bench.ledger.meets(NAME) && !bench.ledger.meets(b"met.json"));
    bench.ledger.answered(NAME);
    bench.ledger.answered(b"met.json");
    bench.ledger.look_again(NAME, at(10).instant, APPEARANCE_DELAY);
    assert!(bench.is_due(30) && bench.ledger.meets(b"met.json"), "both may be other files by now");
}
