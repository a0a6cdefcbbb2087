//! Every write that contradicts what is stored is refused, by name, and leaves nothing.
//!
//! Each refusal is asked for twice, alone and after valid writes of another call with a body file, which must vanish
//! with it.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_store::port::{AttemptEnd, CommitError, Mark, Write};
use farcall_store::record::{CallRecord, IdempotencyRecord, Progress};

use crate::lab::{Ask as _, Lab};
use crate::sample::{
    attempt_end, call, filed, full_call, id, insert, insert_with, key, progress, response, settle, settle_attempt,
    settle_with, start,
};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_known_id_is_refused,
    a_taken_key_is_refused,
    changes_of_an_unknown_call_are_refused,
    starts_out_of_order_are_refused,
    settlements_without_a_running_attempt_are_refused,
    nothing_follows_the_end,
    a_hedge_that_lost_is_settled_after_the_end,
    a_response_needs_an_end,
    files_are_placed_once_and_after_the_end,
    the_order_within_a_batch_counts,
    a_body_file_of_a_refused_batch_harms_no_other,
    marks_are_kept_of_calls_that_live_and_refused_of_others,
}

/// Refused alone, refused after a valid write, and without a trace.
fn refuses(lab: &mut dyn Lab, write: Write, expected: &str) -> Outcome {
    let call = write.call();
    let stored = |lab: &mut dyn Lab| -> Result<_, Box<dyn std::error::Error>> {
        let mut reader = lab.reader()?;
        Ok((reader.call(call)?, reader.attempts(call)?, reader.request(call)?, reader.response(call)?))
    };
    let before = stored(lab)?;
    let companion = 999;
    for batch in
        [vec![write.clone()], vec![insert_with(full_call(companion), vec![0; 70_000]), start(companion, 8), write]]
    {
        match lab.commit(&batch) {
            Err(CommitError::Conflict { call: refused, what }) => assert_eq!((refused, what), (call, expected)),
            other => panic!("{expected}: expected a conflict, got {other:?}"),
        }
        assert_eq!(stored(lab)?, before, "{expected}");
        assert_eq!(lab.reader()?.call(id(companion))?, None, "{expected}");
        assert_eq!(lab.reader()?.keyed("", "key of 999")?, None, "{expected}");
    }
    Ok(())
}

fn with_key(n: u32, scope: &str, name: &str) -> CallRecord {
    CallRecord { idempotency: Some(IdempotencyRecord { scope: scope.to_owned(), ..key(name) }), ..call(n) }
}

fn a_known_id_is_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), insert(with_key(2, "", "a"))])?;
    refuses(lab, insert(call(1)), "second insert")?;
    refuses(lab, insert(full_call(1)), "second insert")?;
    refuses(lab, insert(with_key(2, "", "a")), "second insert")?;
    lab.restart()?;
    refuses(lab, insert(with_key(1, "", "a")), "second insert")
}

fn a_taken_key_is_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(with_key(1, "token", "a"))])?;
    refuses(lab, insert(with_key(2, "token", "a")), "insert under a taken idempotency key")?;
    lab.commit(&[start(1, 1)])?;
    lab.commit(&[settle(1, 1, State::Succeeded)])?;
    refuses(lab, insert(with_key(2, "token", "a")), "insert under a taken idempotency key")?;
    lab.commit(&[insert(with_key(2, "", "a")), insert(with_key(3, "token", "b"))])?;
    Ok(())
}

fn changes_of_an_unknown_call_are_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), start(1, 1)])?;
    for write in [start(2, 1), settle(2, 1, State::Failed), settle_with(2, None, State::Expired, None), filed(2)] {
        refuses(lab, write, "change before the insert")?;
    }
    Ok(())
}

fn starts_out_of_order_are_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), insert(CallRecord { attempts: u32::MAX, ..call(2) })])?;
    for number in [0, 2, u32::MAX] {
        refuses(lab, start(1, number), "start out of order")?;
    }
    refuses(lab, start(2, 0), "start out of order")?;
    lab.commit(&[start(1, 1)])?;
    for number in [0, 1, 3] {
        refuses(lab, start(1, number), "start out of order")?;
    }
    Ok(())
}

fn settlements_without_a_running_attempt_are_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1))])?;
    refuses(lab, settle(1, 1, State::Failed), "end without its running attempt")?;
    lab.commit(&[start(1, 1)])?;
    refuses(lab, settle(1, 2, State::Failed), "end without its running attempt")?;
    let running = AttemptEnd { outcome: AttemptOutcome::Running, ..attempt_end(1) };
    refuses(lab, settle_with(1, Some(running), State::Retrying, None), "attempt end without an outcome")?;
    lab.commit(&[settle(1, 1, State::Retrying)])?;
    refuses(lab, settle(1, 1, State::Retrying), "end without its running attempt")?;
    refuses(lab, settle(1, 1, State::Succeeded), "end without its running attempt")
}

fn nothing_follows_the_end(lab: &mut dyn Lab) -> Outcome {
    for (n, &end) in (0..).zip(State::ALL.iter().filter(|state| state.is_end())) {
        lab.commit(&[insert(call(n)), start(n, 1)])?;
        lab.commit(&[settle(n, 1, end)])?;
        refuses(lab, start(n, 2), "start after the end")?;
        refuses(lab, settle_with(n, None, State::Expired, None), "second end")?;
        refuses(lab, settle_with(n, None, end, None), "second end")?;
        refuses(lab, settle(n, 1, end), "second end")?;
        refuses(lab, settle(n, 1, State::Retrying), "second end")?;
    }
    Ok(())
}

fn a_hedge_that_lost_is_settled_after_the_end(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), start(1, 1), start(1, 2), start(1, 3)])?;
    lab.commit(&[settle_with(1, Some(attempt_end(2)), State::Succeeded, Some(response("won")))])?;
    refuses(lab, settle(1, 1, State::Failed), "second end")?;
    refuses(lab, settle(1, 1, State::Queued), "second end")?;
    let late = settle_with(1, Some(attempt_end(1)), State::Succeeded, Some(response("late")));
    refuses(lab, late, "second end")?;

    let ended = lab.call(id(1))?;
    refuses(lab, settle_attempt(1, 4), "end without its running attempt")?;
    lab.commit(&[settle_attempt(1, 1)])?;
    lab.restart()?;
    lab.commit(&[settle_attempt(1, 3)])?;
    refuses(lab, settle_attempt(1, 3), "end without its running attempt")?;
    assert_eq!(lab.call(id(1))?, ended);
    assert_eq!(lab.reader()?.response(id(1))?, Some(response("won")));
    let recovery = lab.restart()?;
    assert_eq!(recovery.open_attempts, []);
    assert_eq!(recovery.totals.of(State::Succeeded), 1);
    Ok(())
}

fn a_response_needs_an_end(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), start(1, 1)])?;
    let waits = settle_with(1, Some(attempt_end(1)), State::Retrying, Some(response("early")));
    refuses(lab, waits, "response before the end")
}

fn files_are_placed_once_and_after_the_end(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(CallRecord { filed: false, ..call(1) }), insert(call(2)), start(2, 1)])?;
    refuses(lab, filed(1), "filing before the end")?;
    lab.commit(&[settle_with(1, None, State::Expired, None), settle(2, 1, State::Succeeded)])?;
    lab.commit(&[filed(1)])?;
    assert!(lab.call(id(1))?.filed);
    refuses(lab, filed(1), "second filing")?;
    refuses(lab, filed(2), "second filing")
}

fn the_order_within_a_batch_counts(lab: &mut dyn Lab) -> Outcome {
    let conflict = |result: Result<(), CommitError>, n| match result {
        Err(CommitError::Conflict { call, what }) if call == id(n) => what,
        other => panic!("expected a conflict of call {n}, got {other:?}"),
    };
    let expired = |n| settle_with(n, None, State::Expired, None);
    assert_eq!(conflict(lab.commit(&[start(1, 1), insert(call(1))]), 1), "change before the insert");
    assert_eq!(conflict(lab.commit(&[insert(call(1)), expired(1), start(1, 1)]), 1), "start after the end");
    assert_eq!(conflict(lab.commit(&[insert(call(1)), start(1, 2), start(1, 1)]), 1), "start out of order");
    assert_eq!(conflict(lab.commit(&[insert(call(1)), insert(call(1)), start(1, 1)]), 1), "second insert");
    let keyed = [insert(with_key(1, "", "a")), insert(with_key(2, "", "a"))];
    assert_eq!(conflict(lab.commit(&keyed), 2), "insert under a taken idempotency key");
    let whole = [insert(CallRecord { filed: false, ..call(1) }), start(1, 1), expired(1), filed(1)];
    lab.commit(&whole)?;
    assert!(lab.call(id(1))?.filed);
    Ok(())
}

fn a_body_file_of_a_refused_batch_harms_no_other(lab: &mut dyn Lab) -> Outcome {
    let (body, other) = (vec![1; 70_000], vec![2; 70_000]);
    lab.commit(&[insert_with(call(1), body.clone()), start(1, 1)])?;
    let ends = |body: &[u8]| settle_with(1, Some(attempt_end(1)), State::Succeeded, Some(response(body.to_vec())));
    lab.commit(&[ends(&body)])?;
    refuses(lab, insert_with(call(1), other.clone()), "second insert")?;
    refuses(lab, ends(&other), "second end")?;
    let read = |lab: &mut dyn Lab, call: CallId| -> Result<_, Box<dyn std::error::Error>> {
        let mut reader = lab.reader()?;
        Ok((reader.request(call)?, reader.response(call)?))
    };
    assert_eq!(read(lab, id(1))?, (Some(body.clone().into()), Some(response(body))));
    Ok(())
}

fn marks_are_kept_of_calls_that_live_and_refused_of_others(lab: &mut dyn Lab) -> Outcome {
    let mark = |mark| Write::Mark { call: id(1), mark };
    lab.commit(&[insert(call(1)), start(1, 1)])?;
    let counted = Progress { orphaned: 2, deaths: 1, ..progress(State::Retrying) };
    let Write::Settle(mut settled) = settle(1, 1, State::Retrying) else { return Err("a settlement is one".into()) };
    settled.progress = Some(counted);
    lab.commit(&[Write::Settle(settled), start(1, 2)])?;
    let seen = |lab: &mut dyn Lab| -> Result<_, Box<dyn std::error::Error>> {
        lab.restart()?;
        let call = lab.call(id(1))?;
        Ok((call.cancel_requested, call.progress.deaths, call.progress.orphaned))
    };
    assert_eq!(seen(lab)?, (false, 1, 2));
    lab.commit(&[mark(Mark::Survived)])?;
    assert_eq!(seen(lab)?, (false, 1, 0));
    lab.commit(&[mark(Mark::CancelRequested)])?;
    assert_eq!(seen(lab)?, (true, 1, 0));
    lab.commit(&[settle(1, 2, State::Unknown)])?;
    refuses(lab, mark(Mark::CancelRequested), "mark after the end")?;
    refuses(lab, Write::Mark { call: id(7), mark: Mark::Survived }, "change before the insert")
}
