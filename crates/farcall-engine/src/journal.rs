//! The writer's thread: makes turns durable and tells the loop when they are.
//!
//! SQLite blocks, so it has a thread of its own. Several turns may wait for it; those that do share one transaction and
//! one sync, and under load the writer waits a little for more of them (`gather`). A commit that fails takes with it every turn handed over meanwhile, until the loop says that it knows. After
//! a failure of which nothing certain is known the store is opened again, as often as it takes, before anything is said.

mod gather;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farcall_core::dispatcher::Seq;
use farcall_crash::{self as crash, Point};
use farcall_store::port::{CommitError, Fate, Store, Write};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc::Sender;

use self::gather::Gather;
use crate::cause::chain;
use crate::clock;
use crate::run::Message;

/// Writes after which no further turn joins a transaction.
const MERGED_WRITES_MAX: usize = 4_000;
/// How long to wait before the store is opened again; twice as long each time.
const REOPEN_BASE: Duration = Duration::from_millis(50);
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// The way to the writer's thread.
#[derive(Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Turns that were not made durable, as they were handed over.
#[derive(Debug)]
pub(crate) struct FailedCommit {
    /// The first of them.
    pub(crate) seq: Seq,
    pub(crate) error: CommitError,
    /// All their writes, in order.
    pub(crate) writes: Vec<Write>,
}

/// Told in place of an error; the store is opened again like one that said so.
#[derive(Debug, thiserror::Error)]
#[error("the store broke down while it wrote")]
struct BrokeDown;

/// Whether the writer commits at this moment. When it has ended the loop is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writing(Arc<AtomicBool>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    writing: Writing,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Batch>,
    gather: Gather,
    /// The writer sleeps, until there is anything or enough to do.
    is_asleep: bool,
    /// A commit failed, and the loop has not said yet that it knows.
    has_failed: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Batch {
    seq: Seq,
    writes: Vec<Write>,
}

/// Turns that share a transaction.
struct Merged {
    first: Seq,
    last: Seq,
    writes: Vec<Write>,
}

/// What the thread works with.
struct Writer {
    store: Box<dyn Store>,
    shared: Arc<Shared>,
    messages: Sender<Message>,
    commit_seconds: Histogram,
}

impl Journal {
    /// Starts the thread; it ends, and closes the store, when the journal is closed.
    pub(crate) fn start(
        store: Box<dyn Store>,
        messages: Sender<Message>,
        commit_seconds: Histogram,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer { store, shared: Arc::clone(&shared), messages, commit_seconds };
        let thread = std::thread::Builder::new().name("farcall-store".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, thread })
    }

    /// Hands a turn over. It never waits: the dispatcher bounds how many are under way. `out` is the number of attempts
    /// that are out, whose settlements may be on their way.
    pub(crate) fn commit(&self, seq: Seq, writes: Vec<Write>, out: usize) {
        let mut state = self.shared.lock();
        state.gather.add(&writes, out);
        state.queue.push_back(Batch { seq, writes });
        // Waking is a system call.
        let wakes = state.is_asleep && state.gather.is_enough();
        drop(state);
        if wakes {
            self.shared.changed.notify_one();
        }
    }

    pub(crate) fn writing(&self) -> &Writing {
        &self.shared.writing
    }

    /// The loop knows that a commit failed: what was handed over meanwhile fails too and comes back, in order.
    pub(crate) fn resume(&self) -> Vec<Write> {
        let mut state = self.shared.lock();
        state.has_failed = false;
        state.gather.taken();
        state.queue.drain(..).flat_map(|batch| batch.writes).collect()
    }

    /// Waits until the store is closed. Blocks.
    pub(crate) fn close(self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_one();
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Writing {
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Writer {
    fn run(&mut self) {
        while let Some(merged) = self.shared.next() {
            let Merged { first, last, writes } = merged;
            self.shared.writing.begin();
            let begun = clock::instant();
            let committed = self.commit(&writes);
            if committed.is_ok() {
                self.commit_seconds.observe(clock::instant().since(begun).as_secs_f64());
            }
            // Before anybody is told: whoever finds it under way may count on that.
            self.shared.writing.end();
            let result = match committed {
                Err(CommitError::Io(cause)) => match self.reopen(&*cause) {
                    Some(Fate::Kept) => Ok(()),
                    Some(Fate::Lost) => Err(CommitError::Io(cause)),
                    // Closed before anything certain was known; the next start finds out.
                    None => return,
                },
                result => result,
            };
            let message = match result {
                Ok(()) => Message::Committed { seq: last },
                Err(error) => {
                    self.shared.lock().has_failed = true;
                    Message::CommitFailed(Box::new(FailedCommit { seq: first, error, writes }))
                }
            };
            // A loop that is gone needs no word; what was committed stays.
            let _ = self.messages.blocking_send(message);
        }
    }

    /// Commits; a store that panics has failed like one that says so, or the loop would wait for its word for ever.
    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        let commit = || {
            writes.iter().for_each(|write| crash::reach(boundaries(write).0));
            self.store.commit(writes)
        };
        let result = catch_unwind(AssertUnwindSafe(commit));
        let result = result.unwrap_or_else(|_| Err(CommitError::Io(Box::new(BrokeDown))));
        if result.is_ok() {
            writes.iter().for_each(|write| crash::reach(boundaries(write).1));
        }
        result
    }

    /// Opens the store again, and tries until that succeeds; nothing when the journal is closed first.
    fn reopen(&mut self, cause: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<Fate> {
        let _ = self.messages.blocking_send(Message::StoreBroken { error: chain(cause) });
        let mut wait = REOPEN_BASE;
        loop {
            let opened = catch_unwind(AssertUnwindSafe(|| self.store.reopen()));
            match opened {
                Ok(Ok(fate)) => return Some(fate),
                Ok(Err(error)) => self.say(chain(&error)),
                Err(_) => self.say(BrokeDown.to_string()),
            }
            if self.shared.is_closed_after(wait) {
                return None;
            }
            wait = (wait * 2).min(REOPEN_MAX);
        }
    }

    fn say(&self, error: String) {
        let _ = self.messages.blocking_send(Message::StoreBroken { error });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for turns; nothing once the journal is closed and all that was handed over is done.
    fn next(&self) -> Option<Merged> {
        let mut state = self.lock();
        loop {
            if !state.has_failed && !state.queue.is_empty() {
                state = self.gather(state);
                return state.merge();
            }
            if state.is_closed {
                return None;
            }
            state.is_asleep = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_asleep = false;
        }
    }

    /// Waits for more to share a sync with what is there, if that is worth it.
    fn gather<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        if !state.gather.begin() {
            return state;
        }
        state.is_asleep = true;
        let goes_on = |state: &mut State| !state.gather.is_enough() && !state.is_closed;
        let waited = self.changed.wait_timeout_while(state, gather::WAIT_MAX, goes_on);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_asleep = false;
        state.gather.end();
        state
    }

    fn is_closed_after(&self, wait: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |state| !state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }
}

impl State {
    fn merge(&mut self) -> Option<Merged> {
        let Batch { seq, writes } = self.queue.pop_front()?;
        let mut merged = Merged { first: seq, last: seq, writes };
        let fits = |merged: &Merged, batch: &Batch| merged.writes.len() + batch.writes.len() <= MERGED_WRITES_MAX;
        while let Some(mut batch) = self.queue.pop_front_if(|batch| fits(&merged, batch)) {
            merged.last = batch.seq;
            merged.writes.append(&mut batch.writes);
        }
        self.gather.taken();
        for batch in &self.queue {
            self.gather.add_left(&batch.writes);
        }
        Some(merged)
    }
}

/// The crash points before and after the commit that makes a write durable.
fn boundaries(write: &Write) -> (Point, Point) {
    match write {
        Write::Insert(insert) if insert.call.callback_of.is_some() => (Point::CallbackBegun, Point::CallbackDurable),
        Write::Insert(_) => (Point::InsertBegun, Point::InsertDurable),
        Write::Start(_) | Write::Grant(_) => (Point::StartBegun, Point::StartDurable),
        Write::Settle(_) | Write::Mark { .. } | Write::GrantEnd(_) | Write::GrantsLeft { .. } => {
            (Point::SettleBegun, Point::SettleDurable)
        }
        Write::Close { .. } | Write::Upstream(_) | Write::Open { .. } => (Point::CloseBegun, Point::CloseDurable),
        // A callback is let go by the commit that says its parent is filed.
        Write::Release { .. } | Write::Filed(_) => (Point::FiledBegun, Point::FiledDurable),
        Write::Prune(_) | Write::FreeKey(_) => (Point::PruneBegun, Point::PruneDurable),
    }
}

#[cfg(test)]
mod tests;
