//! Reading calls of which some may be damaged: what reads back is found, the rest is named.
//!
//! A small table or an index tells which calls stand where, and each is read by itself: a damaged one costs no other.

use farcall_core::id::CallId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, ToSql};

use super::row::{self, call_columns, id_of};
use crate::port::Legible;
use crate::record::{CallRecord, Damaged};

/// The call of a `seq`.
pub(super) const ONE: &str = concat!("SELECT ", call_columns!(), " FROM call_records WHERE seq = ?1");

/// No limit, as SQLite says it.
const UNLIMITED: i64 = -1;

/// At most `count` calls that read back, of those that a query has the `seq` of. Its last parameter is the limit.
pub(super) fn calls(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    count: u32,
) -> rusqlite::Result<Legible<Vec<CallRecord>>> {
    let mut statement = connection.prepare_cached(sql)?;
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

fn with_limit<'v>(values: &[&'v dyn ToSql], limit: &'v i64) -> Vec<&'v dyn ToSql> {
    values.iter().copied().chain([limit as &dyn ToSql]).collect()
}

fn id(connection: &Connection, seq: i64) -> Option<CallId> {
    let read = |row: &Row<'_>| row.get(0).map(id_of);
    connection.query_row("SELECT id FROM calls WHERE seq = ?1", [seq], read).optional().ok().flatten()
}
