//! What was set at upstreams while they were at work, and closings that somebody opened.
//!
//! One narrow row for each upstream at which anything is set. Such writes come by hand, so nothing of it is prepared.

use rusqlite::{Connection, Row, params};

use super::legible;
use crate::port::Legible;
use crate::record::UpstreamRecord;

const SET: &str = "INSERT INTO upstreams (limit_key, paused, patches) VALUES (?1, ?2, ?3) \
    ON CONFLICT (limit_key) DO UPDATE SET paused = excluded.paused, patches = excluded.patches";
const CLEAR: &str = "DELETE FROM upstreams WHERE limit_key = ?1";
const OPEN: &str = "DELETE FROM closings WHERE limit_key = ?1";
const ALL: &str = "SELECT limit_key, paused, patches FROM upstreams ORDER BY limit_key";

/// Takes the place of all that was set there.
pub(super) fn set(connection: &Connection, record: &UpstreamRecord) -> rusqlite::Result<()> {
    let UpstreamRecord { limit_key, is_paused, patches } = record;
    if record.is_blank() {
        connection.execute(CLEAR, [limit_key])?;
    } else {
        connection.execute(SET, params![limit_key, is_paused, patches])?;
    }
    Ok(())
}

/// Nobody is asked to keep away any more.
pub(super) fn open(connection: &Connection, limit_key: &str) -> rusqlite::Result<()> {
    connection.execute(OPEN, [limit_key]).map(drop)
}

/// Every upstream at which something is set.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Legible<Vec<UpstreamRecord>>> {
    let read =
        |row: &Row<'_>| Ok(UpstreamRecord { limit_key: row.get(0)?, is_paused: row.get(1)?, patches: row.get(2)? });
    legible::rows(connection, ALL, read, |_| None)
}
