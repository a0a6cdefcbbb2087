//! A running engine on a directory: what `serve`, `run` and `demo` have in common, from opening to the last commit.
//!
//! The order of opening matters: nothing is sent, and no call file touched, before everything that can be refused has
//! been looked at.

use std::fs::DirBuilder;
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use farcall_engine::{Engine, Handle, Options, StartError};
use farcall_store::port::CommitError;
use farcall_store::sqlite::{OpenError, SqliteStore};

use crate::context::{Context, log_warnings};
use crate::directory;
use crate::exit::{Exit, Failure};

/// This program, also when its file has been replaced since: the engine and its launchers must be of one version.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// An engine at work.
pub(crate) struct Session {
    pub(crate) directory: PathBuf,
    pub(crate) handle: Handle,
    ended: Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>,
}

/// Runs an async command on a runtime of its own. What a second signal leaves behind is not waited for.
pub(crate) fn block_on<F>(work: F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime").map_err(|error| Failure::new(Exit::Usage, error))?;
    let exit = runtime.block_on(work);
    runtime.shutdown_background();
    exit
}

impl Session {
    /// Loads the directory's configuration, takes its store over, and goes on with what waits there.
    ///
    /// # Errors
    /// With exit code 2 for the configuration, 7 for the directory.
    pub(crate) fn start(context: &Context, dir: &Path) -> Result<Self, Failure> {
        let directory = directory::prepare(dir)?;
        let loaded = context.load(&directory)?;
        log_warnings(&loaded);
        let path = directory.join(&loaded.config.store.path);
        private_folder(&directory.join(".farcall")).map_err(Failure::directory)?;
        let store = SqliteStore::open(&path).map_err(store_failure)?;
        let options =
            Options { directory: directory.clone(), config: Arc::new(loaded.config), launcher: OWN_PROGRAM.into() };
        let engine = Engine::start(Box::new(store), options).map_err(start_failure)?;
        let handle = engine.handle().clone();
        Ok(Self { directory, handle, ended: Box::pin(engine.join()) })
    }

    /// Waits until the engine has ended: after a drain, or because its store cannot be written. Must not be awaited
    /// again after that.
    ///
    /// # Errors
    /// When the store could not be written.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        self.ended.as_mut().await.map_err(Failure::directory)
    }
}

/// The folder of the store and the socket is its owner's alone, wherever the store lies.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn store_failure(error: OpenError) -> Failure {
    let is_in_use = matches!(error, OpenError::InUse { .. });
    let failure = Failure::directory(error);
    if is_in_use {
        failure.with_hint("only one farcall at a time works in a directory; stop the other one")
    } else {
        failure
    }
}

fn start_failure(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Read(_) | StartError::File(_) | StartError::Io { .. } => Exit::Directory,
        StartError::Upstream(_) => Exit::Usage,
    };
    Failure::new(exit, error)
}
