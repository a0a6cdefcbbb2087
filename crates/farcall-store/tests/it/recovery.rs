//! What a new process takes over: every call that needs it, in the order of acceptance, and totals that add up.
//!
//! A restart closes the store; files as a crash leaves them are in `sqlite`, crashes between commits in `memory`.

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_store::record::{AttemptRecord, CallRecord, FileIdentity, Totals};

use crate::lab::Lab;
use crate::sample::{call, filed, full_call, id, insert, progress, settle, settle_with, start};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_fresh_store_has_nothing_to_take_over,
    calls_in_every_state_are_taken_over,
    calls_in_no_lane_come_in_the_order_of_acceptance,
    attempts_that_were_out_are_told,
    unfiled_ends_are_told_until_they_are_filed,
    unfiled_calls_are_found_by_the_names_of_their_files,
    totals_add_up_after_every_step,
    taking_over_again_changes_nothing,
}

fn ids<'a>(calls: impl IntoIterator<Item = &'a CallRecord>) -> Vec<CallId> {
    calls.into_iter().map(|call| call.id).collect()
}

fn a_fresh_store_has_nothing_to_take_over(lab: &mut dyn Lab) -> Outcome {
    let recovery = lab.restart()?;
    assert_eq!((recovery.engaged.len(), recovery.open_attempts.len(), recovery.unfiled.len()), (0, 0, 0));
    assert_eq!(recovery.totals, Totals::default());
    Ok(())
}

fn calls_in_every_state_are_taken_over(lab: &mut dyn Lab) -> Outcome {
    let calls: Vec<_> =
        (0..).zip(State::ALL).map(|(n, &state)| CallRecord { progress: progress(state), ..full_call(n) }).collect();
    lab.commit(&calls.iter().cloned().map(insert).collect::<Vec<_>>())?;
    let recovery = lab.restart()?;
    let (ended, live): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.progress.state.is_end());
    assert_eq!(recovery.engaged, live);
    assert_eq!(recovery.unfiled, ended);
    assert_eq!(recovery.totals, Totals { accepted: 10, pruned: 0, calls: [1; 10] });
    Ok(())
}

fn calls_in_no_lane_come_in_the_order_of_acceptance(lab: &mut dyn Lab) -> Outcome {
    // The ids of the samples descend, so order by id would show.
    lab.commit(&[insert(call(3)), insert(call(5))])?;
    lab.commit(&[insert(call(4)), start(4, 1)])?;
    lab.commit(&[insert(call(1)), settle_with(3, None, State::Expired, None)])?;
    assert_eq!(ids(&lab.restart()?.engaged), [id(5), id(4), id(1)]);
    lab.commit(&[insert(call(2))])?;
    assert_eq!(ids(&lab.restart()?.engaged), [id(5), id(4), id(1), id(2)]);
    Ok(())
}

fn attempts_that_were_out_are_told(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(2)), start(2, 1), start(2, 2), insert(call(1)), start(1, 1), insert(call(3))])?;
    lab.commit(&[settle(2, 1, State::Running)])?;
    let told = |recovery: &farcall_store::record::Recovery| -> Vec<(CallId, u32)> {
        recovery.open_attempts.iter().map(|(call, attempt)| (*call, attempt.number)).collect()
    };
    let recovery = lab.restart()?;
    assert_eq!(told(&recovery), [(id(2), 2), (id(1), 1)]);
    let stored: Vec<AttemptRecord> = lab.reader()?.attempts(id(1))?;
    assert_eq!(recovery.open_attempts[1].1, stored[0]);

    lab.commit(&[settle(2, 2, State::Unknown), start(1, 2)])?;
    assert_eq!(told(&lab.restart()?), [(id(1), 1), (id(1), 2)]);
    lab.commit(&[settle(1, 1, State::Succeeded)])?;
    assert_eq!(told(&lab.restart()?), [(id(1), 2)], "its call has ended");
    Ok(())
}

fn unfiled_ends_are_told_until_they_are_filed(lab: &mut dyn Lab) -> Outcome {
    let from_file = |n| CallRecord { filed: false, ..call(n) };
    lab.commit(&[insert(from_file(2)), insert(from_file(1)), insert(call(3)), insert(from_file(4))])?;
    let expire = |n| settle_with(n, None, State::Expired, None);
    lab.commit(&[expire(1), expire(2), expire(3)])?;
    let recovery = lab.restart()?;
    assert_eq!((ids(&recovery.unfiled), ids(&recovery.engaged)), (vec![id(2), id(1)], vec![id(4)]));
    lab.commit(&[filed(2)])?;
    assert_eq!(ids(&lab.restart()?.unfiled), [id(1)]);
    lab.commit(&[filed(1)])?;
    assert_eq!(ids(&lab.restart()?.unfiled), []);
    Ok(())
}

fn unfiled_calls_are_found_by_the_names_of_their_files(lab: &mut dyn Lab) -> Outcome {
    let file = |name: &[u8], inode| FileIdentity { name: name.to_vec(), device: u64::MAX, inode, changed_ns: -1 };
    let from = |n, name| CallRecord { file: Some(file(name, n)), filed: false, ..call(n as u32) };
    lab.commit(&[insert(from(2, b"a\xff.json")), insert(from(1, b"a\xff.json")), insert(from(3, b"b.json"))])?;
    let mut reader = lab.reader()?;
    let both = vec![(id(2), file(b"a\xff.json", 2)), (id(1), file(b"a\xff.json", 1))];
    assert_eq!(reader.unfiled(b"a\xff.json")?, both);
    assert_eq!((reader.unfiled(b"b.json")?.len(), reader.unfiled(b"c.json")?.len()), (1, 0));
    lab.commit(&[settle_with(2, None, State::Expired, None), filed(2)])?;
    assert_eq!(lab.reader()?.unfiled(b"a\xff.json")?, both[1..]);
    Ok(())
}

fn totals_add_up_after_every_step(lab: &mut dyn Lab) -> Outcome {
    let ends = State::ALL.iter().filter(|state| state.is_end());
    let mut steps = vec![vec![insert(call(0))], vec![start(0, 1)], vec![settle(0, 1, State::Retrying)]];
    for (n, &end) in (1..).zip(ends) {
        steps.push(vec![insert(call(n)), start(n, 1), settle(n, 1, end), insert(call(100 + n))]);
    }
    steps.push(vec![insert(call(0))]);
    let mut accepted = 0;
    for step in steps {
        let committed = lab.commit(&step).is_ok();
        accepted += if committed { step.iter().filter(|write| is_insert(write)).count() as u64 } else { 0 };
        let totals = lab.restart()?.totals;
        assert_eq!(totals.accepted, accepted);
        assert_eq!(totals.accepted, totals.pruned + totals.calls.iter().sum::<u64>());
    }
    let totals = lab.restart()?.totals;
    assert_eq!((totals.of(State::Queued), totals.of(State::Retrying), totals.of(State::Unknown)), (6, 1, 1));
    Ok(())
}

fn is_insert(write: &farcall_store::port::Write) -> bool {
    matches!(write, farcall_store::port::Write::Insert(_))
}

fn taking_over_again_changes_nothing(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(full_call(1)), insert(call(2)), start(2, 1)])?;
    let recovery = lab.restart()?;
    for _ in 0..5 {
        assert_eq!(lab.restart()?, recovery);
    }
    Ok(())
}
