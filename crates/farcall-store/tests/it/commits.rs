//! A commit is whole, and readers see it when it is made and not before.
//!
//! Durability against a kill or a power cut is not shown here: that takes the real program.

use farcall_core::call::State;
use farcall_store::port::CommitError;

use crate::lab::Lab;
use crate::sample::{call, id, insert, settle, start};
use crate::{Outcome, for_each_store};

for_each_store! {
    an_empty_batch_is_durable_already,
    a_reader_sees_each_commit_and_nothing_of_a_refused_one,
    readers_are_independent_of_each_other_and_of_the_writer,
    a_thousand_writes_are_one_batch,
    free_space_is_told,
}

fn an_empty_batch_is_durable_already(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[])?;
    assert_eq!(lab.restart()?.totals.accepted, 0);
    Ok(())
}

fn a_reader_sees_each_commit_and_nothing_of_a_refused_one(lab: &mut dyn Lab) -> Outcome {
    let mut reader = lab.reader()?;
    assert_eq!(reader.call(id(1))?, None);
    lab.commit(&[insert(call(1))])?;
    assert_eq!(reader.call(id(1))?, Some(call(1)));
    let refused = lab.commit(&[insert(call(2)), start(1, 1), start(1, 1)]);
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    assert_eq!(reader.call(id(2))?, None);
    assert_eq!(reader.call(id(1))?, Some(call(1)));
    assert_eq!(reader.attempts(id(1))?, []);
    lab.commit(&[start(1, 1)])?;
    assert_eq!(reader.attempts(id(1))?.len(), 1);
    Ok(())
}

fn readers_are_independent_of_each_other_and_of_the_writer(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1))])?;
    let mut readers = [lab.reader()?, lab.reader()?];
    let read = std::thread::spawn(move || -> Result<_, farcall_store::port::ReadError> {
        let mut found = Vec::new();
        for _ in 0..50 {
            for reader in &mut readers {
                found.push(reader.call(id(1))?.map(|call| call.id));
            }
        }
        Ok(found)
    });
    for number in 1..=20 {
        lab.commit(&[start(1, number)])?;
        lab.commit(&[settle(1, number, State::Retrying)])?;
    }
    let found = read.join().map_err(|_| "a reader panicked")??;
    assert_eq!(found, vec![Some(id(1)); 100]);
    Ok(())
}

fn a_thousand_writes_are_one_batch(lab: &mut dyn Lab) -> Outcome {
    let batch: Vec<_> = (0..500).flat_map(|n| [insert(call(n)), start(n, 1)]).collect();
    lab.commit(&batch)?;
    let ends: Vec<_> = (0..500).map(|n| settle(n, 1, State::Succeeded)).collect();
    lab.commit(&ends)?;
    let recovery = lab.restart()?;
    assert_eq!((recovery.totals.accepted, recovery.totals.of(State::Succeeded)), (500, 500));
    assert_eq!(lab.reader()?.attempts(id(499))?.len(), 1);
    Ok(())
}

fn free_space_is_told(lab: &mut dyn Lab) -> Outcome {
    assert!(lab.store().reader()?.free_bytes()? > 0);
    Ok(())
}
