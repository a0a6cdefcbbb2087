//! The filer's thread: puts the files of ended calls in place, many at a time.
//!
//! How a response file looks and which name it gets is `result_file`'s; here is the queue, and the promise that a call
//! is reported as filed only when its files are durable and its call file is durably out of the inbox: else the file
//! would be a new call after a crash. What cannot be filed now is tried again, with one warning.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farcall_core::id::CallId;
use farcall_store::port::{ReadError, Reader};
use farcall_store::record::CallRecord;
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

/// Why a batch was not filed.
#[derive(Debug, thiserror::Error)]
enum FilingError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    File(#[from] FileError),
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
                let (left, pause) = filer.file(calls);
                queue.put_back(left, pause);
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
    /// Files what it can; gives back the calls to file later, and how much later.
    fn file(&mut self, mut calls: Vec<CallId>) -> (Vec<CallId>, Duration) {
        let batch = match self.read(&mut calls) {
            Ok(batch) => batch,
            Err(error) => return self.failed(&error.into(), calls),
        };
        let mut left = calls;
        let results = match self.filing.clear_durably(&batch.files) {
            Ok(()) => self.filing.file(&batch.ended),
            Err(error) => vec![Err(error); batch.ended.len()],
        };
        let mut filed = Vec::with_capacity(results.len());
        let mut failure = None;
        for (ended, result) in batch.ended.iter().zip(results) {
            match result {
                Ok(_) => filed.push(ended.id),
                Err(error) => {
                    failure = Some(error);
                    left.push(ended.id);
                }
            }
        }
        if !filed.is_empty() {
            self.has_warned &= failure.is_some();
            // A loop that is gone leaves them unfiled; they are found in place at the next start.
            let _ = self.messages.blocking_send(Message::Filed { calls: filed });
        }
        match failure {
            Some(error) => self.failed(&error.into(), left),
            None => (left, Duration::ZERO),
        }
    }

    /// Reads calls until the batch is large enough; those not read stay in `calls`.
    fn read(&mut self, calls: &mut Vec<CallId>) -> Result<Batch, ReadError> {
        let mut batch = Batch::default();
        let mut taken = 0;
        for &id in calls.iter() {
            if batch.bytes >= BATCH_BYTES_MAX {
                break;
            }
            if let Some(record) = self.reader.call(id)? {
                self.add(&mut batch, &record)?;
            }
            taken += 1;
        }
        calls.drain(..taken);
        Ok(batch)
    }

    fn add(&mut self, batch: &mut Batch, record: &CallRecord) -> Result<(), ReadError> {
        let Some(file) = &record.file else { return Ok(()) };
        let answer = self.reader.response(record.id)?;
        let request = self.reader.request(record.id)?.unwrap_or_default();
        let response = result_file::response(record, answer.as_ref());
        batch.bytes += request.len() + response.len();
        batch.files.push(Taken { file: file.clone(), bytes: request.clone(), id: record.id });
        batch.ended.push(Ended { id: record.id, name: file.name.clone(), response, request });
        Ok(())
    }

    fn failed(&mut self, error: &FilingError, left: Vec<CallId>) -> (Vec<CallId>, Duration) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                error = chain(error),
                calls = left.len(),
                "cannot put response files in place, trying again"
            );
        }
        (left, RETRY_AFTER)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that were not filed go in front again; waits for `pause` before anything is filed.
    fn put_back(&self, calls: Vec<CallId>, pause: Duration) {
        let mut state = self.lock();
        for call in calls.into_iter().rev() {
            state.calls.push_front(call);
        }
        if !pause.is_zero() {
            drop(self.changed.wait_timeout_while(state, pause, |state| !state.is_closed));
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
