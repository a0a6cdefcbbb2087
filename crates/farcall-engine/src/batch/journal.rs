//! What a batch has to remember beside the store: its ids, how far its input was submitted, and lines that are no calls.
//!
//! One NDJSON file that is only appended to. A line that a crash left half is cut off; what it said is found out again.
//! Everything here blocks.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::feed::Doubt;
use super::line_ids::LineIds;
use super::tally::Tally;

/// How often a lock that somebody holds is asked for, and how long is waited in between: 0.4 s in all.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// In which order results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// That of the lines.
    #[default]
    Input,
    /// That of the ends.
    Completion,
}

/// How far an input was submitted, and what it was up to there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    pub lines: u32,
    pub bytes: u64,
    /// SHA-256 of those bytes.
    pub digest: String,
    /// There are no more.
    pub is_end: bool,
}

/// A line that is no call of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exception {
    /// Nothing but blanks: it has no result.
    Blank,
    /// Its result.
    Rejected(Box<RawValue>),
}

/// What a journal says.
#[derive(Debug, Clone)]
pub struct Past {
    pub ids: LineIds,
    pub order: Order,
    /// The server that carries it out, unless that is a matter of the directory.
    pub server: Option<String>,
    pub mark: Mark,
    /// Up to where it may have been submitted beyond that, and how.
    pub in_doubt: Option<(Mark, Doubt)>,
    /// Of lines whose results were not written yet.
    pub exceptions: BTreeMap<u32, Exception>,
    /// What it came to, once every result is written.
    pub finished: Option<Tally>,
    /// When it was last written.
    pub written_at: Option<SystemTime>,
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("cannot read and write the batch's journal")]
    Io(#[from] io::Error),
    #[error("line {line} of the batch's journal cannot be understood")]
    Damaged { line: usize },
    #[error("this batch is under way already, in another process")]
    InUse,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Begun {
        ids: String,
        order: Order,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<String>,
    },
    Line {
        line: u32,
        is: Exception,
    },
    Submitting(Mark),
    /// The same with the batch's idempotency keys.
    SubmittingKeyed(Mark),
    Submitted(Mark),
    Finished(Tally),
}

impl Journal {
    /// Begins one. There must be none yet.
    ///
    /// # Errors
    /// When it cannot be made and written.
    pub fn begin(path: &Path, past: &Past) -> Result<Self, JournalError> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        let mut journal = Self::own(file)?;
        let Past { ids, order, server, .. } = past;
        journal.append(&[Entry::Begun { ids: ids.to_string(), order: *order, server: server.clone() }])?;
        // Its name, too: a journal that is gone after a power cut would be a batch that never was.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(journal)
    }

    /// Opens one, and reads it; nothing when there is none, or none that was begun. Exceptions are kept of lines that
    /// `is_left` is true of.
    ///
    /// # Errors
    /// When it cannot be read, or is no journal.
    pub fn open(path: &Path, is_left: impl Fn(u32) -> bool) -> Result<Option<(Self, Past)>, JournalError> {
        let file = match OpenOptions::new().read(true).append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut journal = Self::own(file)?;
        let mut past = None;
        let (mut reader, mut text, mut end, mut number) = (BufReader::new(&journal.file), Vec::new(), 0, 0);
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text)?;
            number += 1;
            let entry = serde_json::from_slice::<Entry>(&text).ok().filter(|_| text.ends_with(b"\n"));
            match entry {
                Some(entry) => Past::take(&mut past, entry, &is_left).ok_or(JournalError::Damaged { line: number })?,
                // What a crash left half stands at the end.
                None if reader.fill_buf()?.is_empty() => break,
                None => return Err(JournalError::Damaged { line: number }),
            }
            end += u64::try_from(length).unwrap_or(u64::MAX);
        }
        let Some(mut past) = past else {
            std::fs::remove_file(path)?;
            return Ok(None);
        };
        past.written_at = Some(journal.file.metadata()?.modified()?);
        journal.file.set_len(end)?;
        journal.file.seek(SeekFrom::End(0))?;
        Ok(Some((journal, past)))
    }

    /// One process at a time, for as long as it lives.
    fn own(file: File) -> Result<Self, JournalError> {
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // After a kill the lock lives on for a moment in a child that was just being started.
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                // A file system that locks no files has to be trusted.
                Ok(()) | Err(_) => return Ok(Self { file }),
            }
        }
        Err(JournalError::InUse)
    }

    /// So far the input is about to be submitted, with or without the batch's idempotency keys.
    ///
    /// # Errors
    /// When it cannot be written, or not be made durable where that matters.
    pub fn submitting(&mut self, mark: &Mark, is_keyed: bool) -> Result<(), JournalError> {
        match is_keyed {
            // Somebody else's store may have what this file lacks after a power cut: keys need the same lines.
            true => self.append(&[Entry::SubmittingKeyed(mark.clone())]),
            // What our store has, this file has after a kill, too.
            false => self.write(&[Entry::Submitting(mark.clone())]),
        }
    }

    /// So far the input has been submitted: every line is a durable call, or one of these exceptions.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn submitted(&mut self, exceptions: Vec<(u32, Exception)>, mark: Mark) -> Result<(), JournalError> {
        let lines = exceptions.into_iter().map(|(line, is)| Entry::Line { line, is });
        self.append(&lines.chain([Entry::Submitted(mark)]).collect::<Vec<_>>())
    }

    /// Every result is written.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn finished(&mut self, tally: &Tally) -> Result<(), JournalError> {
        self.append(&[Entry::Finished(tally.clone())])
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.write(entries)?;
        Ok(self.file.sync_data()?)
    }

    fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry).map_err(io::Error::from)?;
            text.push(b'\n');
        }
        Ok(self.file.write_all(&text)?)
    }
}

impl Past {
    /// That of a batch which begins now.
    pub fn none(ids: LineIds, order: Order, server: Option<String>) -> Self {
        let (mark, exceptions) = (Mark::default(), BTreeMap::new());
        Self { ids, order, server, mark, in_doubt: None, exceptions, finished: None, written_at: None }
    }

    /// Takes the next entry in; nothing when it cannot stand there.
    fn take(past: &mut Option<Self>, entry: Entry, is_left: impl Fn(u32) -> bool) -> Option<()> {
        match (entry, past.as_mut()) {
            (Entry::Begun { ids, order, server }, None) => *past = Some(Self::none(ids.parse().ok()?, order, server)),
            (Entry::Line { line, is }, Some(past)) => {
                if is_left(line) {
                    past.exceptions.insert(line, is);
                }
            }
            (Entry::Submitting(mark), Some(past)) => past.in_doubt = Some((mark, Doubt { is_keyed: false })),
            (Entry::SubmittingKeyed(mark), Some(past)) => past.in_doubt = Some((mark, Doubt { is_keyed: true })),
            (Entry::Submitted(mark), Some(past)) => (past.mark, past.in_doubt) = (mark, None),
            (Entry::Finished(tally), Some(past)) => past.finished = Some(tally),
            (Entry::Begun { .. }, Some(_)) | (_, None) => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::time::Timestamp;

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn mark(lines: u32) -> Mark {
        Mark { lines, bytes: 10, digest: "d".into(), is_end: false }
    }

    #[test]
    fn what_was_written_is_read_back_and_half_a_line_is_cut_off() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("journal.ndjson");
        assert!(Journal::open(&path, |_| true)?.is_none());
        let ids = LineIds::new(Timestamp::from_micros(1_795_165_200_000_000), 77 << 40);
        let mut journal = Journal::begin(&path, &Past::none(ids, Order::Completion, None))?;
        let rejected = Exception::Rejected(RawValue::from_string(r#"{"line":3}"#.to_owned())?);
        journal.submitted(vec![(1, Exception::Blank), (3, rejected)], mark(4))?;
        OpenOptions::new().append(true).open(&path)?.write_all(b"{\"submitted\":{\"lines\":9")?;
        assert!(matches!(Journal::open(&path, |_| true), Err(JournalError::InUse)));
        drop(journal);

        let (mut journal, past) = Journal::open(&path, |line| line > 1)?.expect("it was begun");
        assert_eq!((past.ids, past.order, &past.mark), (ids, Order::Completion, &mark(4)));
        assert!(past.finished.is_none());
        let [(3, Exception::Rejected(result))] = &past.exceptions.into_iter().collect::<Vec<_>>()[..] else {
            panic!("line 1 was written already, line 3 was rejected");
        };
        assert_eq!(result.get(), r#"{"line":3}"#);
        journal.finished(&Tally::default())?;
        drop(journal);
        let (_, past) = Journal::open(&path, |_| true)?.expect("it was begun");
        assert_eq!((past.mark, past.finished), (mark(4), Some(Tally::default())));
        Ok(())
    }

    #[test]
    fn a_journal_that_was_not_begun_whole_is_none() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("journal.ndjson");
        for text in ["", "{\"begun\":{\"ids\":\"call"] {
            std::fs::write(&path, text)?;
            assert!(Journal::open(&path, |_| true)?.is_none(), "{text:?}");
        }
        std::fs::write(&path, "my own notes\nand more\n")?;
        assert!(matches!(Journal::open(&path, |_| true), Err(JournalError::Damaged { line: 1 })));
        Ok(())
    }
}
