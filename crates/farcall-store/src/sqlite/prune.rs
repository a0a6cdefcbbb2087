//! Pruning calls that have ended: which there are, and removing them row by row.
//!
//! Large bodies go last, after the commit, and not by the writer: whoever asks next which calls have ended removes their
//! files first. A crash in between leaves orphans, which the next start sweeps.

use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use rusqlite::{Connection, Row, params};

use super::bodies::Part;
use super::row::{Columns, blob};
use crate::port::{Ended, EndedRange, Prune};
use crate::record::EndedRecord;
use crate::transition::{HeldBy, KEPT_STEP_US};

/// Kept sums that one pruned call lets go at most: more than it leaves, so that old ones do not gather.
const OLD_GRANTS_PER_CALL: usize = 4;

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
    connection.prepare_cached(KEEP_GRANTS)?.execute(params![seq, prune.grants_since.as_micros(), KEPT_STEP_US])?;
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
    one("DELETE FROM calls WHERE seq = ?1")?;
    Ok(files)
}

/// Lets some of the sums go that no limit asks for any more.
pub(super) fn forget_grants(connection: &Connection, before: Steady, calls: usize) -> rusqlite::Result<()> {
    let most = i64::try_from(calls * OLD_GRANTS_PER_CALL).unwrap_or(i64::MAX);
    connection.prepare_cached(FORGET_GRANTS)?.execute(params![before.as_micros(), most]).map(drop)
}

fn record(row: &Row<'_>) -> rusqlite::Result<EndedRecord> {
    let mut columns = Columns::new(row);
    Ok(EndedRecord { call: columns.id()?, ended_at: columns.steady()?, is_held: columns.take()? })
}

macro_rules! is_held {
    () => {
        "EXISTS (SELECT 1 FROM attempts INDEXED BY attempts_open WHERE call = calls.seq AND ended_at IS NULL) OR \
         EXISTS (SELECT 1 FROM calls AS other INDEXED BY calls_calling_back \
         WHERE other.callback_of = calls.id AND other.callback_of IS NOT NULL AND other.ended = 0)"
    };
}

const UNKEYED: &str = concat!(
    "SELECT id, ended_at, ",
    is_held!(),
    " FROM calls INDEXED BY calls_ended WHERE state = ?5 AND ended_at IS NOT NULL AND filed = 1 AND key IS NULL \
     AND ended_at <= ?1 AND (ended_at, id) > (?2, ?3) ORDER BY ended_at, id LIMIT ?4"
);

const KEYED: &str = concat!(
    "SELECT id, ended_at, ",
    is_held!(),
    " FROM calls INDEXED BY calls_ended_keyed WHERE ended_at IS NOT NULL AND key IS NOT NULL \
     AND ended_at <= ?1 AND (ended_at, id) > (?2, ?3) ORDER BY ended_at, id LIMIT ?4"
);

const HELD_BY: &str = "SELECT \
    EXISTS (SELECT 1 FROM attempts INDEXED BY attempts_open WHERE call = ?1 AND ended_at IS NULL), \
    EXISTS (SELECT 1 FROM calls INDEXED BY calls_calling_back \
        WHERE callback_of = ?2 AND callback_of IS NOT NULL AND ended = 0)";

/// The last microsecond of each time, as for the sums of grants.
const KEEP_GRANTS: &str = "INSERT INTO grants (limit_key, latest_at, cost) \
    SELECT limit_key, latest_at / ?3 * ?3 + ?3 - 1, sum(cost) FROM attempts \
    WHERE call = ?1 AND latest_at >= ?2 GROUP BY 1, 2 \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

const DELETE_REQUEST: &str = "DELETE FROM requests WHERE call = ?1 RETURNING body IS NULL";

const DELETE_RESPONSE: &str = "DELETE FROM responses WHERE call = ?1 RETURNING body IS NULL";

const FORGET_GRANTS: &str = "DELETE FROM grants WHERE (limit_key, latest_at) IN \
    (SELECT limit_key, latest_at FROM grants INDEXED BY grants_by_time WHERE latest_at < ?1 ORDER BY latest_at LIMIT ?2)";
