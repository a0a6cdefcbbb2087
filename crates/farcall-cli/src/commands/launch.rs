//! `farcall __launch`: the first life of every program that the engine starts.
//!
//! The engine starts this program again instead of the wanted one; here, alone and with one thread, it leaves the
//! engine's session, arms the parent-death signal, closes what it inherited, and then becomes the wanted program. So
//! the engine needs no unsafe code between fork and exec. No shell takes part. Hidden: nobody types it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use farcall_engine::execute::process::launch::{Launch, NOT_STARTED, not_started_line};
use nix::sys::signal::SigSet;
use rustix::process::{Resource, Rlimit, Signal};

/// Becomes the program; comes back only when that failed, having said why on stderr.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let launch = match Launch::parse(args) {
        Ok(launch) => launch,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::from(2);
        }
    };
    let error = match detach(&launch) {
        Ok(()) => Command::new(&launch.program).args(&launch.args).exec().into(),
        Err(error) => error,
    };
    let _ = io::stderr().write_all(not_started_line(&launch.program, &format!("{error:#}")).as_bytes());
    ExitCode::from(NOT_STARTED)
}

fn detach(launch: &Launch) -> anyhow::Result<()> {
    die_with_parent(launch.parent)?;
    // A session of its own: no terminal, and one group that can be signalled as a whole.
    rustix::process::setsid().context("cannot make a session")?;
    close_inherited().context("cannot close inherited descriptors")?;
    // What a program held in memory, secrets among it, must not end up in a core file.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).context("cannot switch core files off")?;
    // A signal that the engine blocks would stay blocked over exec. SIGPIPE, which std ignores, std itself puts back.
    SigSet::empty().thread_set_mask().context("cannot unblock signals")?;
    if let Some(dir) = &launch.dir {
        std::env::set_current_dir(dir).with_context(|| format!("cannot enter {}", dir.display()))?;
    }
    Ok(())
}

/// Arms the signal, then makes sure that it was not too late: a parent that died before cannot fire it any more.
fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot arm the death signal")?;
    let present = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    anyhow::ensure!(present == Some(parent), "the engine that wanted it has ended");
    Ok(())
}

/// Closes every descriptor but the three standard ones. The list is complete before the first is closed, and holds
/// the descriptor by which it was read, which is gone by then.
fn close_inherited() -> io::Result<()> {
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        inherited.extend(number.filter(|&number| number > 2));
    }
    for descriptor in inherited {
        // EBADF: the list's own. On Linux every other error leaves it closed too; see close(2).
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}
