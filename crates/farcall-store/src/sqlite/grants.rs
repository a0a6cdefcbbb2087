//! What attempts count in limits: one by one for the latest, summed up by limit key for all before.
//!
//! Attempts are added in the order of their ends, whatever upstream they went to, so that those of one commit share pages.
//! Now and then all that have ended since the last time are added to the sums of their limit keys together. Whoever
//! asks is answered from both. A sum counts from the end of its time, so that nothing is taken to have been
//! earlier than it was; sums that are old are summed up once more, over longer times.

use farcall_core::id::AttemptId;
use farcall_core::steady::Steady;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::row::{Columns, blob};
use crate::port::{CommitError, Grant, GrantEnd, Granted, GrantsAsk, Prune};
use crate::record::GrantRecord;
use crate::transition::{GRANT_STEP_US, KEPT_STEP_US, SECOND_GRANT, UNGRANTED_END};

/// Attempts that are summed up together. Each question reads as many one by one.
const TOGETHER: i64 = 4_096;

/// The length of the times over which attempts are summed up first, in microseconds.
const FINE_STEP_US: i64 = 1_000_000;

/// The age from which on sums may be summed up again, over [`KEPT_STEP_US`].
const FINE_US: i64 = 3_600_000_000;

/// Fine sums that are summed up again at a time: as many as may have come.
const COARSER_TOGETHER: i64 = TOGETHER;

/// Attempts of calls that are not stored and have ended, after which old sums are summed up again.
const ENDS_TOGETHER: usize = 4_096;

/// Sums that one pruned call lets go at most: more than it leaves, so that old ones do not gather.
const OLD_PER_CALL: usize = 4;

/// How far attempts that have ended are numbered, and summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    /// The number of the next.
    next: i64,
    /// Of the last that is in a sum.
    summed: i64,
}

/// The number of the next attempt that has ended. None is given twice, or one that came after a prune would be taken to be
/// summed up.
pub(super) fn next(connection: &Connection, account: &mut Option<Account>) -> rusqlite::Result<i64> {
    let account = match account {
        Some(account) => account,
        None => account
            .insert(connection.query_row(ACCOUNT, [], |row| Ok(Account { next: row.get(0)?, summed: row.get(1)? }))?),
    };
    account.next += 1;
    Ok(account.next - 1)
}

/// Sums up what has come since the last time, if that is enough.
pub(super) fn sum_up(connection: &Connection, account: &mut Option<Account>) -> rusqlite::Result<()> {
    let Some(Account { next, summed }) = account else { return Ok(()) };
    if *next - *summed <= TOGETHER {
        return Ok(());
    }
    connection.prepare_cached(SUM_UP)?.execute(params![*summed, FINE_STEP_US])?;
    *summed = *next - 1;
    connection.prepare_cached("UPDATE meta SET summed = ?1")?.execute([*summed])?;
    coarsen(connection)
}

/// Sums up what is old once more.
fn coarsen(connection: &Connection) -> rusqlite::Result<()> {
    let latest: Option<i64> = connection.prepare_cached(LATEST_SUM)?.query_row([], |row| row.get(0))?;
    let Some(before) = latest.map(|latest| latest - FINE_US) else { return Ok(()) };
    let last: Option<i64> =
        connection.prepare_cached(LAST_FINE)?.query_row(params![before, COARSER_TOGETHER], |row| row.get(0))?;
    let Some(last) = last else { return Ok(()) };
    connection.prepare_cached(COARSEN)?.execute(params![last, KEPT_STEP_US])?;
    connection.prepare_cached(DROP_FINE)?.execute([last]).map(drop)
}

/// Adds what the attempts of a call count that is pruned, as far as it is in no sum yet.
pub(super) fn keep(connection: &Connection, seq: i64, prune: &Prune) -> rusqlite::Result<()> {
    let values = params![seq, prune.grants_since.as_micros(), KEPT_STEP_US];
    connection.prepare_cached(KEEP)?.execute(values).map(drop)
}

/// Keeps what an attempt of a call that is not stored takes.
pub(super) fn open(connection: &Connection, grant: &Grant) -> Result<(), CommitError> {
    let Grant { attempt, limit_key, granted_at, cost } = grant;
    let values = params![blob(attempt.call), attempt.number, limit_key, granted_at.as_micros(), cost];
    match connection.prepare_cached(OPEN_GRANT)?.execute(values)? {
        1 => Ok(()),
        _ => Err(SECOND_GRANT.of(attempt.call)),
    }
}

/// Such an attempt has ended: what it counts is in the sums from now on.
pub(super) fn end(connection: &Connection, end: &GrantEnd) -> Result<(), CommitError> {
    let GrantEnd { attempt, proved_at, .. } = end;
    let key = params![blob(attempt.call), attempt.number];
    let taken = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?));
    let taken = connection.prepare_cached(END_GRANT)?.query_row(key, taken).optional()?;
    let (limit_key, granted_at, cost) = taken.ok_or_else(|| UNGRANTED_END.of(attempt.call))?;
    if let Some(proved_at) = proved_at {
        let latest_at = proved_at.as_micros().max(granted_at);
        connection.prepare_cached(ADD)?.execute(params![limit_key, latest_at, cost, GRANT_STEP_US])?;
    }
    Ok(())
}

/// All that are kept were out when their engine died.
pub(super) fn leave(connection: &Connection, proved_at: Steady) -> rusqlite::Result<()> {
    connection.prepare_cached(ADD_LEFT)?.execute(params![proved_at.as_micros(), GRANT_STEP_US])?;
    connection.prepare_cached("DELETE FROM open_grants")?.execute([]).map(drop)
}

/// So many more have ended; what is old is summed up once more when that is many.
pub(super) fn note_ends(connection: &Connection, ended: &mut usize, more: usize) -> rusqlite::Result<()> {
    *ended += more;
    if *ended < ENDS_TOGETHER {
        return Ok(());
    }
    *ended = 0;
    coarsen(connection)
}

/// Attempts of calls that are not stored and are still out, as an engine left them.
pub(super) fn left(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM open_grants", [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// Lets some of the sums go that no limit asks for any more.
pub(super) fn forget(connection: &Connection, before: Steady, calls: usize) -> rusqlite::Result<()> {
    let most = i64::try_from(calls * OLD_PER_CALL).unwrap_or(i64::MAX);
    connection.prepare_cached(FORGET)?.execute(params![before.as_micros(), most]).map(drop)
}

/// What is kept of a limit key. All statements see one snapshot, so that no attempt is missed by ending between them.
pub(super) fn granted(connection: &mut Connection, limit_key: &str, asked: &[GrantsAsk]) -> rusqlite::Result<Granted> {
    let snapshot = connection.transaction()?;
    let until = |row: &Row<'_>| row.get(0).map(Steady::from_micros);
    let closed_until = snapshot.prepare_cached(CLOSED_UNTIL)?.query_row([limit_key], until).optional()?;
    let open = match asked {
        [] => Vec::new(),
        _ => {
            let mut open: Vec<GrantRecord> =
                snapshot.prepare_cached(OPEN)?.query_map([limit_key], open_grant)?.collect::<Result<_, _>>()?;
            for unstored in snapshot.prepare_cached(OPEN_UNSTORED)?.query_map([limit_key], open_grant)? {
                open.push(unstored?);
            }
            open
        }
    };
    let mut grants = Vec::with_capacity(asked.len());
    for ask in asked {
        let mut found = open.clone();
        let (sql, since, bound) = match *ask {
            GrantsAsk::Latest { since, count } => (LATEST, since, i64::from(count)),
            GrantsAsk::Sums { since, step_us } => (SUMS, since, step_us.get()),
        };
        let mut statement = snapshot.prepare_cached(sql)?;
        for ended in statement.query_map(params![limit_key, since.as_micros(), bound], ended_grant)? {
            found.push(ended?);
        }
        grants.push(found);
    }
    Ok(Granted { grants, closed_until })
}

fn open_grant(row: &Row<'_>) -> rusqlite::Result<GrantRecord> {
    let mut columns = Columns::new(row);
    let open = AttemptId { call: columns.id()?, number: columns.take()? };
    Ok(GrantRecord { open: Some(open), latest_at: None, cost: columns.take()? })
}

fn ended_grant(row: &Row<'_>) -> rusqlite::Result<GrantRecord> {
    let mut columns = Columns::new(row);
    let latest_at = columns.steady()?;
    let cost = u32::try_from(columns.take::<i64>()?).unwrap_or(u32::MAX);
    Ok(GrantRecord { open: None, latest_at: Some(latest_at), cost })
}

/// Also when all that were summed up have been pruned.
const ACCOUNT: &str = "SELECT max(coalesce((SELECT max(n) FROM attempts), 0), summed) + 1, summed FROM meta";

/// The last microsecond of each time; so in all of these.
const SUM_UP: &str = "INSERT INTO grants (limit_key, latest_at, cost) \
    SELECT limit_key, max(granted_at, proved_at) / ?2 * ?2 + ?2 - 1, sum(cost) FROM attempts \
    WHERE n > ?1 AND proved_at IS NOT NULL GROUP BY 1, 2 \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

const LATEST_SUM: &str = "SELECT max(latest_at) FROM grants";

const LAST_FINE: &str = "SELECT max(latest_at) FROM (SELECT latest_at FROM grants INDEXED BY grants_fine \
    WHERE latest_at % 10000000 <> 9999999 AND latest_at < ?1 ORDER BY latest_at LIMIT ?2)";

const COARSEN: &str = "INSERT INTO grants (limit_key, latest_at, cost) \
    SELECT limit_key, latest_at / ?2 * ?2 + ?2 - 1, sum(cost) FROM grants INDEXED BY grants_fine \
    WHERE latest_at % 10000000 <> 9999999 AND latest_at <= ?1 GROUP BY 1, 2 \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

const DROP_FINE: &str = "DELETE FROM grants WHERE (limit_key, latest_at) IN (SELECT limit_key, latest_at \
    FROM grants INDEXED BY grants_fine WHERE latest_at % 10000000 <> 9999999 AND latest_at <= ?1)";

const KEEP: &str = "INSERT INTO grants (limit_key, latest_at, cost) \
    SELECT limit_key, max(granted_at, proved_at) / ?3 * ?3 + ?3 - 1, sum(cost) FROM attempts \
    WHERE call = ?1 AND n > (SELECT summed FROM meta) AND max(granted_at, proved_at) >= ?2 GROUP BY 1, 2 \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

const FORGET: &str = "DELETE FROM grants WHERE (limit_key, latest_at) IN \
    (SELECT limit_key, latest_at FROM grants INDEXED BY grants_by_time WHERE latest_at < ?1 ORDER BY latest_at LIMIT ?2)";

const CLOSED_UNTIL: &str = "SELECT until FROM closings WHERE limit_key = ?1";

const OPEN: &str = "SELECT (SELECT id FROM calls WHERE seq = call), number, cost \
    FROM open_attempts WHERE limit_key = ?1 ORDER BY granted_at DESC, call DESC, number DESC";

const OPEN_UNSTORED: &str = "SELECT call, number, cost \
    FROM open_grants WHERE limit_key = ?1 ORDER BY granted_at DESC, call DESC, number DESC";

const OPEN_GRANT: &str = "INSERT OR IGNORE INTO open_grants (call, number, limit_key, granted_at, cost) \
    VALUES (?1, ?2, ?3, ?4, ?5)";

const END_GRANT: &str = "DELETE FROM open_grants WHERE call = ?1 AND number = ?2 RETURNING limit_key, granted_at, cost";

const ADD: &str = "INSERT INTO grants (limit_key, latest_at, cost) VALUES (?1, ?2 / ?4 * ?4 + ?4 - 1, ?3) \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

const ADD_LEFT: &str = "INSERT INTO grants (limit_key, latest_at, cost) \
    SELECT limit_key, max(granted_at, ?1) / ?2 * ?2 + ?2 - 1, sum(cost) FROM open_grants WHERE true GROUP BY 1, 2 \
    ON CONFLICT (limit_key, latest_at) DO UPDATE SET cost = cost + excluded.cost";

/// Of attempts, and the sums of those before.
const LATEST: &str = "SELECT max(granted_at, proved_at) AS at, cost, call, number FROM attempts \
    WHERE n > (SELECT summed FROM meta) AND limit_key = ?1 AND at >= ?2 \
    UNION ALL SELECT latest_at, cost, -1, -1 FROM grants WHERE limit_key = ?1 AND latest_at >= ?2 \
    ORDER BY 1 DESC, 3 DESC, 4 DESC LIMIT ?3";

const SUMS: &str = "SELECT end, sum(cost) FROM ( \
    SELECT max(granted_at, proved_at) / ?3 * ?3 + ?3 - 1 AS end, cost FROM attempts \
    WHERE n > (SELECT summed FROM meta) AND limit_key = ?1 AND max(granted_at, proved_at) >= ?2 \
    UNION ALL SELECT latest_at / ?3 * ?3 + ?3 - 1, cost FROM grants WHERE limit_key = ?1 AND latest_at >= ?2) \
    GROUP BY 1 ORDER BY 1 DESC";
