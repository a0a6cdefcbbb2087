//! When the write-ahead log is copied into the database, and when its file is cut back.
//!
//! SQLite would do the first by itself every 1,000 pages, in the middle of a commit, and never the second: a long
//! reader makes the log grow, and its file keeps that size. So both are done here, after a commit, by the writer. A
//! checkpoint that finds the log in use does what it can and is tried again later.

use std::time::Duration;

use farcall_crash::{self as crash, Point};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB};

use super::open::BUSY_TIMEOUT;

/// A page and the header of its frame, in the log.
const FRAME_BYTES: u64 = 4_096 + 24;

/// How long a truncation waits for readers. New readers use the database alone by then, so only long ones count.
const TRUNCATE_TIMEOUT: Duration = Duration::from_millis(250);

/// New frames after which the free space is looked at: 1 MiB.
const LOOK_FRAMES: u64 = 256;

/// A log must not be so long that fewer of its length than this still fit beside it: copying it takes space too, and a
/// disk that is full of log could never be freed of it.
const LOGS_FREE_MIN: u64 = 4;

/// Sizes at which the log is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// New frames after which the log is copied into the database.
    pub(super) passive_frames: u64,
    /// The log's length at which its file is cut back to nothing.
    pub(super) truncate_bytes: u64,
}

/// Keeps the log short.
#[derive(Debug)]
pub(super) struct Checkpointer {
    limits: Limits,
    /// The log's length at which the next checkpoint is due.
    due_frames: u64,
    /// The log's length at which the free space is looked at next.
    look_frames: u64,
}

impl Limits {
    /// 16 MiB and 64 MiB.
    pub(super) const DEFAULT: Self = Self { passive_frames: 4_096, truncate_bytes: 64 << 20 };
}

impl Checkpointer {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, due_frames: limits.passive_frames, look_frames: LOOK_FRAMES }
    }

    /// Looks at the log after a commit and checkpoints when it is time.
    ///
    /// # Errors
    /// When the database cannot be written for another reason than a full disk or a lock: those pass.
    pub(super) fn after_commit(
        &mut self,
        connection: &Connection,
        free_bytes: impl FnOnce() -> Option<u64>,
    ) -> rusqlite::Result<()> {
        let length = log_frames(connection)?;
        self.look_frames = self.look_frames.min(length + LOOK_FRAMES);
        if length >= self.look_frames {
            self.look_frames = length + LOOK_FRAMES;
            let needed = length * FRAME_BYTES * LOGS_FREE_MIN;
            if free_bytes().is_some_and(|free| free < needed) {
                return truncate(connection);
            }
        }
        self.due_frames = self.due_frames.min(length + self.limits.passive_frames);
        if length < self.due_frames {
            return Ok(());
        }
        self.due_frames = length + self.limits.passive_frames;
        let mode = if length * FRAME_BYTES < self.limits.truncate_bytes {
            CheckpointMode::PASSIVE
        } else {
            CheckpointMode::TRUNCATE
        };
        checkpoint(connection, mode)
    }
}

/// Copies the whole log and cuts its file to nothing, if no reader stands in the way.
///
/// # Errors
/// As [`Checkpointer::after_commit`].
pub(super) fn truncate(connection: &Connection) -> rusqlite::Result<()> {
    checkpoint(connection, CheckpointMode::TRUNCATE)
}

fn checkpoint(connection: &Connection, mode: CheckpointMode) -> rusqlite::Result<()> {
    connection.busy_timeout(TRUNCATE_TIMEOUT)?;
    crash::reach(Point::CheckpointBegun);
    let done = connection.wal_checkpoint_v2(Some(MAIN_DB), mode);
    crash::reach(Point::CheckpointDone);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    match done.as_ref().err().and_then(rusqlite::Error::sqlite_error_code) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => Ok(()),
        Some(_) | None => done.map(drop),
    }
}

fn log_frames(connection: &Connection) -> rusqlite::Result<u64> {
    let (frames, _) = connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::NOOP)?;
    Ok(u64::try_from(frames).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SMALL: Limits = Limits { passive_frames: 20, truncate_bytes: 100 * FRAME_BYTES };

    fn database(path: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.execute_batch("CREATE TABLE blobs (body BLOB)")?;
        Ok(connection)
    }

    /// Adds about 10 frames.
    fn commit(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute("INSERT INTO blobs VALUES (zeroblob(36000))", []).map(drop)
    }

    fn log_bytes(path: &Path) -> std::io::Result<u64> {
        Ok(std::fs::metadata(path.with_extension("db-wal"))?.len())
    }

    #[test]
    fn a_log_that_a_full_disk_could_not_be_freed_of_is_copied_early() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.db");
        let connection = database(&path)?;
        let mut checkpointer = Checkpointer::new(Limits::DEFAULT);
        let free = LOOK_FRAMES * FRAME_BYTES * LOGS_FREE_MIN;
        for _ in 0..200 {
            commit(&connection)?;
            checkpointer.after_commit(&connection, || Some(free))?;
        }
        let most = LOOK_FRAMES * 3 * FRAME_BYTES;
        assert!(log_bytes(&path)? < most, "log of {} bytes", log_bytes(&path)?);
        Ok(())
    }

    #[test]
    fn the_log_stays_short_and_is_cut_when_a_long_reader_has_gone() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.db");
        let connection = database(&path)?;
        let mut checkpointer = Checkpointer::new(SMALL);
        let mut commits = |count: usize| -> rusqlite::Result<()> {
            for _ in 0..count {
                commit(&connection)?;
                checkpointer.after_commit(&connection, || None)?;
            }
            Ok(())
        };
        commits(50)?;
        assert!(log_bytes(&path)? < 40 * FRAME_BYTES, "unread log of {} bytes", log_bytes(&path)?);

        let mut reading = Connection::open(&path)?;
        let snapshot = reading.transaction()?;
        snapshot.query_row("SELECT count(*) FROM blobs", [], |_| Ok(()))?;
        commits(30)?;
        assert!(log_bytes(&path)? > SMALL.truncate_bytes, "the reader holds the log");
        drop(snapshot);
        commits(10)?;
        assert!(log_bytes(&path)? < 40 * FRAME_BYTES, "log of {} bytes after the reader", log_bytes(&path)?);
        Ok(())
    }
}
