//! Taking over: a new epoch, and everything an earlier engine left, read in the same transaction.
//!
//! What it costs grows with the calls that run and with the lanes, hardly with the calls that wait and not with those
//! that have ended: every commit counts, and partial indexes lead to the rest.

use farcall_core::call::{State, TenantId};
use farcall_core::id::CallId;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::bodies::{Bodies, Part};
use super::row::{self, Columns, attempt_columns, blob, call_columns};
use crate::record::{AttemptRecord, CallRecord, LaneName, LaneRecord, Recovery, Totals};

/// Begins a new epoch: its number, and what it takes over.
pub(super) fn take_over(connection: &mut Connection) -> rusqlite::Result<(i64, Recovery)> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = tx.query_row("UPDATE meta SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0))?;
    let recovery = Recovery {
        engaged: calls(&tx, ENGAGED)?,
        lanes: lanes(&tx)?,
        open_attempts: open_attempts(&tx)?,
        unfiled: calls(&tx, UNFILED)?,
        totals: totals(&tx)?,
    };
    tx.commit()?;
    Ok((epoch, recovery))
}

/// Removes body files without a row: what a crash left between file and commit.
pub(super) fn sweep(connection: &Connection, bodies: &Bodies) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    bodies.sweep(|call, part| {
        let table = match part {
            Part::Request => REQUEST_IN_FILE,
            Part::Response => RESPONSE_IN_FILE,
        };
        Ok(connection.prepare_cached(table)?.query_row([blob(call)], |_| Ok(())).optional()?.is_some())
    })
}

const ENGAGED: &str = concat!(
    "SELECT ",
    call_columns!(),
    " FROM calls INDEXED BY calls_engaged WHERE ended = 0 AND ready_at IS NULL ORDER BY seq"
);

/// Answered by the index alone.
const LANES: &str = "SELECT limit_key, priority, tenant_id, count(*) FROM calls INDEXED BY calls_waiting \
    WHERE ready_at IS NOT NULL GROUP BY limit_key, priority, tenant_id";

const UNFILED: &str = concat!(
    "SELECT ",
    call_columns!(),
    " FROM calls INDEXED BY calls_unfiled WHERE ended = 1 AND filed = 0 ORDER BY seq"
);

const OPEN_ATTEMPTS: &str = concat!(
    "SELECT (SELECT id FROM calls WHERE seq = call), ",
    attempt_columns!(),
    " FROM attempts INDEXED BY attempts_open WHERE ended_at IS NULL ORDER BY call, number"
);

const TOTALS: &str = "SELECT accepted, pruned, scheduled, queued, running, retrying, succeeded, failed, cancelled, \
    expired, unknown, poisoned FROM meta";

const REQUEST_IN_FILE: &str =
    "SELECT 1 FROM requests WHERE call = (SELECT seq FROM calls WHERE id = ?1) AND body IS NULL";

const RESPONSE_IN_FILE: &str =
    "SELECT 1 FROM responses WHERE call = (SELECT seq FROM calls WHERE id = ?1) AND body IS NULL";

fn calls(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<CallRecord>> {
    connection.prepare(sql)?.query_map([], row::call)?.collect()
}

fn open_attempts(connection: &Connection) -> rusqlite::Result<Vec<(CallId, AttemptRecord)>> {
    let mut statement = connection.prepare(OPEN_ATTEMPTS)?;
    let read = |row: &rusqlite::Row<'_>| {
        let mut columns = Columns::new(row);
        Ok((columns.id()?, row::attempt(&mut columns)?))
    };
    statement.query_map([], read)?.collect()
}

fn lanes(connection: &Connection) -> rusqlite::Result<Vec<LaneRecord>> {
    let mut statement = connection.prepare(LANES)?;
    let mut lanes = statement
        .query_map([], |row| {
            let tenant = TenantId(row.get::<_, i64>(2)?.cast_unsigned());
            let lane = LaneName { limit_key: row.get(0)?, priority: row.get(1)?, tenant };
            Ok(LaneRecord { lane, waiting: row.get::<_, i64>(3)?.cast_unsigned() })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // The index orders tenants by the signed number.
    lanes.sort_unstable_by(|a, b| a.lane.cmp(&b.lane));
    Ok(lanes)
}

fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    connection.query_row(TOTALS, [], |row| {
        let mut columns = Columns::new(row);
        let mut next = || columns.take::<i64>().map(i64::cast_unsigned);
        let mut totals = Totals { accepted: next()?, pruned: next()?, ..Totals::default() };
        for &state in State::ALL {
            *totals.of_mut(state) = next()?;
        }
        Ok(totals)
    })
}
