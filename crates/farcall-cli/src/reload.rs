//! Applying a changed configuration: when the file looks different and has kept still, or when a signal asks.
//!
//! The file is looked at four times a second, by name: notifications miss links, network file systems and editors that
//! put another file in its place, and a look costs a few microseconds. A half-written file is not read: it must look
//! the same twice. What is wrong with a file is said with its places, and what held before goes on holding.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farcall_engine::cause::chain;
use farcall_engine::config::{Finding, LoadError, Loaded, needs_restart};
use tokio::signal::unix::Signal;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::context::{Context, log_warnings};
use crate::session::Session;
use crate::signals;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a file looks: any change of its contents changes one of these.
type Look = Option<(u64, u64, u64, i64, i64)>;

/// Waits for reasons to reload, and reloads.
#[derive(Debug)]
pub(crate) struct Reloader {
    context: Context,
    /// The files that may be the configuration.
    candidates: Vec<PathBuf>,
    /// As they looked when they were last read, and at the last look.
    read: Vec<Look>,
    seen: Vec<Look>,
    looks: Interval,
    asked: Signal,
}

impl Reloader {
    /// Must be called before the configuration is read, inside a tokio runtime.
    ///
    /// # Errors
    /// When the signal cannot be caught.
    pub(crate) fn new(context: &Context, directory: &Path) -> std::io::Result<Self> {
        let candidates = match &context.global.config {
            Some(path) => vec![path.clone()],
            None => ["farcall.yml", "kofaf.yml"].map(|name| directory.join(name)).to_vec(),
        };
        let seen = look(&candidates);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (context, asked) = (context.clone(), signals::reloads()?);
        Ok(Self { context, candidates, read: seen.clone(), seen, looks, asked })
    }

    /// Waits until there is something to apply.
    pub(crate) async fn wanted(&mut self) {
        loop {
            tokio::select! {
                _ = self.asked.recv() => return,
                _ = self.looks.tick() => {
                    let now = look(&self.candidates);
                    let is_still = now == self.seen;
                    self.seen = now;
                    if is_still && self.seen != self.read {
                        return;
                    }
                }
            }
        }
    }

    /// Reads the configuration and puts it in the place of the one that holds, or says why not. The API listens at
    /// this address.
    pub(crate) async fn apply(&mut self, session: &Session, address: Option<SocketAddr>) {
        let handle = &session.handle;
        self.read = look(&self.candidates);
        self.seen.clone_from(&self.read);
        let before = handle.config();
        if before.path.as_ref().is_some_and(|path| !path.exists()) {
            return tracing::warn!("the configuration file is gone, what it said goes on holding");
        }
        let (context, directory) = (self.context.clone(), session.directory.clone());
        let loaded = tokio::task::spawn_blocking(move || context.read(&directory)).await;
        let Loaded { config, warnings } = match loaded {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => return refuse(&error),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        log_warnings(&warnings);
        let is_open = config.server.tokens.is_empty();
        if let Some(listen) = address.filter(|address| is_open && !address.ip().is_loopback()) {
            return tracing::error!(
                %listen,
                "the changed configuration is not applied: without server.tokens farcall listens on loopback only"
            );
        }
        let config = Arc::new(config);
        if let Err(error) = handle.reload(Arc::clone(&config)).await {
            return tracing::error!(error = chain(&error), "the changed configuration is not applied");
        }
        let keys = needs_restart(&before, &config);
        if !keys.is_empty() {
            tracing::warn!(keys = keys.join(", "), "restart farcall for these keys, they are read at a start only");
        }
        if address.is_some() && is_open && !before.server.tokens.is_empty() {
            tracing::warn!("without tokens, whoever reaches this address acts as you");
        }
        tracing::info!(upstreams = config.upstreams.len(), "the changed configuration is applied");
    }
}

fn refuse(error: &LoadError) {
    let LoadError::Invalid(diagnostics) = error else {
        return tracing::error!(error = chain(error), "the changed configuration is not applied");
    };
    for Finding { path, line, column, message, hint, .. } in diagnostics.iter() {
        tracing::error!(path, line, column, hint, finding = message, "the changed configuration is not applied");
    }
}

fn look(candidates: &[PathBuf]) -> Vec<Look> {
    let look = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        let changed_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
        Some((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime_nsec(), changed_ns))
    };
    candidates.iter().map(look).collect()
}
