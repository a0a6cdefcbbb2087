//! One situation a test, on a clock that only moves when told. Histories are in `tests/it/limits.rs`.

use std::num::NonZeroU32;

use super::*;

fn policy(limits: &[(u32, u64)]) -> UpstreamPolicy {
    let spec = |&(count, window_ms): &(u32, u64)| LimitSpec {
        count: NonZeroU32::new(count).expect("tests give no zero limits"),
        window: Duration::from_millis(window_ms),
    };
    UpstreamPolicy { limits: limits.iter().map(spec).collect(), ..UpstreamPolicy::default() }
}

fn at(ms: i64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// What a store answers that keeps these proofs, and attempts that are out.
fn past(policy: &UpstreamPolicy, certain_since: Instant, now: Instant, proved_ms: &[Option<i64>]) -> Past {
    let windows = Limits::asks(policy, certain_since, now).into_iter().map(|ask| (ask, grants(proved_ms))).collect();
    Past { certain_since, windows }
}

fn grants(proved_ms: &[Option<i64>]) -> Vec<PastGrant> {
    proved_ms.iter().map(|ms| PastGrant { cost: 1, proved_at: ms.map(at), open: None }).collect()
}

#[test]
fn slots_cool_from_the_answer_and_not_from_the_grant() {
    let mut limits = Limits::new(&policy(&[(1, 1_000)]));
    let mut grant = limits.grant(at(0), 1);
    assert_eq!(limits.admit(at(5_000), 1), Admission::Full);
    limits.answered(&mut grant, at(5_000));
    assert_eq!(limits.admit(at(5_500), 1), Admission::NotBefore(at(6_001)));
    assert_eq!(limits.admit(at(6_001), 1), Admission::Ready);
}

#[test]
fn short_windows_cool_jitter_after_sending_and_long_ones_only_by_proof() {
    let mut limits = Limits::new(&policy(&[(1, 1_000), (5, 3_600_000)]));
    let mut grant = limits.grant(at(0), 1);
    limits.sent(&mut grant, at(10));
    assert_eq!(limits.admit(at(10), 1), Admission::NotBefore(at(1_111)));
    assert_eq!(limits.usage(at(2_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [0, 1]);
    limits.ended(&mut grant, at(30_000));
    assert_eq!(limits.usage(at(3_633_600)).get(1).map(|usage| usage.used), Some(1));
    assert_eq!(limits.usage(at(3_633_701)).get(1).map(|usage| usage.used), Some(0));
}

#[test]
fn an_early_answer_replaces_the_guess_made_at_sending() {
    let mut limits = Limits::new(&policy(&[(1, 1_000)]));
    let mut grant = limits.grant(at(0), 1);
    limits.sent(&mut grant, at(1));
    limits.answered(&mut grant, at(3));
    assert_eq!(limits.admit(at(3), 1), Admission::NotBefore(at(1_004)));
}

#[test]
fn all_windows_or_none() {
    let mut limits = Limits::new(&policy(&[(10, 1_000), (2, 60_000)]));
    for _ in 0..2 {
        let mut grant = limits.grant(at(0), 1);
        limits.answered(&mut grant, at(1));
    }
    assert_eq!(limits.admit(at(2_000), 1), Admission::NotBefore(at(60_061)));
    assert_eq!(limits.usage(at(2_000))[0].used, 0, "the refused attempt took nothing of the short window");
}

#[test]
fn cost_takes_that_many_slots_and_what_wrote_nothing_gives_them_back() {
    let mut limits = Limits::new(&policy(&[(5, 1_000)]));
    let mut grant = limits.grant(at(0), 3);
    assert_eq!(limits.admit(at(0), 3), Admission::Full);
    assert_eq!(limits.admit(at(0), 2), Admission::Ready);
    limits.give_back(&mut grant);
    assert_eq!(limits.admit(at(0), 5), Admission::Ready);
}

#[test]
fn strict_windows_ignore_sending() {
    let mut limits = Limits::new(&UpstreamPolicy { strict: true, ..policy(&[(1, 1_000)]) });
    let mut grant = limits.grant(at(0), 1);
    limits.sent(&mut grant, at(1));
    assert_eq!(limits.admit(at(100_000), 1), Admission::Full);
}

#[test]
fn smooth_spaces_by_the_largest_interval() {
    let mut limits = Limits::new(&UpstreamPolicy { smooth: true, ..policy(&[(10, 1_000), (60, 60_000)]) });
    let mut grant = limits.grant(at(0), 1);
    limits.answered(&mut grant, at(1));
    assert_eq!(limits.admit(at(1), 1), Admission::NotBefore(at(1_000)));
}

#[test]
fn a_restart_counts_what_was_sent_and_what_may_still_arrive() {
    let policy = policy(&[(3, 60_000), (4, 1_000)]);
    let past = past(&policy, Instant::MIN, at(2_000), &[Some(1_000), None, Some(-80_000)]);
    let mut limits = Limits::restore(&policy, &past, at(2_000));
    assert_eq!(limits.usage(at(2_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(limits.admit(at(2_000), 1), Admission::NotBefore(at(3_101)));
    assert_eq!(limits.admit(at(3_101), 2), Admission::NotBefore(at(61_060)));
    assert_eq!(limits.admit(at(61_060), 3), Admission::NotBefore(at(62_160)));
}

#[test]
fn in_another_boot_short_windows_count_everything_from_its_beginning() {
    let policy = policy(&[(2, 60_000), (2, 61_000)]);
    let past = past(&policy, at(5_000), at(7_000), &[Some(-200_000), Some(-1_000), Some(6_000)]);
    let mut restored = Limits::restore(&policy, &past, at(7_000));
    assert_eq!(restored.usage(at(7_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(restored.usage(at(65_060)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [1, 1]);
    let asks = |now| Limits::asks(&policy, at(5_000), at(now));
    let latest = |since| Ask::Latest { since, count: 2 };
    assert_eq!(asks(7_000), [latest(Instant::MIN), latest(at(7_000 - 61_161))]);
    assert_eq!(asks(70_000), [latest(at(70_000 - 60_160)), latest(at(70_000 - 61_161))]);
    assert_eq!(Limits::asks(&UpstreamPolicy::default(), at(5_000), at(7_000)), []);
}

#[test]
fn a_lowered_limit_waits_for_the_slots_that_free_up_last() {
    let policy = policy(&[(2, 60_000)]);
    let past = past(&policy, Instant::MIN, at(1_000), &(0..10).map(|n| Some(n * 100)).collect::<Vec<_>>());
    let mut limits = Limits::restore(&policy, &past, at(1_000));
    assert_eq!(limits.admit(at(1_000), 1), Admission::NotBefore(at(60_860)));
}

#[test]
fn a_very_late_report_takes_no_slots_from_others() {
    let mut limits = Limits::new(&policy(&[(5, 1_000)]));
    let (mut early, mut late) = (limits.grant(at(0), 3), limits.grant(at(0), 1));
    limits.sent(&mut early, at(1));
    assert_eq!(limits.admit(at(5_000), 4), Admission::Ready);
    // The same moment, told after both would have cooled; then the first is found to have been answered sooner.
    limits.sent(&mut late, at(1));
    limits.answered(&mut early, at(2));
    assert_eq!(limits.admit(at(5_000), 5), Admission::Ready);
}

#[test]
fn a_cost_above_the_limit_never_fits() {
    let mut limits = Limits::new(&policy(&[(5, 1_000)]));
    assert_eq!(limits.admit(at(0), 6), Admission::Full);
}

/// Use of every window.
fn used(limits: &mut Limits, now_ms: i64) -> Vec<u32> {
    limits.usage(at(now_ms)).iter().map(|usage| usage.used).collect()
}

fn no_past() -> Past {
    Past::default()
}

#[test]
fn a_lowered_count_keeps_what_is_in_use_and_a_raised_one_adds_room() {
    let mut limits = Limits::new(&policy(&[(4, 60_000)]));
    for n in 0..4 {
        let mut grant = limits.grant(at(n * 1_000), 1);
        limits.answered(&mut grant, at(n * 1_000));
    }
    limits.change(&policy(&[(2, 60_000)]), &no_past(), [], at(5_000));
    assert_eq!(limits.admit(at(5_000), 1), Admission::NotBefore(at(62_060)), "when the third of four has cooled");
    limits.change(&policy(&[(5, 60_000)]), &no_past(), [], at(6_000));
    assert_eq!(limits.admit(at(6_000), 1), Admission::Ready);
    assert_eq!(limits.admit(at(6_000), 2), Admission::NotBefore(at(60_060)));
}

#[test]
fn a_new_window_counts_what_the_store_tells_and_what_is_out() {
    let mut limits = Limits::new(&policy(&[(9, 60_000)]));
    let (mut proved, mut held) = (limits.grant(at(0), 1), limits.grant(at(0), 2));
    limits.answered(&mut proved, at(100));
    let changed = policy(&[(9, 60_000), (10, 90_000)]);
    let asks = limits.asks_of_change(&changed, Instant::MIN, at(200));
    assert_eq!(asks, [Ask::Nothing, Ask::Latest { since: at(200 - 90_190), count: 10 }]);
    let windows = asks.into_iter().map(|ask| (ask, grants(&[Some(-50_000), None]))).collect();
    let past = Past { certain_since: Instant::MIN, windows };
    limits.change(&changed, &past, [&mut proved, &mut held], at(200));
    assert_eq!(used(&mut limits, 200), [3, 5]);
    // One that is told as out and is not here ended a moment ago.
    assert_eq!(used(&mut limits, 40_091), [3, 4]);
    assert_eq!(used(&mut limits, 90_191), [2, 3]);
    assert_eq!(used(&mut limits, 90_391), [2, 2]);
    limits.answered(&mut held, at(100_000));
    assert_eq!(used(&mut limits, 160_060), [0, 2]);
    assert_eq!(used(&mut limits, 190_090), [0, 0]);
}

#[test]
fn a_removed_window_holds_nothing_back_and_forgets_the_grants_that_are_out() {
    let mut limits = Limits::new(&policy(&[(1, 60_000), (5, 90_000)]));
    let mut grant = limits.grant(at(0), 1);
    limits.change(&policy(&[(5, 90_000)]), &no_past(), [&mut grant], at(10));
    assert_eq!(limits.admit(at(10), 4), Admission::Ready);
    limits.give_back(&mut grant);
    assert_eq!(used(&mut limits, 10), [0]);
}

#[test]
fn a_new_window_of_which_nothing_is_known_is_taken_as_full() {
    let mut limits = Limits::new(&policy(&[]));
    limits.change(&policy(&[(3, 60_000), (3, 500)]), &no_past(), [], at(0));
    assert_eq!(used(&mut limits, 0), [3, 3]);
}

#[test]
fn spacing_goes_on_from_the_last_grant_when_the_policy_changes() {
    let smooth = |count| UpstreamPolicy { smooth: true, ..policy(&[(count, 1_000)]) };
    let mut limits = Limits::new(&smooth(10));
    let mut grant = limits.grant(at(0), 1);
    limits.answered(&mut grant, at(1));
    limits.change(&smooth(2), &no_past(), [], at(50));
    assert_eq!(limits.admit(at(50), 1), Admission::NotBefore(at(500)));
}

#[test]
fn a_cost_from_before_a_change_spaces_no_longer_than_the_new_limits_allow_one_to() {
    let smooth = |count| UpstreamPolicy { smooth: true, ..policy(&[(count, 1_000)]) };
    let mut limits = Limits::new(&smooth(9_000));
    let mut grant = limits.grant(at(0), 400);
    limits.answered(&mut grant, at(1));
    limits.change(&smooth(1), &no_past(), [], at(2_000));
    assert_eq!(limits.admit(at(2_000), 1), Admission::Ready, "one interval after it, not four hundred");
}

#[test]
fn a_large_window_keeps_a_small_account_and_frees_no_slot_early() {
    let mut limits = Limits::new(&policy(&[(1_000_000, 86_400_000)]));
    let mut latest = 0;
    for n in 0..200_000 {
        let mut grant = limits.grant(at(n * 400), 1);
        limits.answered(&mut grant, at(n * 400));
        latest = latest.max(limits.windows[0].moments());
    }
    assert!(latest <= 258, "{latest}");
    let day = 86_486_400;
    assert_eq!(used(&mut limits, day - 1), [200_000]);
    assert_eq!(used(&mut limits, 200_000 * 400 + day + 337_500), [0]);
}

#[test]
fn a_count_that_is_raised_soon_after_a_restart_asks_for_more_of_the_past() {
    let low = policy(&[(2, 60_000)]);
    let before = past(&low, Instant::MIN, at(0), &[Some(-10_000), Some(-20_000)]);
    let mut limits = Limits::restore(&low, &before, at(0));
    let high = policy(&[(10, 60_000)]);
    let asks = |limits: &Limits, now| limits.asks_of_change(&high, Instant::MIN, at(now));
    assert_eq!(asks(&limits, 50_000), [Ask::Latest { since: at(50_000 - 60_160), count: 10 }]);
    assert_eq!(asks(&limits, 60_160), [Ask::Nothing], "whatever is not known has cooled");
    let mut grant = limits.grant(at(45_000), 1);
    let told = past(&high, Instant::MIN, at(46_000), &[Some(-10_000), Some(-11_000), Some(-12_000)]);
    limits.change(&high, &told, [&mut grant], at(46_000));
    assert_eq!(used(&mut limits, 46_000), [4]);
    limits.give_back(&mut grant);
    assert_eq!(used(&mut limits, 46_000), [3]);
}

#[test]
fn what_was_never_made_leaves_no_trace() {
    let mut limits = Limits::new(&UpstreamPolicy { smooth: true, ..policy(&[(2, 1_000)]) });
    let mut first = limits.grant(at(0), 1);
    let mut second = limits.grant(at(500), 1);
    limits.undo(&mut second);
    assert_eq!(limits.admit(at(500), 1), Admission::Ready);
    limits.undo(&mut first);
    assert_eq!(limits.admit(at(0), 2), Admission::Ready);
}
