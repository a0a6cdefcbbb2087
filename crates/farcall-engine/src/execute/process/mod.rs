//! Attempts that run a program: what goes in, what comes out.
//!
//! [`Spawner`] runs commands through the launcher, the small first life of every program we start ([`launch`] is what
//! the two say to each other). [`outcome`] alone says what an exit means to the engine. No shell, anywhere.

mod child;
pub mod launch;
pub mod outcome;
mod spawner;
mod tail;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use spawner::Spawner;
pub use tail::Tail;

/// A program to run, without any shell between.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in PATH unless it holds a slash, and its arguments; never empty.
    pub words: Vec<OsString>,
    /// Where it runs; a program named by a relative path is found from here.
    pub dir: PathBuf,
    /// Variables over the environment of the engine, which it inherits.
    pub env: Vec<(OsString, OsString)>,
    /// Variables of the engine that it does not inherit.
    pub withheld: BTreeSet<String>,
    /// How long it may take to end by itself once it was asked to.
    pub grace: Duration,
}

impl Command {
    /// The grace of callbacks, and the default of functions.
    pub const GRACE: Duration = Duration::from_secs(10);
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It ended with this status.
    Exited(i32),
    /// A signal of this number ended it.
    Signalled(i32),
    /// It never ran; the reason, for people.
    SpawnFailed(String),
}

/// All that is known of a program that ended.
#[derive(Debug, Clone)]
pub struct ProcessReport {
    pub exit: Exit,
    /// We asked it to end, whatever it then did.
    pub aborted: bool,
    /// The end of what it wrote.
    pub stdout: Tail,
    pub stderr: Tail,
}

impl ProcessReport {
    fn not_started(reason: String) -> Self {
        Self { exit: Exit::SpawnFailed(reason), aborted: false, stdout: Tail::default(), stderr: Tail::default() }
    }
}
