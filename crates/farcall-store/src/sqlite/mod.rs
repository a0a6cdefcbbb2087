//! The store in one directory: SQLite in WAL mode with `synchronous=FULL`, large bodies as files beside it.
//!
//! One connection writes, others only read. The directory is locked for the life of the store, and every commit checks
//! that its epoch is the last one, so that nothing an older process left can write again. SQLite says nothing certain
//! about a commit that failed for another reason than a full disk: the store then refuses to go on until it is opened
//! again.

mod bodies;
mod checkpoint;
mod error;
mod open;
mod read;
mod recovery;
mod row;
mod schema;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farcall_core::id::CallId;
use rusqlite::{Connection, TransactionBehavior};

use self::bodies::Bodies;
use self::checkpoint::{Checkpointer, Limits};
use self::error::unread;
pub use self::open::OpenError;
use self::read::SqliteReader;
use self::write::Batch;
use crate::port::{CommitError, ReadError, Reader, Store, Write};
use crate::record::Recovery;
use crate::transition::SUPERSEDED;

/// Calls in the directory `.farcall`.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    bodies: Bodies,
    dir: PathBuf,
    /// What [`Store::take_over`] began.
    epoch: Option<i64>,
    checkpointer: Checkpointer,
    /// Why nothing more is committed.
    broken: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Let go last, when the connection is closed.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in `dir`, which is created with mode 0700 when it is missing (its parent is not).
    ///
    /// # Errors
    /// When another process has it open, when it is no store or a newer one, or when it cannot be used.
    ///
    /// # Example
    /// ```
    /// use farcall_store::port::Store;
    /// use farcall_store::sqlite::SqliteStore;
    ///
    /// let home = tempfile::tempdir()?;
    /// let mut store = SqliteStore::open(&home.path().join(".farcall"))?;
    /// let recovery = store.take_over()?;
    /// assert_eq!(recovery.totals.accepted, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let opened = open::open(dir)?;
        Ok(Self {
            connection: opened.connection,
            bodies: opened.bodies,
            dir: opened.dir,
            epoch: None,
            checkpointer: Checkpointer::new(Limits::DEFAULT),
            broken: None,
            _lock: opened.lock,
        })
    }

    fn transact(&mut self, writes: &[Write], epoch: i64, first: CallId) -> Result<(), CommitError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(&tx, &self.bodies)?;
        let applied = batch.apply(writes).and_then(|()| batch.seal(epoch, first));
        let files = batch.into_files();
        let committed = applied.and_then(|()| match tx.commit().map_err(CommitError::from) {
            // It may be durable all the same, so its files stay, and nothing is written after it.
            Err(CommitError::Io(cause)) => {
                self.broken = Some(Arc::from(cause));
                Ok(())
            }
            done => done,
        });
        if committed.is_err() {
            files.iter().for_each(|&(call, part)| self.bodies.discard(call, part));
        }
        committed
    }

    /// Refuses to go on when an earlier commit or checkpoint failed.
    fn intact(&self) -> Result<(), CommitError> {
        self.broken.as_ref().map_or(Ok(()), |cause| Err(CommitError::Io(Box::new(Arc::clone(cause)))))
    }
}

impl Store for SqliteStore {
    fn take_over(&mut self) -> Result<Recovery, ReadError> {
        let (epoch, recovery) = recovery::take_over(&mut self.connection).map_err(unread("what was left"))?;
        recovery::sweep(&self.connection, &self.bodies).map_err(unread("the body files"))?;
        self.epoch = Some(epoch);
        Ok(recovery)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.intact()?;
        let Some(first) = writes.first().map(Write::call) else { return Ok(()) };
        let epoch = self.epoch.ok_or_else(|| SUPERSEDED.of(first))?;
        self.transact(writes, epoch, first)?;
        self.intact()?;
        if let Err(cause) = self.checkpointer.after_commit(&self.connection) {
            // The batch is durable; the next one is told.
            self.broken = Some(Arc::new(cause));
        }
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        let connection = open::reader(&self.dir).map_err(unread("anything"))?;
        Ok(Box::new(SqliteReader::new(connection, self.bodies.clone())))
    }

    fn free_bytes(&self) -> Result<u64, ReadError> {
        let system = rustix::fs::statvfs(&self.dir).map_err(unread("the free space"))?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}

impl Drop for SqliteStore {
    /// A clean close leaves no log behind. When that fails, the next open reads the log.
    fn drop(&mut self) {
        let _ = checkpoint::truncate(&self.connection);
    }
}
