//! One program from spawn to reap.
//!
//! Its end is seen through a pidfd and it is reaped last of all: until then its number, which is also the number of
//! its process group, can belong to nobody else, so no signal of ours ever hits a stranger. Runs on the spawner's
//! thread only.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::launch::{self, Launch};
use super::{Command, Exit, ProcessReport, Tail};

/// How long output is still read once the program has ended and a descendant keeps it open.
const DRAIN: Duration = Duration::from_millis(100);

/// Asks for the end: an abort, or a caller who no longer waits.
pub(super) struct Stop<'a> {
    pub(super) abort: &'a CancellationToken,
    pub(super) reply: &'a mut oneshot::Sender<ProcessReport>,
}

/// Runs a program to its end.
pub(super) async fn run(launcher: &Path, command: &Command, mut stop: Stop<'_>) -> ProcessReport {
    if stop.is_requested() {
        return ProcessReport { aborted: true, ..ProcessReport::not_started("stopped before it started".to_owned()) };
    }
    let mut child = match spawn(launcher, command) {
        Ok(child) => child,
        Err(error) => return ProcessReport::not_started(format!("cannot run the launcher: {error}")),
    };
    match Watch::new(&mut child) {
        Ok(watch) => watch.finish(child, &mut stop, command.grace).await,
        Err(error) => without_watch(child, &error),
    }
}

fn spawn(launcher: &Path, command: &Command) -> io::Result<Child> {
    let (program, args) = command.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let launch = Launch {
        parent: std::process::id(),
        dir: Some(command.dir.clone()),
        program: program.clone(),
        args: args.to_vec(),
    };
    let mut launched = std::process::Command::new(launcher);
    for name in &command.withheld {
        launched.env_remove(name);
    }
    launched
        .args(launch.into_args())
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Out of descriptors, most likely: a program that we cannot watch must not run.
fn without_watch(mut child: Child, error: &io::Error) -> ProcessReport {
    let _ = child.kill();
    let exit = child.wait().map_or_else(|error| Exit::SpawnFailed(error.to_string()), exit);
    tracing::warn!(%error, "killed a program that cannot be watched");
    ProcessReport { exit, aborted: true, stdout: Tail::default(), stderr: Tail::default() }
}

/// All that we hold of a running program but the right to reap it.
struct Watch {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Watch {
    fn new(child: &mut Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        #[expect(
            deprecated,
            reason = "unsound for some types, but an OwnedFd stays what it is; the other one is unsafe"
        )]
        let pidfd = AsyncFd::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        let receiver =
            |stream: Option<OwnedFd>| pipe::Receiver::from_owned_fd(stream.ok_or(io::ErrorKind::BrokenPipe)?);
        let stdout = receiver(child.stdout.take().map(OwnedFd::from))?;
        let stderr = receiver(child.stderr.take().map(OwnedFd::from))?;
        Ok(Self { pid, pidfd, stdout, stderr })
    }

    async fn finish(self, mut child: Child, stop: &mut Stop<'_>, grace: Duration) -> ProcessReport {
        let Self { pid, pidfd, stdout: out, stderr: err } = self;
        let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
        let aborted = {
            let mut read = pin!(async { tokio::join!(stdout.fill(out), stderr.fill(err)) });
            let mut end = pin!(end(pid, &pidfd, stop, grace));
            let (aborted, all_read) = tokio::select! {
                aborted = &mut end => (aborted, false),
                _ = &mut read => (end.await, true),
            };
            if !all_read {
                let _ = timeout(DRAIN, read).await;
            }
            aborted
        };
        match child.wait() {
            Ok(status) => finished(status, aborted, stdout, stderr),
            Err(error) => ProcessReport { exit: Exit::SpawnFailed(error.to_string()), aborted, stdout, stderr },
        }
    }
}

/// Waits for the end of the program, and brings it about when asked to; true if it was.
async fn end(pid: Pid, pidfd: &AsyncFd<OwnedFd>, stop: &mut Stop<'_>, grace: Duration) -> bool {
    tokio::select! {
        biased;
        () = exited(pidfd) => return false,
        () = stop.requested() => signal(pid, Signal::TERM),
    }
    if timeout(grace, exited(pidfd)).await.is_err() {
        signal(pid, Signal::KILL);
        exited(pidfd).await;
    }
    // Descendants that outlived it; the program itself is a zombie by now and keeps the group's number taken.
    signal(pid, Signal::KILL);
    true
}

/// A pidfd becomes readable when its process has ended, whether reaped or not; see pidfd_open(2).
async fn exited(pidfd: &AsyncFd<OwnedFd>) {
    // It only fails when the runtime is gone, and then this future is no longer polled.
    if let Ok(mut ready) = pidfd.readable().await {
        ready.retain_ready();
    }
}

/// Signals the group, or the launcher when it has not made its session yet and so leads no group.
fn signal(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

fn finished(status: ExitStatus, aborted: bool, stdout: Tail, stderr: Tail) -> ProcessReport {
    let exit = match exit(status) {
        Exit::Exited(code) => match launch::not_started_reason(code, stderr.as_bytes()) {
            Some(reason) => Exit::SpawnFailed(reason),
            None => Exit::Exited(code),
        },
        exit @ (Exit::Signalled(_) | Exit::SpawnFailed(_)) => exit,
    };
    ProcessReport { exit, aborted, stdout, stderr }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Exited(code),
        (None, signal) => Exit::Signalled(signal.unwrap_or(0)),
    }
}

impl Stop<'_> {
    fn is_requested(&self) -> bool {
        self.abort.is_cancelled() || self.reply.is_closed()
    }

    async fn requested(&mut self) {
        tokio::select! {
            () = self.abort.cancelled() => {}
            () = self.reply.closed() => {}
        }
    }
}
