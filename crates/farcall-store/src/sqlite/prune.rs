//! Pruning calls that have ended: which there are, and removing them row by row.
//!
//! Large bodies go last, after the commit, and not by the writer: whoever asks next which calls have ended removes their
//! files first. A crash in between leaves orphans, which the next start sweeps.

use farcall_core::id::CallId;
use rusqlite::{Connection, Row, params};

use super::bodies::Part;
use super::grants;
use super::row::{Columns, blob};
use crate::port::{Ended, EndedRange, Prune};
use crate::record::EndedRecord;
use crate::transition::HeldBy;

/// The ended calls of a range.
pub(super) fn ended(connection: &Connection, range: &EndedRange) -> rusqlite::Result<Vec<EndedRecord>> {
    let EndedRange { of, until, after, count } = *range;
    let (after_at, after_id) = after.map_or((i64::MIN, [0; 16]), |(at, call)| (at.as_micros(), blob(call)));
    match of {
        Ended::Unkeyed(state) => connection
            .prepare_cached(UNKEYED)?
            .query_map(params![until.as_micros(), after_at, after_id, count, state.as_str()], record)?
            .collect(),
        Ended::Keyed => connection
            .prepare_cached(KEYED)?
            .query_map(params![until.as_micros(), after_at, after_id, count], record)?
            .collect(),
    }
}

/// What keeps a call from being pruned.
pub(super) fn held_by(connection: &Connection, call: CallId, seq: i64) -> rusqlite::Result<HeldBy> {
    connection
        .prepare_cached(HELD_BY)?
        .query_row(params![seq, blob(call)], |row| Ok(HeldBy { open_attempt: row.get(0)?, live_callback: row.get(1)? }))
}

/// Removes the rows of a call; gives those of its bodies that stand in files.
pub(super) fn remove(connection: &Connection, seq: i64, prune: &Prune) -> rusqlite::Result<Vec<(CallId, Part)>> {
    let one = |sql: &str| connection.prepare_cached(sql)?.execute([seq]);
    grants::keep(connection, seq, prune)?;
    one("DELETE FROM attempts WHERE call = ?1")?;
    let mut files = Vec::new();
    for (sql, part) in [(DELETE_REQUEST, Part::Request), (DELETE_RESPONSE, Part::Response)] {
        let mut statement = connection.prepare_cached(sql)?;
        for in_file in statement.query_map([seq], |row| row.get::<_, bool>(0))? {
            if in_file? {
                files.push((prune.call, part));
            }
        }
    }
    one("DELETE FROM ends WHERE call = ?1")?;
    one("DELETE FROM calls WHERE seq = ?1")?;
    Ok(files)
}

fn record(row: &Row<'_>) -> rusqlite::Result<EndedRecord> {
    let mut columns = Columns::new(row);
    let (call, ended_at) = (columns.id()?, columns.steady()?);
    let held_by = HeldBy { open_attempt: columns.take()?, live_callback: columns.take()? };
    Ok(EndedRecord { call, ended_at, is_held: held_by.open_attempt || held_by.live_callback })
}

macro_rules! is_held {
    ($seq:literal, $id:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM open_attempts WHERE open_attempts.call = ",
            $seq,
            "), EXISTS (SELECT 1 FROM calls AS other INDEXED BY calls_calling_back WHERE other.callback_of = ",
            $id,
            " AND other.callback_of IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ends AS end WHERE end.call = other.seq))"
        )
    };
}

/// Ends of one moment are put in the order of their ids, which hardly ever happens.
const UNKEYED: &str = concat!(
    "SELECT calls.id, ends.ended_at, ",
    is_held!("calls.seq", "calls.id"),
    " FROM ends INDEXED BY ends_unkeyed CROSS JOIN calls ON calls.seq = ends.call \
     WHERE ends.keyed = 0 AND ends.state = ?5 AND ends.ended_at BETWEEN ?2 AND ?1 \
     AND (ends.ended_at, calls.id) > (?2, ?3) \
     AND NOT EXISTS (SELECT 1 FROM unfiled WHERE unfiled.call = ends.call) \
     ORDER BY ends.ended_at, calls.id LIMIT ?4"
);

const KEYED: &str = concat!(
    "SELECT calls.id, ends.ended_at, ",
    is_held!("calls.seq", "calls.id"),
    " FROM ends INDEXED BY ends_keyed CROSS JOIN calls ON calls.seq = ends.call \
     WHERE ends.keyed = 1 AND ends.ended_at BETWEEN ?2 AND ?1 AND (ends.ended_at, calls.id) > (?2, ?3) \
     ORDER BY ends.ended_at, calls.id LIMIT ?4"
);

const HELD_BY: &str = concat!("SELECT ", is_held!("?1", "?2"));

const DELETE_REQUEST: &str = "DELETE FROM requests WHERE call = ?1 RETURNING body IS NULL";

const DELETE_RESPONSE: &str = "DELETE FROM responses WHERE call = ?1 RETURNING body IS NULL";
