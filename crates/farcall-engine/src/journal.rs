//! The writer's thread: commits one batch after another and tells the loop when each is durable.
//!
//! SQLite blocks, so it has a thread of its own; the loop hands it a turn's writes and goes on gathering events.

use std::sync::mpsc;
use std::thread::JoinHandle;

use farcall_core::dispatcher::Seq;
use farcall_store::port::{CommitError, Store, Write};

use crate::run::Message;

/// The way to the writer's thread.
#[derive(Debug)]
pub(crate) struct Journal {
    batches: mpsc::SyncSender<Batch>,
    thread: JoinHandle<()>,
}

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
                let result: Result<(), CommitError> = store.commit(&batch.writes);
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
