//! The store in one directory: SQLite in WAL mode with `synchronous=FULL`, large bodies as files beside it.
//!
//! One connection writes, others only read. The directory is locked for the life of the store, and every commit checks
//! that its epoch is the last one, so that nothing an older process left can write again. SQLite says nothing certain
//! about a commit that failed for another reason than a full disk: the store then refuses to go on until it is opened
//! again.

mod bodies;
mod checkpoint;
mod error;
mod grants;
mod known;
mod legible;
mod list;
mod mark;
mod open;
mod prune;
mod read;
mod recovery;
mod reopen;
mod row;
mod schema;
mod statements;
mod sum;
mod upstreams;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farcall_core::id::CallId;
use farcall_core::steady::KeptClock;
use farcall_crash::{self as crash, Point};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use self::bodies::Bodies;
use self::checkpoint::{Checkpointer, Limits};
use self::error::unread;
use self::known::Known;
use self::mark::Mark;
pub use self::open::OpenError;
use self::read::SqliteReader;
use self::write::{Batch, Files};
use crate::port::{CommitError, Fate, ReadError, Reader, ReopenError, Store, Write};
use crate::record::Recovery;
use crate::transition::{SUPERSEDED, first_call};

/// Calls in the directory `.farcall`.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    bodies: Bodies,
    dir: PathBuf,
    /// What [`Store::take_over`] began.
    epoch: Option<i64>,
    /// Batches committed, by the last account that is certain.
    commits: i64,
    checkpointer: Checkpointer,
    known: Known,
    /// Why nothing more is committed.
    broken: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Let go last, when the connection is closed.
    mark: Mark,
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
            commits: 0,
            checkpointer: Checkpointer::new(Limits::DEFAULT),
            known: Known::default(),
            broken: None,
            mark: opened.mark,
        })
    }

    fn transact(&mut self, writes: &[Write], epoch: i64, first: CallId) -> Result<(), CommitError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(&tx, &self.bodies, &mut self.known)?;
        let applied = batch.apply(writes).and_then(|()| batch.seal(epoch, first));
        let Files { written, pruned } = batch.into_files();
        let discard = |bodies: &Bodies| written.iter().for_each(|&(call, part)| bodies.discard(call, part));
        if applied.is_err() {
            discard(&self.bodies);
            return applied;
        }
        crash::reach(Point::BatchSealed);
        match tx.commit().map_err(CommitError::from) {
            // It may be durable all the same, so its files stay, and nothing is written after it.
            Err(CommitError::Io(cause)) => self.broken = Some(Arc::from(cause)),
            Err(refused) => {
                discard(&self.bodies);
                return Err(refused);
            }
            Ok(()) => {
                self.commits += 1;
                self.mark.note(self.commits);
                self.bodies.discard_later(pruned);
            }
        }
        self.intact()
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
        crash::reach(Point::BodiesSwept);
        self.epoch = Some(epoch);
        self.known.clear();
        self.commits = reopen::commits(&self.connection).map_err(unread("the number of commits"))?;
        Ok(recovery)
    }

    fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError> {
        let kept = recovery::keep_clock(&self.connection, self.epoch.unwrap_or(-1), clock);
        match kept.map_err(unread("the clock"))? {
            true => Ok(()),
            false => Err(unread("the clock")("another engine has taken over")),
        }
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.intact()?;
        if writes.is_empty() {
            return Ok(());
        }
        let first = first_call(writes);
        let epoch = self.epoch.ok_or_else(|| SUPERSEDED.of(first))?;
        let committed = self.transact(writes, epoch, first);
        if committed.is_err() {
            self.known.clear();
        }
        if matches!(committed, Err(CommitError::Full)) {
            // The log may be what fills the disk; it is shorter once it is copied. That may find no space either.
            let _ = checkpoint::truncate(&self.connection);
        }
        committed?;
        if let Err(cause) = self.checkpointer.after_commit(&self.connection, || self.bodies.free_bytes().ok()) {
            // The batch is durable; the next one is told.
            self.broken = Some(Arc::new(cause));
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<Fate, ReopenError> {
        self.open_again()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        let connection = open::reader(&self.dir).map_err(unread("anything"))?;
        Ok(Box::new(SqliteReader::new(connection, self.bodies.clone())))
    }
}

impl Drop for SqliteStore {
    /// A clean close leaves no log behind. After a failure the log stays as it is, for the next open to read.
    fn drop(&mut self) {
        crash::reach(Point::StoreClosing);
        let _ = match self.broken {
            None => checkpoint::truncate(&self.connection),
            Some(_) => self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop),
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use farcall_core::call::{Source, State, TenantId, Via};
    use farcall_core::steady::Steady;
    use farcall_core::time::Timestamp;

    use super::*;
    use crate::port::Insert;
    use crate::record::{CallRecord, Progress};

    pub(super) fn insert(n: u128, request: Vec<u8>) -> Write {
        let call = CallRecord {
            id: CallId::from_bits(n),
            source: Source::Api,
            via: Via::Tcp,
            upstream: None,
            limit_key: String::new(),
            method: "GET".to_owned(),
            url: String::new(),
            tags: Vec::new(),
            priority: 3,
            tenant: None,
            tenant_id: TenantId::default(),
            cost: 1,
            accepted_at: Timestamp::from_micros(0),
            not_before: None,
            deadline: None,
            started_at: None,
            attempts: 0,
            progress: Progress {
                state: State::Queued,
                ready_at: None,
                retries: 0,
                requeues: 0,
                throttles: 0,
                deaths: 0,
                orphaned: 0,
                finished_at: None,
                status: None,
                error: None,
            },
            cancel_requested: false,
            has_overrides: false,
            callback_of: None,
            retry_of: None,
            file: None,
            filed: true,
            idempotency: None,
            hop: None,
        };
        let at = Steady::from_micros(0);
        Write::Insert(Box::new(Insert { at, call, request: Bytes::from(request), trace: None }))
    }

    pub(super) fn opened() -> Result<(tempfile::TempDir, SqliteStore), Box<dyn std::error::Error>> {
        let home = tempfile::tempdir()?;
        let mut store = SqliteStore::open(&home.path().join(".farcall"))?;
        store.take_over()?;
        Ok((home, store))
    }

    fn body_files(store: &SqliteStore) -> std::io::Result<usize> {
        Ok(std::fs::read_dir(store.dir.join("bodies"))?.count())
    }

    #[test]
    fn a_full_disk_refuses_the_batch_and_the_store_goes_on_when_there_is_space()
    -> Result<(), Box<dyn std::error::Error>> {
        let (_home, mut store) = opened()?;
        let pages: i64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        let batch = [insert(1, vec![0; 70_000]), insert(2, vec![0; 60_000])];
        assert!(matches!(store.commit(&batch), Err(CommitError::Full)));
        assert_eq!(body_files(&store)?, 0, "a refused batch takes no space");
        store.connection.pragma_update_and_check(None, "max_page_count", pages * 10, |_| Ok(()))?;
        store.commit(&batch)?;
        assert_eq!((store.take_over()?.engaged.len(), body_files(&store)?), (2, 1));
        Ok(())
    }

    #[test]
    fn after_a_commit_of_unknown_end_nothing_is_written_until_the_store_is_opened_again()
    -> Result<(), Box<dyn std::error::Error>> {
        let (home, mut store) = opened()?;
        store.commit(&[insert(1, Vec::new())])?;
        store.connection.commit_hook(Some(|| true))?;
        assert!(matches!(store.commit(&[insert(2, vec![0; 70_000])]), Err(CommitError::Io(_))));
        assert_eq!(body_files(&store)?, 1, "the batch may be durable, so its file stays");
        store.connection.commit_hook(None::<fn() -> bool>)?;
        assert!(matches!(store.commit(&[insert(3, Vec::new())]), Err(CommitError::Io(_))));
        drop(store);
        let mut store = SqliteStore::open(&home.path().join(".farcall"))?;
        assert_eq!((store.take_over()?.engaged.len(), body_files(&store)?), (1, 0));
        store.commit(&[insert(3, Vec::new())])?;
        Ok(())
    }
}
