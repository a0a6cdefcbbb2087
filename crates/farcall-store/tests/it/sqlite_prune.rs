//! What pruning leaves on the disk: no body file, and a database that does not grow for ever.

use std::fs;

use farcall_core::call::State;
use farcall_store::port::{Ended, EndedRange};
use rusqlite::Connection;

use crate::Outcome;
use crate::lab::{Ask as _, Lab, SqliteLab};
use crate::prune::prune;
use crate::sample::{attempt_end, call, id, insert_with, response, settle_with, start, steady};

fn body_files(lab: &SqliteLab) -> std::io::Result<usize> {
    Ok(fs::read_dir(lab.dir().join("bodies"))?.count())
}

/// The n-th call, ended, with bodies of this length.
fn end_with(lab: &mut dyn Lab, n: u32, bytes: usize) -> Outcome {
    let answer = Some(response(vec![7; bytes]));
    lab.commit(&[insert_with(call(n), vec![1; bytes]), start(n, 1)])?;
    lab.commit(&[settle_with(n, Some(attempt_end(1)), State::Succeeded, answer)])?;
    Ok(())
}

fn look(lab: &mut dyn Lab) -> Outcome {
    let range = EndedRange { of: Ended::Keyed, until: steady(0), after: None, count: 1 };
    lab.reader()?.ended(&range)?;
    Ok(())
}

#[test]
fn files_of_pruned_bodies_are_removed_by_whoever_looks_next() -> Outcome {
    let mut lab = SqliteLab::open()?;
    end_with(&mut lab, 1, 70_000)?;
    end_with(&mut lab, 2, 70_000)?;
    let refused = (&mut lab as &mut dyn Lab).commit(&[prune(1), prune(3)]);
    assert!(refused.is_err());
    look(&mut lab)?;
    assert_eq!(body_files(&lab)?, 4, "a refused batch removes nothing");
    (&mut lab as &mut dyn Lab).commit(&[prune(1)])?;
    assert_eq!(body_files(&lab)?, 4, "the writer does not wait for the file system");
    look(&mut lab)?;
    assert_eq!(body_files(&lab)?, 2);
    assert_eq!((&mut lab as &mut dyn Lab).reader()?.response(id(2))?.map(|answer| answer.body.len()), Some(70_000));
    Ok(())
}

#[test]
fn files_that_a_crash_left_of_pruned_bodies_are_swept_at_the_next_start() -> Outcome {
    let mut lab = SqliteLab::open()?;
    end_with(&mut lab, 1, 70_000)?;
    end_with(&mut lab, 2, 70_000)?;
    (&mut lab as &mut dyn Lab).commit(&[prune(1)])?;
    lab.restart()?;
    assert_eq!(body_files(&lab)?, 2);
    Ok(())
}

#[test]
fn a_body_whose_call_is_pruned_while_it_is_read_is_gone_and_no_error() -> Outcome {
    const CALLS: u32 = 60;
    let mut lab = SqliteLab::open()?;
    for n in 0..CALLS {
        end_with(&mut lab, n, 70_000)?;
    }
    let mut reader = (&mut lab as &mut dyn Lab).reader()?;
    let reading = std::thread::spawn(move || {
        let (mut found, mut failed) = (0, 0);
        for n in 0..CALLS {
            // Until it is gone.
            loop {
                match (reader.response(id(n)), reader.request(id(n))) {
                    (Ok(None), Ok(None)) => break,
                    (Ok(_), Ok(_)) => found += 1,
                    (Err(_), _) | (_, Err(_)) => failed += 1,
                }
            }
        }
        (found, failed)
    });
    for n in 0..CALLS {
        (&mut lab as &mut dyn Lab).commit(&[prune(n)])?;
        look(&mut lab)?;
    }
    let (found, failed) = reading.join().map_err(|_| "the reader broke down")?;
    assert_eq!((found > 0, failed), (true, 0));
    Ok(())
}

#[test]
fn the_database_stops_growing_when_as_much_goes_as_comes() -> Outcome {
    const KEPT: u32 = 200;
    let mut lab = SqliteLab::open()?;
    let pages = |lab: &SqliteLab| -> Result<i64, Box<dyn std::error::Error>> {
        let connection = Connection::open(lab.dir().join("farcall.db"))?;
        Ok(connection.pragma_query_value(None, "page_count", |row| row.get(0))?)
    };
    let mut first = 0;
    for n in 0..KEPT * 10 {
        end_with(&mut lab, n, 3_000)?;
        if n >= KEPT {
            (&mut lab as &mut dyn Lab).commit(&[prune(n - KEPT)])?;
        }
        if n == KEPT * 2 {
            first = pages(&lab)?;
        }
    }
    let last = pages(&lab)?;
    assert!(last < first + first / 10, "{first} pages became {last}");
    Ok(())
}
