//! Taking over: a new epoch, and everything an earlier engine left, read in the same transaction.
//!
//! What it costs grows with the calls that run and with the lanes, hardly with the calls that wait and not with those
//! that have ended: every commit counts, and what comes and goes stands in small tables.

use farcall_core::call::{State, TenantId};
use farcall_core::id::CallId;
use farcall_core::steady::{KeptClock, Steady};
use farcall_crash::{self as crash, Point};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::bodies::{Bodies, Part};
use super::row::{self, Columns, blob, open_attempt_columns};
use super::upstreams;
use super::{grants, legible};
use crate::port::Legible;
use crate::record::{AttemptRecord, Damaged, LaneName, LaneRecord, Recovery, Totals};

/// Begins a new epoch: its number, and what it takes over.
pub(super) fn take_over(connection: &mut Connection) -> rusqlite::Result<(i64, Recovery)> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = tx.query_row("UPDATE meta SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0))?;
    let (engaged, lanes) = (legible::calls(&tx, ENGAGED, &[], u32::MAX)?, lanes(&tx)?);
    let (open_attempts, unfiled) = (open_attempts(&tx)?, legible::calls(&tx, UNFILED, &[], u32::MAX)?);
    let ended = unfiled.damaged.into_iter().map(|damaged| Damaged { is_live: false, ..damaged }).collect();
    let upstreams = upstreams::all(&tx)?;
    let damaged = [engaged.damaged, lanes.damaged, open_attempts.damaged, ended, upstreams.damaged];
    let recovery = Recovery {
        engaged: engaged.found,
        lanes: lanes.found,
        open_attempts: open_attempts.found,
        unfiled: unfiled.found,
        open_grants: grants::left(&tx)?,
        upstreams: upstreams.found,
        damaged: damaged.concat(),
        totals: totals(&tx)?,
        clock: tx.query_row(CLOCK, [], kept_clock)?,
        latest: tx.query_row("SELECT latest FROM meta", [], |row| Columns::new(row).optional_steady())?,
    };
    crash::reach(Point::TakeOverBegun);
    tx.commit()?;
    crash::reach(Point::TakeOverDurable);
    Ok((epoch, recovery))
}

/// Keeps the clock of the present boot. False when another engine has taken over.
pub(super) fn keep_clock(connection: &Connection, epoch: i64, clock: &KeptClock) -> rusqlite::Result<bool> {
    let KeptClock { boot, base_us, since } = clock;
    let kept = connection.execute(KEEP_CLOCK, params![epoch, boot, base_us, since.as_micros()])?;
    Ok(kept == 1)
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

const ENGAGED: &str = "SELECT call FROM live INDEXED BY live_engaged WHERE ready_at IS NULL \
    UNION SELECT call FROM open_attempts WHERE NOT EXISTS (SELECT 1 FROM live WHERE live.call = open_attempts.call) \
    AND NOT EXISTS (SELECT 1 FROM ends WHERE ends.call = open_attempts.call) ORDER BY 1 LIMIT ?1";

const LANES: &str = "SELECT limit_key, of_callbacks, priority, tenant_id, count(*) FROM waiting GROUP BY 1, 2, 3, 4";

const UNFILED: &str = "SELECT call FROM unfiled INDEXED BY unfiled_ended WHERE ended = 1 ORDER BY call LIMIT ?1";

const OPEN_ATTEMPTS: &str = concat!(
    "SELECT (SELECT id FROM calls WHERE seq = call), ",
    open_attempt_columns!(),
    " FROM open_attempts ORDER BY call, number"
);

const TOTALS: &str = "SELECT accepted, pruned, scheduled, queued, running, retrying, succeeded, failed, cancelled, \
    expired, unknown, poisoned FROM meta";

const CLOCK: &str = "SELECT boot, clock_base, clock_since FROM meta";

const KEEP_CLOCK: &str = "UPDATE meta SET boot = ?2, clock_base = ?3, clock_since = ?4 WHERE one = 1 AND epoch = ?1";

const REQUEST_IN_FILE: &str =
    "SELECT 1 FROM requests WHERE call = (SELECT seq FROM calls WHERE id = ?1) AND body IS NULL";

const RESPONSE_IN_FILE: &str =
    "SELECT 1 FROM responses WHERE call = (SELECT seq FROM calls WHERE id = ?1) AND body IS NULL";

fn open_attempts(connection: &Connection) -> rusqlite::Result<Legible<Vec<(CallId, AttemptRecord)>>> {
    let read = |row: &Row<'_>| {
        let mut columns = Columns::new(row);
        Ok((columns.id()?, row::attempt(&mut columns)?))
    };
    legible::rows(connection, OPEN_ATTEMPTS, read, |row| Columns::new(row).id().ok())
}

fn kept_clock(row: &Row<'_>) -> rusqlite::Result<Option<KeptClock>> {
    let mut columns = Columns::new(row);
    let (boot, base_us) = (columns.take()?, columns.take::<Option<_>>()?);
    let since = columns.optional_steady()?;
    Ok(base_us.zip(since).map(|(base_us, since): (i64, Steady)| KeptClock { boot, base_us, since }))
}

fn lanes(connection: &Connection) -> rusqlite::Result<Legible<Vec<LaneRecord>>> {
    let read = |row: &Row<'_>| {
        let tenant = TenantId(row.get::<_, i64>(3)?.cast_unsigned());
        let lane = LaneName { limit_key: row.get(0)?, of_callbacks: row.get(1)?, priority: row.get(2)?, tenant };
        Ok(LaneRecord { lane, waiting: row.get::<_, i64>(4)?.cast_unsigned() })
    };
    let mut lanes = legible::rows(connection, LANES, read, |_| None)?;
    // The index orders tenants by the signed number.
    lanes.found.sort_unstable_by(|a, b| a.lane.cmp(&b.lane));
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
