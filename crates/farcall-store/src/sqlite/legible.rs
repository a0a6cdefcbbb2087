//! Reading calls of which some may be damaged: what reads back is found, the rest is named.
//!
//! As long as every row reads back a query is one statement. When one does not, or its page is broken, the query's index
//! tells which calls stand there, and each is read by itself: a damaged call then costs no other.

use farcall_core::id::CallId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ToSql};

use super::row::{self, call_columns, id_of};
use crate::port::Legible;
use crate::record::{CallRecord, Damaged};

/// A query of calls, once for all their columns, and once for `seq`, which its index knows. The last parameter of both
/// is the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) calls: &'static str,
    pub(super) seqs: &'static str,
}

/// Makes a [`Query`] of what follows the columns.
macro_rules! query {
    ($rest:literal) => {
        $crate::sqlite::legible::Query {
            calls: concat!("SELECT ", call_columns!(), $rest),
            seqs: concat!("SELECT seq", $rest),
        }
    };
}
pub(super) use query;

/// Calls for which room is made before they are read.
const ROOM_MAX: usize = 1_024;

/// The call of a `seq`.
pub(super) const ONE: &str = concat!("SELECT ", call_columns!(), " FROM calls WHERE seq = ?1");

/// No limit, as SQLite says it.
const UNLIMITED: i64 = -1;

/// At most `count` calls that read back.
pub(super) fn calls(
    connection: &Connection,
    query: Query,
    values: &[&dyn ToSql],
    count: u32,
) -> rusqlite::Result<Legible<Vec<CallRecord>>> {
    match all(connection, query, values, count) {
        Ok(found) => Ok(Legible::whole(found)),
        Err(error) if is_damage(&error) => one_by_one(connection, query, values, count),
        Err(error) => Err(error),
    }
}

/// Rows of any kind; those that do not read back are named by what `call` finds in them.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    call: impl Fn(&Row<'_>) -> Option<CallId>,
) -> rusqlite::Result<Legible<Vec<T>>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut legible = Legible::whole(Vec::new());
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(found) => legible.found.push(found),
            Err(error) => legible.damaged.push(Damaged { call: call(row), is_live: false, what: error.to_string() }),
        }
    }
    Ok(legible)
}

/// Whether an error lies in what is stored, and not in the circumstances, which pass.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::CannotOpen
        )
    )
}

fn all(connection: &Connection, query: Query, values: &[&dyn ToSql], count: u32) -> rusqlite::Result<Vec<CallRecord>> {
    let limit = i64::from(count);
    // They are large, and a vector that grows copies them.
    let mut calls = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(ROOM_MAX));
    for call in connection.prepare_cached(query.calls)?.query_map(&*with_limit(values, &limit), row::call)? {
        calls.push(call?);
    }
    Ok(calls)
}

fn one_by_one(
    connection: &Connection,
    query: Query,
    values: &[&dyn ToSql],
    count: u32,
) -> rusqlite::Result<Legible<Vec<CallRecord>>> {
    let mut statement = connection.prepare_cached(query.seqs)?;
    let mut seqs = statement.query(&*with_limit(values, &UNLIMITED))?;
    let mut one = connection.prepare_cached(ONE)?;
    let mut legible = Legible::whole(Vec::new());
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    while legible.found.len() < count
        && let Some(row) = seqs.next()?
    {
        let seq: i64 = row.get(0)?;
        match one.query_row([seq], row::call) {
            Ok(call) => legible.found.push(call),
            Err(error) if is_damage(&error) => {
                legible.damaged.push(Damaged { call: id(connection, seq), is_live: true, what: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(legible)
}

fn with_limit<'v>(values: &[&'v dyn ToSql], limit: &'v i64) -> Vec<&'v dyn ToSql> {
    values.iter().copied().chain([limit as &dyn ToSql]).collect()
}

fn id(connection: &Connection, seq: i64) -> Option<CallId> {
    let read = |row: &Row<'_>| row.get(0).map(id_of);
    connection.query_row("SELECT id FROM calls WHERE seq = ?1", [seq], read).optional().ok().flatten()
}
