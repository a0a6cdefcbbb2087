//! What the engine and the launcher say to each other, both sides of it.
//!
//! The launcher (`farcall __launch`) is this program once more, for the moment between being spawned and becoming the
//! wanted program: what must be done there, in the child, it does in safe code. What it does stands with the binary;
//! here are only its arguments and how it says that the program could not be started.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The hidden command.
pub const COMMAND: &str = "__launch";

/// The status of a launcher that started nothing, as shells have it for a command not found.
pub const NOT_STARTED: u8 = 127;

/// Begins the line that explains [`NOT_STARTED`]. A program that fakes it fools nobody but itself: its attempt counts
/// as never made.
const NOT_STARTED_PREFIX: &str = "farcall: cannot start ";

/// The launcher's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The process that spawns the launcher; with any other parent it is an orphan and must end.
    pub parent: u32,
    /// Where the program runs.
    pub dir: Option<PathBuf>,
    pub program: OsString,
    pub args: Vec<OsString>,
}

/// Arguments that are not a launcher's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("usage: farcall __launch --parent PID [--dir DIR] -- PROGRAM [ARGUMENT...]")]
pub struct LaunchError;

impl Launch {
    /// The command line behind the program's own name.
    pub fn into_args(self) -> Vec<OsString> {
        let mut args = vec![COMMAND.into(), "--parent".into(), self.parent.to_string().into()];
        if let Some(dir) = self.dir {
            args.extend(["--dir".into(), dir.into()]);
        }
        args.extend(["--".into(), self.program]);
        args.extend(self.args);
        args
    }

    /// Reads what [`Launch::into_args`] wrote, without the hidden command itself.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, LaunchError> {
        let (mut parent, mut dir) = (None, None);
        let mut args = args.into_iter();
        loop {
            match args.next().as_deref().and_then(OsStr::to_str) {
                Some("--parent") => parent = args.next().and_then(|pid| pid.to_str()?.parse().ok()),
                Some("--dir") => dir = args.next().map(PathBuf::from),
                Some("--") => break,
                Some(_) | None => return Err(LaunchError),
            }
        }
        let (Some(parent), Some(program)) = (parent, args.next()) else { return Err(LaunchError) };
        Ok(Self { parent, dir, program, args: args.collect() })
    }
}

/// The line by which a launcher tells that it started nothing.
pub fn not_started_line(program: &OsStr, reason: &str) -> String {
    format!("{NOT_STARTED_PREFIX}{}: {reason}\n", program.display())
}

/// What a launcher told, if this exit is a launcher's and not a program's.
pub(super) fn not_started_reason(exit_status: i32, stderr: &[u8]) -> Option<String> {
    if exit_status != i32::from(NOT_STARTED) || !stderr.starts_with(NOT_STARTED_PREFIX.as_bytes()) {
        return None;
    }
    let line = String::from_utf8_lossy(stderr);
    Some(line.trim_end().trim_start_matches("farcall: ").to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn launch(dir: Option<&str>, words: &[&str]) -> Launch {
        let mut words = words.iter().map(OsString::from);
        Launch {
            parent: 42,
            dir: dir.map(PathBuf::from),
            program: words.next().expect("a program"),
            args: words.collect(),
        }
    }

    #[test]
    fn what_the_engine_writes_the_launcher_reads() {
        let mut odd = launch(Some("/a b"), &["--", "--dir", "--parent", "-x", ""]);
        odd.args.push(OsString::from_vec(b"\xff\xfe".to_vec()));
        for launch in [launch(None, &["true"]), odd] {
            let mut args = launch.clone().into_args().into_iter();
            assert_eq!(args.next().as_deref(), Some(OsStr::new(COMMAND)));
            assert_eq!(Launch::parse(args), Ok(launch));
        }
    }

    #[test]
    fn other_arguments_are_refused() {
        for args in [
            &[][..],
            &["--parent", "1"],
            &["--parent", "1", "--"],
            &["--", "true"],
            &["--parent", "x", "--", "true"],
            &["--parent", "1", "true"],
            &["--parent", "1", "--dir", "--", "true"],
            &["--mode", "--parent", "1", "--", "true"],
        ] {
            assert_eq!(Launch::parse(args.iter().map(OsString::from)), Err(LaunchError), "{args:?}");
        }
    }

    #[test]
    fn only_the_launchers_own_line_means_not_started() {
        let line = not_started_line(OsStr::new("nope"), "No such file or directory");
        assert_eq!(
            not_started_reason(127, line.as_bytes()).as_deref(),
            Some("cannot start nope: No such file or directory")
        );
        assert_eq!(not_started_reason(1, line.as_bytes()), None);
        assert_eq!(not_started_reason(127, b"sh: 1: nope: not found\n"), None);
    }
}
