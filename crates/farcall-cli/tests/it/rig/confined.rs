//! The program with less than root has: as another user, or in namespaces with mounts and limits of its own.
//!
//! Namespaces need the kernel's leave. Where that is missing a test says so, and fails when `CI` is `true`.

use std::fs::File;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::command::{Running, spawn};
use super::program::get;
use super::until;

const PROGRAM: &str = env!("CARGO_BIN_EXE_farcall");
/// The user `nobody`, who owns nothing.
const NOBODY: u32 = 65_534;

/// `farcall serve DIR` by a user whom modes stop; DIR becomes that user's, and nothing in it.
pub(crate) fn serve_as_nobody(dir: &Path) -> io::Result<Running> {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "none"]).arg(dir);
    if is_root() {
        chown(dir, Some(NOBODY), Some(NOBODY))?;
        command.uid(NOBODY).gid(NOBODY);
    }
    spawn(command, [])
}

/// `farcall serve DIR` in namespaces of its own after these commands of a shell, for which `$1` is DIR.
pub(crate) fn serve_after(dir: &Path, commands: &str) -> io::Result<Running> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("set -e; {commands}; exec \"$0\" serve --listen none \"$1\"")).arg(PROGRAM).arg(dir);
    spawn(command, [])
}

/// `farcall serve DIR` in a namespace in which the boot clock shows so many seconds more. Nothing where there is none.
pub(crate) fn serve_with_boot_clock(dir: &Path, offset_s: i64) -> io::Result<Option<Running>> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--time"]).arg(format!("--boottime={offset_s}"));
        command
    };
    let shown = unshare().args(["cat", "/proc/uptime"]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).split('.').next().and_then(|seconds| seconds.parse().ok());
    // Older kernels put only children into the namespace.
    if shown.is_none_or(|shown: i64| (shown - uptime_s() - offset_s).abs() > 60) {
        missing("time namespaces (`unshare --user --map-root-user --time`)");
        return Ok(None);
    }
    let mut command = unshare();
    command.arg(PROGRAM).args(["serve", "--listen", "none"]).arg(dir);
    spawn(command, []).map(Some)
}

/// What the boot clock shows.
pub(crate) fn uptime_s() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec
}

/// Waits until the server on this directory answers.
pub(crate) fn healthy(running: Running, dir: &Path) -> Running {
    until(&format!("the server's health; it says {}", running.stderr()), || {
        get(dir, "/healthz").ok().filter(|health| health.status == 200)
    });
    running
}

/// A path as the program sees it, below mounts that are its own.
pub(crate) fn seen_by(running: &Running, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", running.pid()));
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A file that not even root can change or remove, until this is dropped.
pub(crate) struct Immutable {
    file: File,
    flags: IFlags,
}

impl Immutable {
    /// Nothing where a test cannot have such files.
    pub(crate) fn make(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let flags = ioctl_getflags(&file).unwrap_or(IFlags::empty());
        match ioctl_setflags(&file, flags | IFlags::IMMUTABLE) {
            Ok(()) => Some(Self { file, flags }),
            Err(_) => {
                missing("files that cannot be changed (`chattr +i`)");
                None
            }
        }
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = ioctl_setflags(&self.file, self.flags);
    }
}

/// Whether tests may make namespaces.
pub(crate) fn has_namespaces() -> bool {
    let made = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    made || missing("namespaces (`unshare --user --map-root-user --mount`)")
}

/// Whether tests may do what only root may.
pub(crate) fn has_root() -> bool {
    is_root() || missing("the rights of root")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[expect(clippy::print_stderr, reason = "a test that cannot run must be noticed")]
fn missing(what: &str) -> bool {
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    assert!(!is_ci, "CI must have {what}");
    eprintln!("NOT TESTED: this machine does not give {what}");
    false
}
