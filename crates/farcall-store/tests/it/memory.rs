//! What only the store in memory can do.
//!
//! It dies at a chosen commit, on either side of it; it can be copied, and shared by two engines.

use std::error::Error as _;

use farcall_core::call::State;
use farcall_store::memory::{Crashed, Fault, MemoryStore};
use farcall_store::port::{CommitError, Store};

use crate::Outcome;
use crate::sample::{call, id, insert, settle, start};

fn taken_over() -> Result<MemoryStore, Box<dyn std::error::Error>> {
    let mut store = MemoryStore::new();
    store.take_over()?;
    Ok(store)
}

fn is_crash(result: &Result<(), CommitError>) -> bool {
    result.as_ref().is_err_and(|error| error.source().is_some_and(|source| source.is::<Crashed>()))
}

/// The number of calls a fresh process finds when the process dies at the third commit.
fn live_after(fault: Fault) -> Result<usize, Box<dyn std::error::Error>> {
    let mut store = taken_over()?;
    store.inject(fault, 2);
    store.commit(&[insert(call(1))])?;
    store.commit(&[])?;
    store.commit(&[insert(call(2))])?;
    assert!(is_crash(&store.commit(&[insert(call(3))])));
    assert!(is_crash(&store.commit(&[insert(call(4))])), "a dead process commits nothing");
    assert!(store.reader().is_err() && store.take_over().is_err());
    let mut store = store.crash();
    let live = store.take_over()?.engaged.len();
    store.commit(&[insert(call(4))])?;
    Ok(live)
}

#[test]
fn a_crash_before_a_commit_loses_it_and_one_after_keeps_it() -> Outcome {
    assert_eq!(live_after(Fault::CrashBefore)?, 2);
    assert_eq!(live_after(Fault::CrashAfter)?, 3);
    Ok(())
}

#[test]
fn a_refused_batch_is_refused_and_not_crashed_after() -> Outcome {
    let mut store = taken_over()?;
    store.inject(Fault::CrashAfter, 0);
    let refused = store.commit(&[start(1, 1)]);
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    store.commit(&[insert(call(1))])?;
    Ok(())
}

#[test]
fn a_full_store_refuses_one_batch_and_lives_on() -> Outcome {
    let mut store = taken_over()?;
    store.inject(Fault::Full, 0);
    assert!(matches!(store.commit(&[insert(call(1))]), Err(CommitError::Full)));
    store.commit(&[insert(call(1))])?;
    assert_eq!(store.crash().take_over()?.engaged, [call(1)]);
    Ok(())
}

#[test]
fn the_engine_that_took_over_last_is_the_only_writer() -> Outcome {
    let mut old = taken_over()?;
    let mut new = old.attach();
    assert!(matches!(new.commit(&[insert(call(1))]), Err(CommitError::Conflict { what: "superseded write", .. })));
    old.commit(&[insert(call(1))])?;
    assert_eq!(new.take_over()?.engaged, [call(1)]);
    assert!(matches!(old.commit(&[start(1, 1)]), Err(CommitError::Conflict { what: "superseded write", .. })));
    new.commit(&[start(1, 1)])?;
    assert_eq!(old.reader()?.attempts(id(1))?.len(), 1);
    Ok(())
}

#[test]
fn a_snapshot_and_its_original_go_apart() -> Outcome {
    let mut store = taken_over()?;
    store.commit(&[insert(call(1)), start(1, 1)])?;
    let mut copy = store.snapshot();
    store.commit(&[settle(1, 1, State::Succeeded), insert(call(2))])?;
    assert_eq!(copy.take_over()?.totals.of(State::Running), 1);
    copy.commit(&[settle(1, 1, State::Failed)])?;
    assert_eq!(copy.crash().take_over()?.totals.of(State::Failed), 1);
    let totals = store.crash().take_over()?.totals;
    assert_eq!((totals.accepted, totals.of(State::Succeeded), totals.of(State::Queued)), (2, 1, 1));
    Ok(())
}

#[test]
fn free_space_is_what_the_test_says() -> Outcome {
    let mut store = taken_over()?;
    store.set_free_bytes(17);
    assert_eq!(store.crash().reader()?.free_bytes()?, 17);
    Ok(())
}
