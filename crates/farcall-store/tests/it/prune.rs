//! Pruning: what may go and what may not, and what is kept of calls that went.

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::port::{AttemptEnd, CommitError, Ended, EndedRange, GrantsAsk, Legible, Prune, Settle, Write};
use farcall_store::record::{CallRecord, EndedRecord};

use crate::lab::{Ask as _, Lab};
use crate::sample::{
    attempt_end, call, filed, id, insert, insert_with, key, progress, response, settle, settle_attempt, settle_with,
    start, start_at, steady,
};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_pruned_call_is_unknown_and_counted,
    only_calls_that_nothing_needs_are_pruned,
    ended_calls_come_in_the_order_of_their_ends,
    calls_that_are_held_are_told,
    keyed_calls_are_looked_for_apart,
    what_pruned_calls_count_in_limits_is_kept,
    kept_counts_are_summed_and_old_ones_go,
    a_refused_batch_prunes_nothing,
}

pub(crate) fn prune(n: u32) -> Write {
    Write::Prune(Prune { call: id(n), grants_since: steady(0) })
}

/// A call that ended at this second.
fn ended(n: u32, second: i64, state: State) -> [Write; 2] {
    [insert(call(n)), end_at(n, second, state)]
}

fn end_at(n: u32, second: i64, state: State) -> Write {
    let (at, progress) = (steady(second), Some(progress(state)));
    Write::Settle(Box::new(Settle { at, call: id(n), attempt: None, progress, heading: None, response: None }))
}

fn range(of: Ended, until: i64) -> EndedRange {
    EndedRange { of, until: steady(until), after: None, count: 100 }
}

fn found(lab: &mut dyn Lab, range: EndedRange) -> Result<Vec<(CallId, bool)>, Box<dyn std::error::Error>> {
    let records = lab.reader()?.ended(&range)?;
    Ok(records.into_iter().map(|EndedRecord { call, is_held, .. }| (call, is_held)).collect())
}

fn refused(result: Result<(), CommitError>) -> &'static str {
    match result {
        Err(CommitError::Conflict { what, .. }) => what,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

fn a_pruned_call_is_unknown_and_counted(lab: &mut dyn Lab) -> Outcome {
    let answer = Some(response(vec![7; 70_000]));
    lab.commit(&[insert_with(call(1), vec![1; 70_000]), insert(call(2)), start(1, 1), start(2, 1)])?;
    lab.commit(&[settle_with(1, Some(attempt_end(1)), State::Succeeded, answer), settle(2, 1, State::Failed)])?;
    lab.commit(&[prune(1)])?;
    let mut reader = lab.reader()?;
    assert_eq!(reader.call(id(1))?, None);
    assert_eq!(reader.attempts(id(1))?, []);
    assert_eq!(reader.request(id(1))?, None);
    assert_eq!(reader.requests(&[id(1)])?, Legible::whole(vec![None]));
    assert_eq!(reader.response(id(1))?, None);
    assert!(reader.call(id(2))?.is_some() && reader.attempts(id(2))?.len() == 1);
    drop(reader);
    for write in [start(1, 2), filed(1), prune(1)] {
        assert_eq!(refused(lab.commit(&[write])), "change before the insert");
    }
    let totals = lab.restart()?.totals;
    assert_eq!((totals.accepted, totals.pruned, totals.of(State::Succeeded), totals.of(State::Failed)), (2, 1, 0, 1));
    Ok(())
}

fn only_calls_that_nothing_needs_are_pruned(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), insert(CallRecord { filed: false, ..call(2) }), insert(call(3)), start(3, 1)])?;
    assert_eq!(refused(lab.commit(&[prune(1)])), "pruning before the end");
    assert_eq!(refused(lab.commit(&[prune(3)])), "pruning before the end");
    lab.commit(&[end_at(2, 5, State::Expired)])?;
    assert_eq!(refused(lab.commit(&[prune(2)])), "pruning before the filing");
    lab.commit(&[filed(2), prune(2)])?;
    lab.commit(&[start(3, 2), settle(3, 2, State::Succeeded)])?;
    assert_eq!(refused(lab.commit(&[prune(3)])), "pruning while an attempt is out");
    lab.commit(&[settle_attempt(3, 1), prune(3)])?;
    let callback = CallRecord { callback_of: Some(id(1)), ..call(4) };
    lab.commit(&[end_at(1, 6, State::Failed), insert(callback)])?;
    assert_eq!(refused(lab.commit(&[prune(1)])), "pruning before the callback's end");
    lab.commit(&[start(4, 1), settle(4, 1, State::Failed), prune(1)])?;
    lab.commit(&[prune(4)])?;
    let totals = lab.restart()?.totals;
    assert_eq!((totals.accepted, totals.pruned, totals.calls.iter().sum::<u64>()), (4, 4, 0));
    Ok(())
}

fn ended_calls_come_in_the_order_of_their_ends(lab: &mut dyn Lab) -> Outcome {
    for (n, second) in [(1, 50), (2, 40), (3, 40), (4, 60), (5, 61)] {
        lab.commit(&ended(n, second, State::Succeeded))?;
    }
    lab.commit(&ended(6, 10, State::Failed))?;
    lab.commit(&[insert(call(7)), insert(CallRecord { filed: false, ..call(8) }), end_at(8, 1, State::Succeeded)])?;
    let succeeded = range(Ended::Unkeyed(State::Succeeded), 60);
    // Larger numbers have smaller ids.
    let all = [3, 2, 1, 4].map(|n| (id(n), false));
    assert_eq!(found(lab, succeeded)?, all);
    assert_eq!(found(lab, EndedRange { count: 2, ..succeeded })?, all[..2]);
    assert_eq!(found(lab, EndedRange { after: Some((steady(40), id(3))), ..succeeded })?, all[1..]);
    assert_eq!(found(lab, EndedRange { after: Some((steady(60), id(4))), ..succeeded })?, []);
    lab.restart()?;
    assert_eq!(found(lab, succeeded)?, all);
    lab.commit(&[prune(2)])?;
    assert_eq!(found(lab, succeeded)?, [3, 1, 4].map(|n| (id(n), false)));
    assert_eq!(found(lab, range(Ended::Unkeyed(State::Failed), 60))?, [(id(6), false)]);
    assert_eq!(found(lab, range(Ended::Unkeyed(State::Cancelled), 60))?, []);
    Ok(())
}

fn calls_that_are_held_are_told(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), start(1, 1), start(1, 2), settle(1, 2, State::Succeeded)])?;
    lab.commit(&ended(2, 150, State::Succeeded))?;
    lab.commit(&[insert(CallRecord { callback_of: Some(id(2)), ..call(3) })])?;
    lab.commit(&ended(4, 160, State::Succeeded))?;
    let succeeded = range(Ended::Unkeyed(State::Succeeded), 1_000);
    assert_eq!(found(lab, succeeded)?, [(id(1), true), (id(2), true), (id(4), false)]);
    lab.commit(&[settle_attempt(1, 1), end_at(3, 170, State::Failed)])?;
    assert_eq!(found(lab, succeeded)?, [(id(1), false), (id(2), false), (id(4), false)]);
    Ok(())
}

fn keyed_calls_are_looked_for_apart(lab: &mut dyn Lab) -> Outcome {
    let keyed = |n: u32, name: &str| CallRecord { idempotency: Some(key(name)), ..call(n) };
    let free = |n| Write::FreeKey(id(n));
    lab.commit(&[insert(keyed(1, "a")), insert(keyed(2, "b")), insert(call(3))])?;
    assert_eq!(refused(lab.commit(&[free(1)])), "freeing of the key before the end");
    lab.commit(&[end_at(1, 10, State::Succeeded), end_at(3, 10, State::Succeeded)])?;
    assert_eq!(refused(lab.commit(&[free(3)])), "freeing of no key");
    assert_eq!(found(lab, range(Ended::Keyed, 10))?, [(id(1), false)]);
    assert_eq!(found(lab, range(Ended::Keyed, 9))?, []);
    assert_eq!(found(lab, range(Ended::Unkeyed(State::Succeeded), 10))?, [(id(3), false)]);
    lab.commit(&[free(1)])?;
    assert_eq!(refused(lab.commit(&[free(1)])), "freeing of no key");
    assert_eq!(lab.reader()?.keyed("", "a")?, None);
    assert_eq!(lab.call(id(1))?.idempotency, None);
    assert_eq!(found(lab, range(Ended::Keyed, 10))?, []);
    assert_eq!(found(lab, range(Ended::Unkeyed(State::Succeeded), 10))?.len(), 2);
    lab.commit(&[insert(keyed(5, "a"))])?;
    assert_eq!(lab.reader()?.keyed("", "a")?.map(|call| call.id), Some(id(5)));
    // A key goes with its call.
    lab.commit(&[end_at(2, 11, State::Failed), prune(2), insert(keyed(6, "b"))])?;
    assert_eq!(lab.reader()?.keyed("", "b")?.map(|call| call.id), Some(id(6)));
    Ok(())
}

fn proved(n: u32, granted_at: i64, proved_at: Option<i64>, cost: u32) -> [Write; 3] {
    let end = AttemptEnd { proved_at: proved_at.map(steady), ..attempt_end(1) };
    let call = CallRecord { cost, ..call(n) };
    [insert(call), start_at(n, 1, granted_at), settle_with(n, Some(end), State::Succeeded, None)]
}

fn grants(lab: &mut dyn Lab, since: i64, count: u32) -> Result<Vec<(Steady, u32)>, Box<dyn std::error::Error>> {
    let ask = GrantsAsk::Latest { since: steady(since), count };
    let grants = lab.reader()?.granted("shop", ask)?;
    Ok(grants.into_iter().map(|grant| (grant.latest_at.expect("all have ended"), grant.cost)).collect())
}

/// The end of the ten seconds that begin at this second.
fn step_end(second: i64) -> Steady {
    Steady::from_micros(steady(second + 10).as_micros() - 1)
}

fn what_pruned_calls_count_in_limits_is_kept(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&proved(1, 101, Some(103), 2))?;
    lab.commit(&proved(2, 104, Some(105), 3))?;
    lab.commit(&proved(3, 108, None, 7))?;
    lab.commit(&proved(4, 130, Some(131), 5))?;
    for n in [1, 2, 3] {
        lab.commit(&[prune(n)])?;
    }
    let both = [(steady(131), 5), (step_end(100), 5)];
    assert_eq!(grants(lab, 0, 10)?, both);
    lab.restart()?;
    assert_eq!(grants(lab, 0, 10)?, both);
    assert_eq!(grants(lab, 0, 1)?, both[..1]);
    assert_eq!(grants(lab, 109, 10)?, both, "what was kept counts from the end of its time");
    assert_eq!(grants(lab, 110, 10)?, both[..1]);
    let step_us = std::num::NonZeroI64::new(100_000_000).ok_or("not zero")?;
    let sums = lab.reader()?.granted("shop", GrantsAsk::Sums { since: steady(0), step_us })?;
    assert_eq!(sums.iter().map(|sum| sum.cost).collect::<Vec<_>>(), [10]);
    assert_eq!(lab.reader()?.granted("bank", GrantsAsk::Latest { since: steady(0), count: 9 })?, []);
    Ok(())
}

fn kept_counts_are_summed_and_old_ones_go(lab: &mut dyn Lab) -> Outcome {
    for (n, second) in [(1, 10), (2, 200), (3, 201), (4, 400)] {
        lab.commit(&proved(n, second, Some(second), n))?;
    }
    let prune = |n, since| Write::Prune(Prune { call: id(n), grants_since: steady(since) });
    lab.commit(&[prune(1, 0), prune(2, 0)])?;
    lab.commit(&[prune(3, 0)])?;
    assert_eq!(grants(lab, 0, 10)?, [(steady(400), 4), (step_end(200), 5), (step_end(10), 1)]);
    lab.commit(&[prune(4, 500)])?;
    assert_eq!(grants(lab, 0, 10)?, [], "too old to be kept, and what was kept before with it");
    Ok(())
}

fn a_refused_batch_prunes_nothing(lab: &mut dyn Lab) -> Outcome {
    let keyed = CallRecord { idempotency: Some(key("a")), ..call(1) };
    lab.commit(&[insert_with(keyed, vec![1; 70_000]), start(1, 1), settle(1, 1, State::Succeeded)])?;
    let before = (lab.call(id(1))?, grants(lab, 0, 10)?);
    assert_eq!(refused(lab.commit(&[prune(1), prune(2)])), "change before the insert");
    assert_eq!(refused(lab.commit(&[Write::FreeKey(id(1)), prune(1), filed(1)])), "change before the insert");
    assert_eq!((lab.call(id(1))?, grants(lab, 0, 10)?), before);
    assert_eq!(lab.reader()?.keyed("", "a")?.map(|call| call.id), Some(id(1)));
    assert_eq!(lab.reader()?.ended(&range(Ended::Keyed, 1_000))?.len(), 1);
    assert_eq!(lab.reader()?.request(id(1))?.map(|body| body.len()), Some(70_000));
    let totals = lab.restart()?.totals;
    assert_eq!((totals.pruned, totals.of(State::Succeeded)), (0, 1));
    Ok(())
}
