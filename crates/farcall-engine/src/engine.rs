//! Starting and stopping an engine: the loop, and the inbox beside it.
//!
//! Whoever holds the [`Engine`] owns its threads and tasks; whoever wants to talk to it clones its handle.

use std::sync::Arc;

use farcall_store::port::{CommitError, Store};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::handle::Handle;
use crate::inbox;
use crate::intake::{self, Intake};
use crate::run::{self, Started};

pub use crate::run::{Options, StartError};

/// Offers of the inbox that may wait.
const OFFERS_MAX: usize = 1;

/// A running engine. It ends when it was drained, or when its store fails.
#[derive(Debug)]
pub struct Engine {
    handle: Handle,
    running: JoinHandle<Result<(), CommitError>>,
    intake: Intake,
    inbox: JoinHandle<()>,
}

impl Engine {
    /// Takes a store over, goes on with what is in it, and watches the working directory for call files. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read or an upstream cannot be used; nothing was sent then.
    pub fn start(store: Box<dyn Store>, options: Options) -> Result<Self, StartError> {
        let dir = options.directory.clone();
        let Started { run, mut handle, filing, taken_before } = run::start(store, options)?;
        let (sender, offers) = mpsc::channel(OFFERS_MAX);
        let settings = intake::Settings { dir, rescan_interval: intake::RESCAN_INTERVAL, config: handle.live_config() };
        let intake = Intake::spawn(settings, Arc::clone(&filing), sender, Some(taken_before))
            .map_err(|source| StartError::Io { what: "start the inbox's thread", source })?;
        handle.inbox = Some(intake.status());
        handle.inbox_waker = Some(intake.waker());
        let inbox = tokio::spawn(inbox::serve(offers, handle.clone(), filing));
        let running = tokio::spawn(run.run());
        Ok(Self { handle, running, intake, inbox })
    }

    /// The way to talk to it.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When a commit failed. What was accepted before is on disk.
    pub async fn join(self) -> Result<(), CommitError> {
        let result = match self.running.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.intake.stop();
        let _ = self.inbox.await;
        if let Err(error) = tokio::task::spawn_blocking(move || self.intake.join()).await {
            std::panic::resume_unwind(error.into_panic());
        }
        result
    }
}
