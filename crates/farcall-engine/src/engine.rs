//! Starting and stopping an engine.
//!
//! The store comes from outside. Everything else that is wanted of an engine goes through its [`Handle`].

use farcall_store::port::{CommitError, Store};
use tokio::task::JoinHandle;

use crate::handle::Handle;
use crate::run;

pub use crate::run::{Options, StartError};

/// A running engine. It ends when it was drained, or when its store fails.
#[derive(Debug)]
pub struct Engine {
    handle: Handle,
    running: JoinHandle<Result<(), CommitError>>,
}

impl Engine {
    /// Takes a store over and goes on with what is in it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read or an upstream cannot be used; nothing was sent then.
    pub fn start(store: Box<dyn Store>, options: Options) -> Result<Self, StartError> {
        let started = run::start(store, options)?;
        let running = tokio::spawn(started.run.run());
        Ok(Self { handle: started.handle, running })
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
        match self.running.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
