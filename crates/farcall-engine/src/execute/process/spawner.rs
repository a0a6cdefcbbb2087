//! The one thread that spawns programs.
//!
//! The parent-death signal, which takes our programs along when the engine is killed, fires when the *thread* that
//! spawned them ends. Threads of a pool come and go; this one lives as long as the last program it spawned. It has a
//! runtime of its own and watches all programs at once; how a single one is run stands in `child`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{self, Stop};
use super::{Command, ProcessReport};

/// Commands handed over and not yet spawned; spawning takes less than a millisecond.
const JOBS_MAX: usize = 64;

/// Runs programs. Once it is dropped its thread ends with the last program that still runs.
#[derive(Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Job {
    command: Command,
    abort: CancellationToken,
    reply: oneshot::Sender<ProcessReport>,
}

impl Spawner {
    /// Starts the thread. `launcher` is this program's own file; `/proc/self/exe` names it even after it was replaced
    /// by a newer one on disk.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn new(launcher: PathBuf) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new()
            .name("farcall-spawner".to_owned())
            .spawn(move || runtime.block_on(serve(launcher.into(), receiver)))?;
        Ok(Self { jobs: sender, thread })
    }

    /// Runs a program to its end.
    ///
    /// Cancelling `abort`, or dropping the returned future, asks the program and its process group to end (SIGTERM)
    /// and, `grace` later, makes them (SIGKILL). The report comes when the program itself has ended, even if one of
    /// its descendants keeps its output open.
    pub async fn run(&self, command: Command, abort: CancellationToken) -> ProcessReport {
        let (reply, report) = oneshot::channel();
        let job = Job { command, abort, reply };
        let ended = || ProcessReport::not_started("cannot start a program: the spawner has ended".to_owned());
        if self.jobs.send(job).await.is_err() {
            return ended();
        }
        report.await.unwrap_or_else(|_| ended())
    }

    /// Waits until every program has ended, and the thread with them. Blocks.
    pub fn join(self) {
        drop(self.jobs);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn serve(launcher: Arc<std::path::Path>, mut jobs: mpsc::Receiver<Job>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => drop(running.spawn(handle(Arc::clone(&launcher), job))),
                None => break,
            },
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn handle(launcher: Arc<std::path::Path>, job: Job) {
    let Job { command, abort, mut reply } = job;
    let report = child::run(&launcher, &command, Stop { abort: &abort, reply: &mut reply }).await;
    // Nobody waits any more when the caller dropped its future.
    let _ = reply.send(report);
}
