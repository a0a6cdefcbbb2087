//! The breaker on a clock that only moves when told.

use super::*;
use crate::call::{Method, UpstreamId};

fn at(ms: i64) -> Instant {
    Instant::from_micros(ms * 1_000)
}

/// Half of 4 within 10 s, open for 5 s.
fn policy() -> BreakerPolicy {
    BreakerPolicy {
        calls: NonZeroU32::new(4).expect("not zero"),
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        ..BreakerPolicy::default()
    }
}

fn breaker() -> Breaker {
    Breaker::new(policy())
}

fn end(breaker: &mut Breaker, ms: i64, evidence: Evidence) -> Option<BreakerState> {
    let pass = breaker.enter(at(ms));
    breaker.leave(at(ms), pass, evidence, Sent::Maybe)
}

/// Opened at this moment, by four failures.
fn opened(ms: i64) -> Breaker {
    let mut breaker = breaker();
    let turned: Vec<_> = (0..4).filter_map(|_| end(&mut breaker, ms, Evidence::Fails)).collect();
    assert_eq!(turned, [BreakerState::Open]);
    breaker
}

#[test]
fn it_opens_when_enough_is_known_and_the_share_of_failures_is_reached() {
    let mut breaker = breaker();
    let fails = |breaker: &mut Breaker| end(breaker, 0, Evidence::Fails);
    assert_eq!([fails(&mut breaker), fails(&mut breaker), fails(&mut breaker)], [None; 3], "three say nothing");
    for _ in 0..4 {
        assert_eq!(end(&mut breaker, 0, Evidence::Works), None);
    }
    assert_eq!(fails(&mut breaker), Some(BreakerState::Open), "4 of 8");
    assert_eq!(breaker.passage(at(1)), Passage::NotBefore(at(5_000)));
}

#[test]
fn what_works_never_opens_it_though_the_share_is_reached() {
    let mut breaker = breaker();
    for evidence in [Evidence::Fails, Evidence::Fails, Evidence::Fails, Evidence::Works] {
        assert_eq!(end(&mut breaker, 0, evidence), None);
    }
    assert_eq!(end(&mut breaker, 0, Evidence::Fails), Some(BreakerState::Open));
}

#[test]
fn outcomes_count_for_the_window_and_no_longer() {
    let mut breaker = breaker();
    for _ in 0..3 {
        end(&mut breaker, 0, Evidence::Fails);
    }
    let mut soon = breaker.clone();
    assert_eq!(end(&mut soon, 9_999, Evidence::Fails), Some(BreakerState::Open));
    assert_eq!(end(&mut breaker, 10_000, Evidence::Fails), None);
}

#[test]
fn however_many_outcomes_it_keeps_a_handful_of_counts() {
    let mut breaker = breaker();
    for ms in 0..100_000 {
        end(&mut breaker, ms, Evidence::Works);
    }
    assert!(breaker.outcomes.slices.len() <= 10, "{}", breaker.outcomes.slices.len());
    assert_eq!(breaker.outcomes.sums(policy().window, at(99_999)), (0, 10_000));
}

#[test]
fn what_says_nothing_is_not_counted() {
    let mut breaker = breaker();
    for _ in 0..10 {
        assert_eq!(end(&mut breaker, 0, Evidence::Nothing), None);
    }
    for _ in 0..3 {
        assert_eq!(end(&mut breaker, 0, Evidence::Fails), None);
    }
    assert_eq!(end(&mut breaker, 0, Evidence::Fails), Some(BreakerState::Open));
}

#[test]
fn after_its_time_one_probe_goes_and_nothing_beside_it() {
    let mut breaker = opened(0);
    assert_eq!((breaker.state(at(4_999)), breaker.state(at(5_000))), (BreakerState::Open, BreakerState::HalfOpen));
    let probe = breaker.enter(at(6_000));
    assert!(probe.is_probe());
    assert_eq!(breaker.passage(at(60_000)), Passage::AfterProbe);
    assert_eq!(breaker.leave(at(7_000), probe, Evidence::Works, Sent::Maybe), Some(BreakerState::Closed));
    assert_eq!(breaker.passage(at(7_000)), Passage::Free);
    assert_eq!(end(&mut breaker, 7_000, Evidence::Fails), None, "it knows nothing of before");
}

#[test]
fn a_probe_that_fails_opens_it_anew() {
    let mut breaker = opened(0);
    let probe = breaker.enter(at(5_000));
    assert_eq!(breaker.leave(at(6_000), probe, Evidence::Fails, Sent::Maybe), Some(BreakerState::Open));
    assert_eq!(breaker.passage(at(6_000)), Passage::NotBefore(at(11_000)));
}

#[test]
fn a_probe_that_says_nothing_is_followed_as_long_after_it_as_any() {
    let mut breaker = opened(0);
    let probe = breaker.enter(at(6_000));
    assert_eq!(breaker.leave(at(7_000), probe, Evidence::Nothing, Sent::Maybe), None);
    assert_eq!(breaker.passage(at(7_000)), Passage::NotBefore(at(11_000)));
    let probe = breaker.enter(at(11_000));
    assert_eq!(breaker.leave(at(12_000), probe, Evidence::Nothing, Sent::Nothing), None);
    assert_eq!(breaker.passage(at(12_000)), Passage::Probe, "nothing was sent");
    let probe = breaker.enter(at(12_000));
    breaker.undo(probe);
    assert_eq!(breaker.passage(at(12_000)), Passage::Probe);
}

#[test]
fn attempts_from_before_it_opened_say_nothing_of_now() {
    let mut breaker = breaker();
    let passes: Vec<Pass> = (0..8).map(|_| breaker.enter(at(0))).collect();
    for &pass in &passes[..4] {
        breaker.leave(at(0), pass, Evidence::Fails, Sent::Maybe);
    }
    assert_eq!(breaker.leave(at(1), passes[4], Evidence::Works, Sent::Maybe), None, "nor do they close it");
    let probe = breaker.enter(at(5_000));
    breaker.leave(at(5_000), probe, Evidence::Works, Sent::Maybe);
    for &pass in &passes[5..] {
        assert_eq!(breaker.leave(at(5_001), pass, Evidence::Fails, Sent::Maybe), None);
    }
    assert_eq!(breaker.outcomes.sums(policy().window, at(5_001)), (0, 0));
}

#[test]
fn by_hand_it_is_closed_at_once_and_a_probe_that_is_out_says_nothing_any_more() {
    let mut breaker = opened(0);
    let probe = breaker.enter(at(5_000));
    assert!(breaker.close());
    assert!(!breaker.close(), "it was closed");
    assert_eq!(breaker.leave(at(6_000), probe, Evidence::Fails, Sent::Maybe), None);
    assert_eq!(breaker.passage(at(6_000)), Passage::Free);
}

#[test]
fn by_hand_attempts_that_are_out_say_nothing_even_if_it_was_closed() {
    let mut breaker = breaker();
    let passes: Vec<Pass> = (0..4).map(|_| breaker.enter(at(0))).collect();
    assert!(!breaker.close());
    for pass in passes {
        assert_eq!(breaker.leave(at(1), pass, Evidence::Fails, Sent::Maybe), None);
    }
}

#[test]
fn a_change_holds_for_the_time_it_is_open_too() {
    let mut breaker = opened(1_000);
    breaker.change(BreakerPolicy { open: Duration::from_secs(1), ..policy() });
    assert_eq!(breaker.passage(at(1_500)), Passage::NotBefore(at(2_000)));
    assert_eq!(breaker.passage(at(2_000)), Passage::Probe);
}

#[test]
fn a_change_of_anything_but_the_window_keeps_what_is_known() {
    let mut breaker = breaker();
    for _ in 0..3 {
        end(&mut breaker, 0, Evidence::Fails);
    }
    let mut anew = breaker.clone();
    breaker.change(BreakerPolicy { calls: NonZeroU32::MIN, ..policy() });
    assert_eq!(end(&mut breaker, 0, Evidence::Fails), Some(BreakerState::Open));
    anew.change(BreakerPolicy { window: Duration::from_secs(60), ..policy() });
    assert_eq!(end(&mut anew, 0, Evidence::Fails), None);
}

#[test]
fn every_word_of_an_end_has_its_evidence() {
    let check = |verdict, status, expected| assert_eq!(evidence(verdict, status), expected, "{verdict:?} {status:?}");
    check(Verdict::Success, Some(503), Evidence::Works);
    check(Verdict::Redirected { upstream: UpstreamId(1), method: Method::Get }, Some(302), Evidence::Works);
    let wait = Duration::ZERO;
    check(Verdict::Throttled { wait }, Some(429), Evidence::Works);
    check(Verdict::Throttled { wait }, Some(503), Evidence::Fails);
    for status in [301, 400, 404, 408, 425, 429, 499] {
        check(Verdict::Retryable(ErrorKind::HttpStatus), Some(status), Evidence::Works);
        check(Verdict::Failure(ErrorKind::HttpStatus), Some(status), Evidence::Works);
    }
    for status in [500, 501, 503, 524, 599] {
        check(Verdict::Retryable(ErrorKind::HttpStatus), Some(status), Evidence::Fails);
        check(Verdict::Failure(ErrorKind::HttpStatus), Some(status), Evidence::Fails);
    }
    for kind in [ErrorKind::TooLarge, ErrorKind::Decode] {
        check(Verdict::Failure(kind), Some(200), Evidence::Works);
        check(Verdict::Failure(kind), Some(500), Evidence::Fails);
    }
    check(Verdict::Failure(ErrorKind::BlockedAddress), Some(302), Evidence::Works);
    let fails = [
        ErrorKind::Connect,
        ErrorKind::Tls,
        ErrorKind::Dns,
        ErrorKind::Timeout,
        ErrorKind::Reset,
        ErrorKind::Truncated,
        ErrorKind::Protocol,
    ];
    for &kind in ErrorKind::ALL {
        if [ErrorKind::HttpStatus, ErrorKind::TooLarge, ErrorKind::Decode, ErrorKind::BlockedAddress].contains(&kind) {
            continue;
        }
        let expected = if fails.contains(&kind) { Evidence::Fails } else { Evidence::Nothing };
        check(Verdict::Unknown(kind), Some(200), expected);
        check(Verdict::Retryable(kind), None, expected);
    }
}
