//! The clock that a store keeps, and until when it surely lies in the past.

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::steady::{KeptClock, Steady};
use farcall_store::port::{AttemptEnd, Insert, Settle, Write};
use farcall_store::record::Progress;

use crate::lab::Lab;
use crate::sample::{attempt_end, call, id, insert, progress, settle_attempt, start_at, steady};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_fresh_store_keeps_no_clock,
    the_clock_kept_last_comes_back,
    the_latest_is_when_the_latest_of_all_was_decided,
    a_refused_batch_moves_nothing_on,
    who_has_not_taken_over_keeps_no_clock,
}

fn a_fresh_store_keeps_no_clock(lab: &mut dyn Lab) -> Outcome {
    let recovery = lab.restart()?;
    assert_eq!((recovery.clock, recovery.latest), (None, None));
    Ok(())
}

fn the_clock_kept_last_comes_back(lab: &mut dyn Lab) -> Outcome {
    let first = KeptClock { boot: Some("one'\u{1f980}".to_owned()), base_us: i64::MIN, since: steady(1) };
    let last = KeptClock { boot: None, base_us: i64::MAX, since: Steady::from_micros(-5) };
    for clock in [first, last] {
        lab.store().keep_clock(&clock)?;
        assert_eq!(lab.restart()?.clock, Some(clock.clone()));
        lab.commit(&[])?;
        assert_eq!(lab.restart()?.clock, Some(clock));
    }
    Ok(())
}

fn the_latest_is_when_the_latest_of_all_was_decided(lab: &mut dyn Lab) -> Outcome {
    let insert = |n, seconds| {
        let (call, request) = (call(n), Bytes::new());
        Write::Insert(Box::new(Insert { at: steady(seconds), call, request, trace: None }))
    };
    let settle = |n, seconds| {
        let progress = Some(Progress { ready_at: Some(steady(9_000)), ..progress(State::Retrying) });
        let attempt = Some(AttemptEnd { proved_at: Some(steady(8_000)), ..attempt_end(1) });
        Write::Settle(Box::new(Settle {
            at: steady(seconds),
            call: id(n),
            attempt,
            progress,
            heading: None,
            response: None,
        }))
    };
    let mut latest = |writes: &[Write]| -> Result<Option<Steady>, Box<dyn std::error::Error>> {
        lab.commit(writes)?;
        Ok(lab.restart()?.latest)
    };
    assert_eq!(latest(&[insert(1, -60), insert(2, -70)])?, Some(steady(-60)));
    assert_eq!(latest(&[start_at(1, 1, -50)])?, Some(steady(-50)));
    // What a decision says of the future is no past.
    assert_eq!(latest(&[settle(1, 30), start_at(2, 1, 20)])?, Some(steady(30)));
    assert_eq!(latest(&[settle(2, 25), Write::Close { call: id(1), until: steady(900) }])?, Some(steady(30)));
    assert_eq!(latest(&[insert(3, 40), start_at(3, 1, 40)])?, Some(steady(40)));
    assert_eq!(latest(&[insert(4, 35), Write::Release { call: id(4), ready_at: steady(50) }])?, Some(steady(50)));
    Ok(())
}

fn a_refused_batch_moves_nothing_on(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), start_at(1, 1, 10)])?;
    assert!(lab.commit(&[start_at(1, 2, 90), settle_attempt(7, 1)]).is_err());
    assert_eq!(lab.restart()?.latest, Some(steady(10)));
    Ok(())
}

fn who_has_not_taken_over_keeps_no_clock(lab: &mut dyn Lab) -> Outcome {
    let clock = KeptClock { boot: None, base_us: 1, since: steady(1) };
    assert!(lab.reopen()?.keep_clock(&clock).is_err());
    assert_eq!(lab.restart()?.clock, None);
    Ok(())
}
