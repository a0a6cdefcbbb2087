//! The filer's thread: puts the files of ended calls in place, many at a time.
//!
//! How a response file looks and which name it gets is `result_file`'s; here is the queue, and the promise that a call
//! is reported as filed only when its files are durable and its call file is durably out of the inbox: else the file
//! would be a new call after a crash. What cannot be filed now is tried again, with one warning.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farcall_core::id::CallId;
use farcall_store::port::{ReadError, Reader};
use tokio::sync::mpsc;

use crate::cause::chain;
use crate::result_file::{self, Ended, FileError, Filing, Taken};
use crate::run::Message;

/// Calls filed with one set of syncs.
const BATCH_MAX: usize = 256;
/// Bytes of responses and requests held for one batch, unless a single call is larger.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    calls: VecDeque<CallId>,
    is_closed: bool,
}

/// What the thread works with.
struct Filer {
    filing: Arc<Filing>,
    reader: Box<dyn Reader>,
    messages: mpsc::Sender<Message>,
    has_warned: bool,
}

/// A batch read from the store.
#[derive(Default)]
struct Batch {
    ended: Vec<Ended>,
    files: Vec<Taken>,
    bytes: usize,
}

/// What a batch leaves to do.
#[derive(Debug, Default)]
struct Left {
    /// The batch was full before their turn came.
    unread: Vec<CallId>,
    failed: Vec<CallId>,
    /// To be waited for before anything is filed again.
    pause: Duration,
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
        let mut filer = Filer { filing, reader, messages, has_warned: false };
        let run = move || {
            while let Some(calls) = queue.next_batch() {
                queue.put_back(filer.file(&calls));
            }
        };
        let thread = std::thread::Builder::new().name("farcall-filer".to_owned()).spawn(run)?;
        Ok(Self { shared, thread })
    }

    pub(crate) fn push(&self, call: CallId) {
        self.shared.lock().calls.push_back(call);
        self.shared.changed.notify_one();
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
    fn file(&mut self, calls: &[CallId]) -> Left {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.try_file(calls)));
        let (mut left, error) = attempt
            .unwrap_or_else(|_| (Left { failed: calls.to_vec(), ..Left::default() }, Some(FilingError::BrokeDown)));
        match error {
            Some(error) => self.warn(&error, left.failed.len()),
            None => self.has_warned = false,
        }
        // While others are filed nothing is lost by trying again at once.
        let is_stuck = !left.failed.is_empty() && left.failed.len() + left.unread.len() == calls.len();
        left.pause = if is_stuck { RETRY_AFTER } else { Duration::ZERO };
        left
    }

    fn try_file(&mut self, calls: &[CallId]) -> (Left, Option<FilingError>) {
        let (batch, mut left, mut error) = self.read(calls);
        let results = match self.filing.clear_durably(&batch.files) {
            Ok(()) => self.filing.file(&batch.ended),
            Err(error) => vec![Err(error); batch.ended.len()],
        };
        let mut filed = Vec::with_capacity(results.len());
        for (ended, result) in batch.ended.iter().zip(results) {
            match result {
                Ok(_) => filed.push(ended.id),
                Err(failure) => {
                    error = Some(failure.into());
                    left.failed.push(ended.id);
                }
            }
        }
        if !filed.is_empty() {
            // A loop that is gone leaves them unfiled; they are found in place at the next start.
            let _ = self.messages.blocking_send(Message::Filed { calls: filed });
        }
        (left, error)
    }

    /// Reads calls until the batch is large enough. One that cannot be read holds up no other.
    fn read(&mut self, calls: &[CallId]) -> (Batch, Left, Option<FilingError>) {
        let (mut batch, mut left, mut failure) = (Batch::default(), Left::default(), None);
        for &id in calls {
            if batch.bytes >= BATCH_BYTES_MAX {
                left.unread.push(id);
                continue;
            }
            if let Err(error) = self.add(&mut batch, id) {
                left.failed.push(id);
                failure = Some(error.into());
            }
        }
        (batch, left, failure)
    }

    fn add(&mut self, batch: &mut Batch, id: CallId) -> Result<(), ReadError> {
        let Some(record) = self.reader.call(id)? else { return Ok(()) };
        let Some(file) = &record.file else { return Ok(()) };
        let answer = self.reader.response(record.id)?;
        let request = self.reader.request(record.id)?.unwrap_or_default();
        let response = result_file::response(&record, answer.as_ref());
        batch.bytes += request.len() + response.len();
        batch.files.push(Taken { file: file.clone(), bytes: request.clone(), id: record.id });
        batch.ended.push(Ended { id: record.id, name: file.name.clone(), response, request });
        Ok(())
    }

    fn warn(&mut self, error: &FilingError, calls: usize) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(error = chain(error), calls, "cannot put response files in place, trying again");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that were not read go in front again, those that failed to the back, so that they hold up no other.
    fn put_back(&self, left: Left) {
        let mut state = self.lock();
        for call in left.unread.into_iter().rev() {
            state.calls.push_front(call);
        }
        state.calls.extend(left.failed);
        if !left.pause.is_zero() {
            drop(self.changed.wait_timeout_while(state, left.pause, |state| !state.is_closed));
        }
    }

    /// Waits for calls; nothing once the queue is closed.
    fn next_batch(&self) -> Option<Vec<CallId>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if !state.calls.is_empty() {
                let count = state.calls.len().min(BATCH_MAX);
                return Some(state.calls.drain(..count).collect());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests;
