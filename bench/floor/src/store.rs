//! The floor's table: a row per call, its state and its body.
//!
//! Narrow rows, one index, no attempts and no answers: what every design on SQLite pays at least.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use rusqlite::Connection;

/// Calls claimed at a time.
const CLAIM_MAX: u32 = 1_000;

/// A queue in a table.
pub(crate) struct Floor {
    connection: Connection,
    /// Calls inserted.
    pub(crate) calls: u32,
}

/// A call to be sent.
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) body: Bytes,
}

/// A call that was answered.
pub(crate) struct Sent {
    pub(crate) id: i64,
    pub(crate) status: u16,
}

impl Floor {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE queue (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, status INTEGER, body BLOB NOT NULL);
             CREATE INDEX waiting ON queue (id) WHERE state = 0;",
        )?;
        Ok(Self { connection, calls: 0 })
    }

    pub(crate) fn insert(&mut self, calls: u32, batch: u32, body_bytes: usize) -> Result<()> {
        let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(body_bytes.saturating_sub(11)));
        while self.calls < calls {
            let count = batch.min(calls - self.calls);
            let tx = self.connection.transaction()?;
            let mut insert = tx.prepare_cached("INSERT INTO queue (state, body) VALUES (0, ?1)")?;
            for _ in 0..count {
                insert.execute([body.as_bytes()])?;
            }
            drop(insert);
            tx.commit()?;
            self.calls += count;
        }
        Ok(())
    }

    pub(crate) fn claim(&mut self) -> Result<Vec<Claimed>> {
        const CLAIM: &str = "UPDATE queue SET state = 1 WHERE id IN (SELECT id FROM queue WHERE state = 0 \
            ORDER BY id LIMIT ?1) RETURNING id, body";
        let tx = self.connection.transaction()?;
        let claimed = tx
            .prepare_cached(CLAIM)?
            .query_map([CLAIM_MAX], |row| Ok(Claimed { id: row.get(0)?, body: row.get::<_, Vec<u8>>(1)?.into() }))?
            .collect::<Result<_, _>>()?;
        tx.commit()?;
        Ok(claimed)
    }

    pub(crate) fn finish(&mut self, sent: &[Sent]) -> Result<()> {
        let tx = self.connection.transaction()?;
        let mut finish = tx.prepare_cached("UPDATE queue SET state = 2, status = ?2 WHERE id = ?1")?;
        for call in sent {
            finish.execute((call.id, call.status))?;
        }
        drop(finish);
        Ok(tx.commit()?)
    }
}
