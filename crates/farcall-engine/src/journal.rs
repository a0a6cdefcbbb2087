//! The writer's thread: commits one batch after another and tells the loop when each is durable.
//!
//! SQLite blocks, so it has a thread of its own; the loop hands it a turn's writes and goes on gathering events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;

use farcall_core::dispatcher::Seq;
use farcall_crash::{self as crash, Point};
use farcall_store::port::{CommitError, Store, Write};

use crate::run::Message;

/// The way to the writer's thread.
#[derive(Debug)]
pub(crate) struct Journal {
    batches: mpsc::SyncSender<Batch>,
    thread: JoinHandle<()>,
}

/// Told in place of a result; the store is not touched again.
#[derive(Debug, thiserror::Error)]
#[error("the store broke down while it wrote")]
struct BrokeDown;

#[derive(Debug)]
struct Batch {
    seq: Seq,
    writes: Vec<Write>,
}

impl Journal {
    /// Starts the thread; it ends, and closes the store, when the journal is closed.
    pub(crate) fn start(
        mut store: Box<dyn Store>,
        messages: tokio::sync::mpsc::Sender<Message>,
    ) -> std::io::Result<Self> {
        let (batches, receiver) = mpsc::sync_channel::<Batch>(1);
        let thread = std::thread::Builder::new().name("farcall-store".to_owned()).spawn(move || {
            for batch in receiver {
                let result = commit(store.as_mut(), &batch.writes);
                // A loop that is gone needs no word; what was committed stays.
                let _ = messages.blocking_send(Message::Committed { seq: batch.seq, result });
            }
        })?;
        Ok(Self { batches, thread })
    }

    /// Hands a batch over. The caller keeps one in flight, so this never waits.
    pub(crate) fn commit(&self, seq: Seq, writes: Vec<Write>) {
        // The thread ends only when this sender is dropped.
        let _ = self.batches.send(Batch { seq, writes });
    }

    /// Waits until the store is closed. Blocks.
    pub(crate) fn close(self) {
        drop(self.batches);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Commits; a store that panics has failed like one that says so, or the loop would wait for its word for ever.
fn commit(store: &mut dyn Store, writes: &[Write]) -> Result<(), CommitError> {
    for write in writes {
        crash::reach(boundaries(write).0);
    }
    let result = catch_unwind(AssertUnwindSafe(|| store.commit(writes)))
        .unwrap_or_else(|_| Err(CommitError::Io(Box::new(BrokeDown))));
    for write in writes.iter().filter(|_| result.is_ok()) {
        crash::reach(boundaries(write).1);
    }
    result
}

/// The crash points before and after the commit that makes a write durable.
fn boundaries(write: &Write) -> (Point, Point) {
    match write {
        Write::Insert(insert) if insert.call.callback_of.is_some() => (Point::CallbackBegun, Point::CallbackDurable),
        Write::Insert(_) => (Point::InsertBegun, Point::InsertDurable),
        Write::Start(_) => (Point::StartBegun, Point::StartDurable),
        Write::Settle(_) => (Point::SettleBegun, Point::SettleDurable),
        Write::Close { .. } => (Point::CloseBegun, Point::CloseDurable),
        // A callback is let go by the commit that says its parent is filed.
        Write::Release { .. } | Write::Filed(_) => (Point::FiledBegun, Point::FiledDurable),
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::steady::KeptClock;
    use farcall_store::memory::MemoryStore;
    use farcall_store::port::{ReadError, Reader};
    use farcall_store::record::Recovery;

    use super::*;

    /// A store whose commits panic.
    struct Broken(MemoryStore);

    impl Store for Broken {
        fn take_over(&mut self) -> Result<Recovery, ReadError> {
            self.0.take_over()
        }

        fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError> {
            self.0.keep_clock(clock)
        }

        fn commit(&mut self, _: &[Write]) -> Result<(), CommitError> {
            panic!("a mistake of ours")
        }

        fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
            self.0.reader()
        }
    }

    #[tokio::test]
    async fn a_store_that_breaks_down_is_told_of_like_one_that_fails() {
        let (sender, mut messages) = tokio::sync::mpsc::channel(1);
        let journal = Journal::start(Box::new(Broken(MemoryStore::new())), sender).expect("a thread");
        journal.commit(Seq(1), Vec::new());
        let told = messages.recv().await;
        assert!(matches!(told, Some(Message::Committed { seq: Seq(1), result: Err(CommitError::Io(_)) })), "{told:?}");
        tokio::task::spawn_blocking(move || journal.close()).await.expect("the thread ends");
    }
}
