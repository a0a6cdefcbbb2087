//! Opening the store again after a commit of which nothing certain is known.
//!
//! A sync that failed is never simply repeated: the kernel may have marked the pages clean without writing them, so that
//! the next sync succeeds and means nothing. So every byte of the log is written again first, and synced then. A new
//! epoch is committed before anything is said: it shows that commits work, and takes the place in the log of what the
//! failed one left there. The directory stays locked all the while.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::{SqliteStore, open};
use crate::port::{Fate, ReopenError};

/// Bytes of the log written again at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Another process has written meanwhile, lock or no lock.
#[derive(Debug, thiserror::Error)]
#[error("another process has written to the store")]
struct Foreign;

/// Batches that were ever committed.
pub(super) fn commits(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT commits FROM meta", [], |row| row.get(0))
}

impl SqliteStore {
    pub(super) fn open_again(&mut self) -> Result<Fate, ReopenError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ReopenError(error);
        let path = open::database_path(&self.dir);
        // The old connection must not copy a log that may not be on the disk.
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        rewrite_log(&path).map_err(|error| failed(error.into()))?;
        let mut connection = open::writer(&path).map_err(|error| failed(error.into()))?;
        let fate = self.renew(&mut connection).map_err(|error| failed(error.into()))?;
        let fate = fate.ok_or_else(|| failed(Foreign.into()))?;
        self.connection = connection;
        self.known.clear();
        self.broken = None;
        Ok(fate)
    }

    /// Begins a new epoch; says what became of the batch that failed, and nothing when others have written.
    fn renew(&mut self, connection: &mut Connection) -> rusqlite::Result<Option<Fate>> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let commits = commits(&tx)?;
        let epoch: i64 = tx.query_row("UPDATE meta SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0))?;
        let fate = match commits - self.commits {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => return Ok(None),
        };
        if self.epoch.is_none_or(|ours| epoch > ours + 1) {
            return Ok(None);
        }
        // Also when this commit is the next that fails: the one after it may find either.
        self.epoch = Some(epoch);
        tx.commit()?;
        self.commits = commits;
        Ok(Some(fate))
    }
}

/// Writes the log's bytes over themselves and makes them durable. Readers see no difference.
fn rewrite_log(database: &Path) -> io::Result<()> {
    let path = database.with_extension("db-wal");
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(log) => rewrite(&log),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn rewrite(log: &File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let length = log.read_at(&mut buffer, offset)?;
        if length == 0 {
            return log.sync_all();
        }
        log.write_all_at(&buffer[..length], offset)?;
        offset += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{CommitError, Store, Write};
    use crate::sqlite::tests::{insert, opened};

    fn break_commits(store: &mut SqliteStore) -> rusqlite::Result<()> {
        store.connection.commit_hook(Some(|| true))
    }

    #[test]
    fn a_store_that_was_opened_again_goes_on_without_the_batch_that_failed() -> Result<(), Box<dyn std::error::Error>> {
        let (_home, mut store) = opened()?;
        let mut reader = store.reader()?;
        store.commit(&[insert(1, Vec::new())])?;
        break_commits(&mut store)?;
        assert!(matches!(store.commit(&[insert(2, Vec::new())]), Err(CommitError::Io(_))));
        assert!(matches!(store.commit(&[insert(3, Vec::new())]), Err(CommitError::Io(_))), "until it is opened again");
        assert_eq!(store.reopen()?, Fate::Lost);
        store.commit(&[insert(3, Vec::new())])?;
        let found =
            |write: Write, reader: &mut dyn crate::port::Reader| reader.call(write.call().expect("it inserts a call"));
        assert!(found(insert(1, Vec::new()), reader.as_mut())?.is_some(), "readers go on");
        assert!(found(insert(2, Vec::new()), reader.as_mut())?.is_none());
        assert!(found(insert(3, Vec::new()), reader.as_mut())?.is_some());
        assert_eq!(store.take_over()?.totals.accepted, 2);
        Ok(())
    }

    #[test]
    fn a_batch_that_is_durable_though_its_commit_failed_is_told() -> Result<(), Box<dyn std::error::Error>> {
        let (_home, mut store) = opened()?;
        store.commit(&[insert(1, Vec::new())])?;
        // As after a sync that failed when everything had been written.
        store.commits -= 1;
        assert_eq!(store.reopen()?, Fate::Kept);
        assert_eq!(store.reopen()?, Fate::Lost, "nothing has failed since");
        store.commit(&[insert(2, Vec::new())])?;
        Ok(())
    }

    #[test]
    fn rewriting_the_log_changes_no_byte_of_it() -> Result<(), Box<dyn std::error::Error>> {
        let (_home, mut store) = opened()?;
        store.commit(&[insert(1, vec![7; 50_000]), insert(2, vec![9; 60_000])])?;
        let path = open::database_path(&store.dir);
        let log = path.with_extension("db-wal");
        let before = std::fs::read(&log)?;
        rewrite_log(&path)?;
        assert!(before.len() > 100_000 && before == std::fs::read(&log)?);
        Ok(())
    }
}
