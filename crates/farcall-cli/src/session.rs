//! A running engine on a directory: what `serve`, `run` and `demo` have in common, from opening to the last commit.
//!
//! The order of opening matters: nothing is sent, and no call file touched, before everything that can be refused has
//! been looked at.

use std::fs::{DirBuilder, File, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use farcall_engine::config::Config;
use farcall_engine::{Engine, Handle, Options, StartError};
use farcall_store::port::CommitError;
use farcall_store::sqlite::{OpenError, SqliteStore};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::context::{Context, log_warnings};
use crate::directory;
use crate::exit::{Exit, Failure};

/// What to do about a store that was damaged from outside.
const REPAIR: &str = "nothing was written; docs/promises.md says under \"Repair\" how to go on";

/// This program, also when its file has been replaced since: the engine and its launchers must be of one version.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";

/// How often a lock that somebody holds is asked for, and how long is waited in between: 0.4 s in all.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Nobody but the owner may read, write or enter.
const PRIVATE: u32 = 0o700;

/// A directory whose store is ours.
pub(crate) struct Opened {
    pub(crate) directory: PathBuf,
    pub(crate) config: Arc<Config>,
    store: SqliteStore,
    lock: File,
}

/// An engine at work.
pub(crate) struct Session {
    pub(crate) directory: PathBuf,
    pub(crate) handle: Handle,
    ended: Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>,
    /// The directory is ours as long as this is open.
    _lock: File,
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

impl Opened {
    /// Loads the directory's configuration and locks its store. Nothing in the inbox is touched.
    ///
    /// # Errors
    /// With exit code 2 for the configuration, 7 for the directory.
    pub(crate) fn open(context: &Context, dir: &Path) -> Result<Self, Failure> {
        let directory = directory::prepare(dir)?;
        let loaded = context.load(&directory)?;
        log_warnings(&loaded.warnings);
        let lock = private_folder(&directory.join(".farcall")).map_err(Failure::directory)?;
        own(&lock, &directory)?;
        let store = SqliteStore::open(&directory.join(&loaded.config.store.path)).map_err(store_failure)?;
        Ok(Self { directory, config: Arc::new(loaded.config), store, lock })
    }

    /// Takes the store over and goes on with what waits. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// With exit code 2 for an upstream that cannot be used, 7 for the directory.
    pub(crate) fn start(self) -> Result<Session, Failure> {
        self.start_by(|store, options| Engine::start(Box::new(store), options))
    }

    /// The same without looking for call files.
    ///
    /// # Errors
    /// With exit code 2 for an upstream that cannot be used, 7 for the directory.
    pub(crate) fn start_without_inbox(self) -> Result<Session, Failure> {
        self.start_by(|store, options| Engine::start_without_inbox(Box::new(store), options))
    }

    fn start_by(
        self,
        start: impl FnOnce(SqliteStore, Options) -> Result<Engine, StartError>,
    ) -> Result<Session, Failure> {
        let Self { directory, config, store, lock } = self;
        let options = Options { directory: directory.clone(), config, launcher: OWN_PROGRAM.into() };
        let engine = start(store, options).map_err(start_failure)?;
        let handle = engine.handle().clone();
        Ok(Session { directory, handle, ended: Box::pin(engine.join()), _lock: lock })
    }
}

impl Session {
    /// Waits until the engine has ended: after a drain, or because its store cannot be written. Must not be awaited
    /// again after that.
    ///
    /// # Errors
    /// When the store could not be written.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        self.ended.as_mut().await.map_err(Failure::directory)
    }
}

/// One engine per directory, also when the stores are two: both would take the same files.
///
/// After a kill -9 the lock lives on for a moment in a child that was just being started, so it is asked for again.
fn own(folder: &File, directory: &Path) -> Result<(), Failure> {
    for _ in 0..LOCK_TRIES {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            // A file system that locks no folders still locks the store's file.
            Ok(()) | Err(_) => return Ok(()),
        }
    }
    Err(in_use(anyhow!("{} is in use by another farcall", directory.display())))
}

/// The folder of the store and the socket is its owner's alone, wherever the store lies; a link to one is none.
fn private_folder(path: &Path) -> anyhow::Result<File> {
    match DirBuilder::new().mode(PRIVATE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let metadata = path.symlink_metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    anyhow::ensure!(metadata.is_dir(), "{} is no folder; a link is not followed", path.display());
    if metadata.permissions().mode() & 0o777 != PRIVATE {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .with_context(|| format!("cannot make {} its owner's alone", path.display()))?;
    }
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn store_failure(error: OpenError) -> Failure {
    match error {
        OpenError::InUse { .. } => in_use(error),
        OpenError::Behind { .. } | OpenError::Damaged { .. } => Failure::directory(error).with_hint(REPAIR),
        other => Failure::directory(other),
    }
}

fn in_use(error: impl Into<anyhow::Error>) -> Failure {
    Failure::directory(error).with_hint("only one farcall at a time works in a directory; stop the other one")
}

fn start_failure(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Read(_) | StartError::File(_) | StartError::Io { .. } => Exit::Directory,
        StartError::Upstream(_) => Exit::Usage,
    };
    Failure::new(exit, error)
}
