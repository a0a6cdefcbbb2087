//! Rows that were changed behind the store's back: each is named and passed over, and no other call is lost with it.

use std::path::PathBuf;

use farcall_core::call::{State, TenantId};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::port::{LaneRange, Legible, Write};
use farcall_store::record::{CallRecord, Damaged, LaneName, Recovery};
use rusqlite::Connection;

use crate::Outcome;
use crate::lab::{Ask as _, Lab, SqliteLab};
use crate::sample::{call, id, insert, insert_with, settle, start, steady, waiting};

/// What a page with rows of a table begins with (SQLite's file format, section 1.6).
const TABLE_LEAF: u8 = 13;

/// Changes the database of a lab whose store is closed.
fn damage(lab: &mut SqliteLab, sql: &str) -> Outcome {
    lab.close();
    let connection = Connection::open(lab.dir().join("farcall.db"))?;
    connection.execute_batch(sql)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn stocked(writes: &[Write]) -> Result<SqliteLab, Box<dyn std::error::Error>> {
    let mut lab = SqliteLab::open()?;
    (&mut lab as &mut dyn Lab).commit(writes)?;
    Ok(lab)
}

fn lane(count: u32) -> LaneRange {
    let lane = LaneName { limit_key: "shop".to_owned(), of_callbacks: false, priority: 3, tenant: TenantId::default() };
    LaneRange { lane, ready_at: Steady::from_micros(i64::MIN), call: CallId::from_bits(0), count }
}

fn ids(calls: &[CallRecord]) -> Vec<CallId> {
    calls.iter().map(|call| call.id).collect()
}

fn named(damaged: &[Damaged]) -> Vec<(Option<CallId>, bool)> {
    damaged.iter().map(|damaged| (damaged.call, damaged.is_live)).collect()
}

fn body_file(lab: &SqliteLab, call: CallId) -> PathBuf {
    lab.dir().join("bodies").join(format!("{}.request", call.uuid()))
}

#[test]
fn a_damaged_call_is_passed_over_in_its_lane_and_among_deadlines() -> Outcome {
    let due = |n, second: i64| CallRecord { deadline: Some(steady(100 + second)), ..waiting(n, second) };
    let mut lab = stocked(&(1..=4).map(|n| insert(due(n, i64::from(n)))).collect::<Vec<_>>())?;
    damage(&mut lab, "UPDATE calls SET state = 'quEued' WHERE seq = 2; UPDATE calls SET tags = '[' WHERE seq = 3")?;
    lab.restart()?;
    let mut reader = lab.store().reader()?;
    let damaged = [(Some(id(2)), true), (Some(id(3)), true)];
    for count in [9, 2] {
        let read = reader.lanes(&[lane(count), lane(1)])?;
        let found: Vec<_> = read.found.iter().map(|calls| ids(calls)).collect();
        assert_eq!(found, [vec![id(1), id(4)], vec![id(1)]]);
        assert_eq!(named(&read.damaged), damaged);
        let read = reader.expiring(count)?;
        assert_eq!((ids(&read.found), named(&read.damaged)), (vec![id(1), id(4)], damaged.to_vec()));
    }
    Ok(())
}

#[test]
fn a_damaged_call_that_ran_or_waits_for_its_files_is_left_out_of_what_is_taken_over() -> Outcome {
    let mut writes: Vec<Write> = (1..=4).map(|n| insert(call(n))).collect();
    writes.extend([start(1, 1), start(2, 1), start(3, 1), start(4, 1)]);
    let unfiled = |n| CallRecord { filed: false, ..call(n) };
    writes.extend([insert(unfiled(5)), insert(unfiled(6)), start(5, 1), start(6, 1)]);
    writes.extend([settle(5, 1, State::Succeeded), settle(6, 1, State::Succeeded)]);
    let mut lab = stocked(&writes)?;
    damage(
        &mut lab,
        "UPDATE calls SET via = 'tcq' WHERE seq IN (2, 5); UPDATE open_attempts SET kind = 'firs4' WHERE call = 4",
    )?;
    let Recovery { engaged, unfiled, open_attempts, damaged, .. } = lab.restart()?;
    assert_eq!((ids(&engaged), ids(&unfiled)), (vec![id(1), id(3), id(4)], vec![id(6)]));
    assert_eq!(open_attempts.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(named(&damaged), [(Some(id(2)), true), (Some(id(4)), false), (Some(id(5)), false)]);
    Ok(())
}

/// A page of the database is broken, as SQLite sees it: only the calls that stand there are lost.
#[test]
fn a_broken_page_costs_the_calls_on_it() -> Outcome {
    let long = |n| CallRecord { url: "u".repeat(900), ..waiting(n, i64::from(n)) };
    let mut lab = stocked(&(1..=40).map(|n| insert(long(n))).collect::<Vec<_>>())?;
    lab.close();
    let path = lab.dir().join("farcall.db");
    let mut database = std::fs::read(&path)?;
    let holds_calls = |page: &[u8]| page[0] == TABLE_LEAF && page.windows(99).any(|bytes| bytes == [b'u'; 99]);
    let page = database.chunks_mut(4_096).filter(|page| holds_calls(page)).nth(3).ok_or("no page holds calls")?;
    // Its kind is none that there is.
    page[0] = 7;
    std::fs::write(&path, database)?;
    lab.restart()?;
    let read = lab.store().reader()?.lanes(&[lane(100)])?;
    let (found, damaged) = (read.found[0].len(), read.damaged.len());
    assert_eq!(found + damaged, 40);
    assert!((1..=8).contains(&damaged), "{damaged} damaged");
    Ok(())
}

#[test]
fn a_damaged_document_is_missing_among_those_read_together_and_no_other_is() -> Outcome {
    let large = |n: u8| vec![n; 70_000];
    let mut writes: Vec<Write> = (1..=3).map(|n| insert_with(call(n), format!("document {n}").into_bytes())).collect();
    writes.extend((4..=6).map(|n: u8| insert_with(call(n.into()), large(n))));
    let mut lab = stocked(&writes)?;
    damage(&mut lab, "UPDATE requests SET body = CAST('docum3nt 2' AS BLOB) WHERE body = CAST('document 2' AS BLOB)")?;
    std::fs::remove_file(body_file(&lab, id(4)))?;
    std::fs::write(body_file(&lab, id(5)), large(0))?;
    lab.restart()?;
    let mut reader = lab.store().reader()?;
    let Legible { found, damaged } = reader.requests(&(1..=6).map(id).collect::<Vec<_>>())?;
    let is_found: Vec<_> = found.iter().map(Option::is_some).collect();
    assert_eq!(is_found, [true, false, true, false, false, true]);
    assert_eq!(named(&damaged), [2, 4, 5].map(|n| (Some(id(n)), true)));
    Ok(())
}
