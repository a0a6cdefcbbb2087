//! The filer's thread: puts the files of ended calls in place, many at a time.
//!
//! How a response file looks and which name it gets is `result_file`'s; here is the queue, and the promise that a call
//! is reported as filed only when its files are durable and its call file is durably out of the inbox: else the file
//! would be a new call after a crash. What cannot be filed now is tried again, with one warning.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farcall_core::id::CallId;
use farcall_core::time::Instant;
use farcall_store::port::{ReadError, Reader};
use farcall_store::record::OutcomeRecord;
use tokio::sync::mpsc;

use crate::cause::chain;
use crate::clock;
use crate::result_file::{self, Ended, FileError, Filing};
use crate::run::Message;

/// Calls filed with one set of syncs.
const BATCH_MAX: usize = 256;
/// Bytes of responses and requests held for one batch, unless a single call is larger.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How long after a failure it is tried again; meanwhile others are filed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest sleep.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Ended calls that wait for their files.
#[derive(Debug)]
pub(crate) struct FilingQueue {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<Waiting>,
    /// What failed, and when it is tried again.
    failed: Vec<Waiting>,
    retry_at: Instant,
    /// What failed and was not filed since; it was warned of.
    failing: HashSet<CallId>,
    is_closed: bool,
}

/// A call that waits for its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    call: CallId,
    /// Some of them may be in place already.
    is_again: bool,
}

/// What the thread works with.
struct Filer {
    filing: Arc<Filing>,
    reader: Box<dyn Reader>,
    messages: mpsc::Sender<Message>,
}

/// What a batch leaves to do.
#[derive(Debug, Default)]
struct Left {
    /// The batch was full before their turn came.
    unread: Vec<Waiting>,
    failed: Vec<CallId>,
    /// Why, of one of them.
    error: Option<FilingError>,
}

/// Why a call was not filed.
#[derive(Debug, thiserror::Error)]
enum FilingError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("filing broke down")]
    BrokeDown,
}

impl FilingQueue {
    pub(crate) fn start(
        filing: Arc<Filing>,
        reader: Box<dyn Reader>,
        messages: mpsc::Sender<Message>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        let mut filer = Filer { filing, reader, messages };
        let run = move || {
            while let Some(calls) = queue.next_batch() {
                let left = filer.file(&calls);
                queue.put_back(&calls, left);
            }
        };
        let thread = std::thread::Builder::new().name("farcall-filer".to_owned()).spawn(run)?;
        Ok(Self { shared, thread })
    }

    /// A call has just ended.
    pub(crate) fn push(&self, call: CallId) {
        self.shared.push(Waiting { call, is_again: false });
    }

    /// An earlier process may have filed this call, as far as it came.
    pub(crate) fn push_again(&self, call: CallId) {
        self.shared.push(Waiting { call, is_again: true });
    }

    /// Ends the thread after the batch at hand; what waits is filed at the next start. Blocks.
    pub(crate) fn close(self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_one();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Filer {
    /// Files what it can of these calls.
    fn file(&mut self, calls: &[Waiting]) -> Left {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.try_file(calls)));
        attempt.unwrap_or_else(|_| Left {
            unread: Vec::new(),
            failed: calls.iter().map(|waiting| waiting.call).collect(),
            error: Some(FilingError::BrokeDown),
        })
    }

    fn try_file(&mut self, calls: &[Waiting]) -> Left {
        let (batch, mut left) = self.read(calls);
        let results = self.filing.file(&batch);
        let mut filed = Vec::with_capacity(results.len());
        for (ended, result) in batch.iter().zip(results) {
            match result {
                Ok(_) => filed.push(ended.id),
                Err(error) => {
                    left.error = Some(error.into());
                    left.failed.push(ended.id);
                }
            }
        }
        if !filed.is_empty() {
            // A loop that is gone leaves them unfiled; they are found in place at the next start.
            let _ = self.messages.blocking_send(Message::Filed { calls: filed });
        }
        left
    }

    /// Reads as many calls as the batch has room for. One that cannot be read holds up no other.
    fn read(&mut self, calls: &[Waiting]) -> (Vec<Ended>, Left) {
        let ids: Vec<CallId> = calls.iter().map(|waiting| waiting.call).collect();
        let found = self.reader.outcomes(&ids, BATCH_BYTES_MAX);
        let mut left = Left { unread: calls[found.len()..].to_vec(), ..Left::default() };
        let mut batch = Vec::with_capacity(found.len());
        for (&waiting, found) in calls.iter().zip(found) {
            match found {
                Ok(outcome) => batch.extend(outcome.and_then(|outcome| ended(outcome, waiting))),
                Err(error) => {
                    left.failed.push(waiting.call);
                    left.error = Some(error.into());
                }
            }
        }
        (batch, left)
    }
}

/// What is filed of a call; nothing when it came from no file.
fn ended(outcome: OutcomeRecord, Waiting { call, is_again }: Waiting) -> Option<Ended> {
    let OutcomeRecord { call: record, document: request, response } = outcome;
    let response = result_file::response(&record, response.as_ref());
    Some(Ended { id: call, file: record.file?, response, request, is_again })
}

impl Shared {
    fn push(&self, waiting: Waiting) {
        self.lock().calls.push_back(waiting);
        self.changed.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that were not read go in front again; those that failed wait, and hold up no other.
    fn put_back(&self, calls: &[Waiting], left: Left) {
        let mut state = self.lock();
        // Said once, until all that failed is filed.
        if let Some(error) = left.error.filter(|_| state.failing.is_empty()) {
            tracing::warn!(
                error = chain(&error),
                calls = left.failed.len(),
                "cannot put response files in place, trying again"
            );
        }
        for waiting in calls {
            state.failing.remove(&waiting.call);
        }
        state.failing.extend(&left.failed);
        for call in left.unread.into_iter().rev() {
            state.calls.push_front(call);
        }
        if !left.failed.is_empty() && state.failed.is_empty() {
            state.retry_at = clock::instant() + RETRY_AFTER;
        }
        state.failed.extend(left.failed.into_iter().map(|call| Waiting { call, is_again: true }));
    }

    /// Waits for calls; nothing once the queue is closed.
    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        while !state.is_closed {
            let now = clock::instant();
            if now >= state.retry_at {
                let failed = std::mem::take(&mut state.failed);
                state.calls.extend(failed);
            }
            if !state.calls.is_empty() {
                let count = state.calls.len().min(BATCH_MAX);
                return Some(state.calls.drain(..count).collect());
            }
            let timeout = if state.failed.is_empty() { IDLE_MAX } else { state.retry_at.since(now) };
            state = self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

#[cfg(test)]
mod tests;
