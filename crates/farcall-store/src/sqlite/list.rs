//! Lists of calls, newest first: a range of the table at a time, so that none takes longer than another.
//!
//! No index serves lists alone: they are for people, and every index costs each call.

use farcall_core::call::Source;
use farcall_core::time::Timestamp;
use rusqlite::types::Null;
use rusqlite::{Connection, OptionalExtension, ToSql};

use super::legible;
use super::row::blob;
use crate::port::{CallFilter, ListAsk, Listed};

/// No fewer than [`CallFilter::admits`] lets through, and hardly more.
const LIST: &str = "SELECT seq FROM call_records WHERE seq < ?1 AND seq >= ?2 AND (?3 IS NULL OR instr(?3, '.' || state || '.')) \
     AND (?4 IS NULL OR upstream = ?4 OR (upstream IS NULL AND (limit_key = ?4 OR hop IS NOT NULL))) \
     AND (?5 IS NULL OR source = ?5) \
     AND (?6 IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) WHERE json_each.value = ?6)) \
     AND (?7 IS NULL OR accepted_at >= ?7) AND (?8 IS NULL OR accepted_at < ?8) ORDER BY seq DESC LIMIT ?9";

/// The newest call before a place.
const NEWEST: &str = "SELECT max(seq) FROM calls WHERE seq < ?1";

pub(super) fn list(connection: &Connection, ask: &ListAsk) -> rusqlite::Result<Listed> {
    let ListAsk { filter, before, count, examined_max } = ask;
    let snapshot = connection.unchecked_transaction()?;
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let Some(newest) = newest_before(&snapshot, before)? else { return Ok(Listed::default()) };
    let floor = newest.saturating_sub(i64::from(*examined_max)) + 1;
    let states = states(filter);
    let values: [&dyn ToSql; 8] = [
        &before,
        &floor,
        &states,
        &filter.upstream,
        &filter.source.map(Source::as_str),
        &filter.tag,
        &filter.since.map(Timestamp::as_micros),
        &filter.until.map(Timestamp::as_micros),
    ];
    let mut calls = legible::calls(&snapshot, LIST, &values, *count)?.found;
    let is_full = calls.len() >= usize::try_from(*count).unwrap_or(usize::MAX);
    let reached = match calls.last().filter(|_| is_full) {
        Some(last) => snapshot.query_row("SELECT seq FROM calls WHERE id = ?1", [blob(last.id)], |row| row.get(0))?,
        None => floor,
    };
    calls.retain(|call| filter.admits(call));
    let next = newest_before(&snapshot, reached)?.and_then(|seq| u64::try_from(seq + 1).ok());
    Ok(Listed { calls, next })
}

fn newest_before(snapshot: &Connection, place: i64) -> rusqlite::Result<Option<i64>> {
    let newest: Option<Option<i64>> =
        snapshot.prepare_cached(NEWEST)?.query_row([place], |row| row.get(0)).optional()?;
    Ok(newest.flatten())
}

/// The states' words, each between two dots; null for all.
fn states(filter: &CallFilter) -> Box<dyn ToSql> {
    if filter.states.is_empty() {
        return Box::new(Null);
    }
    let words: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    Box::new(format!(".{}.", words.join(".")))
}
