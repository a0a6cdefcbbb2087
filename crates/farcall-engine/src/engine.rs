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
    /// Nothing when no inbox is watched.
    watching: Option<Watching>,
}

/// The inbox of an engine that watches one.
#[derive(Debug)]
struct Watching {
    intake: Intake,
    serving: JoinHandle<()>,
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
        let serving = tokio::spawn(inbox::serve(offers, handle.clone(), filing));
        let running = tokio::spawn(run.run());
        Ok(Self { handle, running, watching: Some(Watching { intake, serving }) })
    }

    /// The same without an inbox: call files in the working directory stay where they are.
    ///
    /// # Errors
    /// When the store cannot be read or an upstream cannot be used; nothing was sent then.
    pub fn start_without_inbox(store: Box<dyn Store>, options: Options) -> Result<Self, StartError> {
        let Started { run, handle, filing: _, taken_before: _ } = run::start(store, options)?;
        let running = tokio::spawn(run.run());
        Ok(Self { handle, running, watching: None })
    }

    /// The same for a store that holds no call from a file: nothing in the working directory is looked at or made.
    ///
    /// # Errors
    /// When the store cannot be read or an upstream cannot be used; nothing was sent then.
    pub fn start_without_files(store: Box<dyn Store>, options: Options) -> Result<Self, StartError> {
        let Started { run, handle, filing: _, taken_before: _ } = run::start_without_files(store, options)?;
        let running = tokio::spawn(run.run());
        Ok(Self { handle, running, watching: None })
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
        self.handle.operations.join().await;
        if let Some(watching) = self.watching {
            watching.stop().await;
        }
        result
    }
}

impl Watching {
    async fn stop(self) {
        self.intake.stop();
        let _ = self.serving.await;
        if let Err(error) = tokio::task::spawn_blocking(move || self.intake.join()).await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
