//! Any command of the program, as a user or a script starts it: arguments, signals, exit code, what it printed.
//!
//! Only what a test sets is in its environment. Output goes to files, so that nobody waits for a pipe.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// A command that has not been waited for; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    printed: tempfile::TempDir,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `farcall` to its end.
pub(crate) fn farcall<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> io::Result<Finished> {
    start(args, [])?.finish()
}

/// Starts `farcall` with these variables in its environment.
pub(crate) fn start<A: AsRef<OsStr>, const N: usize>(
    args: impl IntoIterator<Item = A>,
    variables: [(&str, &str); N],
) -> io::Result<Running> {
    start_as(Path::new(env!("CARGO_BIN_EXE_farcall")), args, variables)
}

/// Starts the program under another name.
pub(crate) fn start_as<A: AsRef<OsStr>, const N: usize>(
    program: &Path,
    args: impl IntoIterator<Item = A>,
    variables: [(&str, &str); N],
) -> io::Result<Running> {
    let mut command = Command::new(program);
    command.args(args);
    spawn(command, variables)
}

/// Starts a command that is set up otherwise already.
pub(crate) fn spawn<const N: usize>(mut command: Command, variables: [(&str, &str); N]) -> io::Result<Running> {
    let printed = tempfile::tempdir()?;
    let child = command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", printed.path())
        .env("TMPDIR", printed.path())
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(File::create(printed.path().join("stdout"))?)
        .stderr(File::create(printed.path().join("stderr"))?)
        .spawn()?;
    Ok(Running { child, printed })
}

impl Running {
    /// Its home directory, and where it makes temporary ones.
    pub(crate) fn home(&self) -> &Path {
        self.printed.path()
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.printed.path().join("stderr")).unwrap_or_default()
    }

    /// What it has written to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(self.printed.path().join("stdout")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        let status = until("the program's end", || self.child.try_wait().transpose())?;
        Ok(Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
