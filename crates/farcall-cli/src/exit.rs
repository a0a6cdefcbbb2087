//! How the program ends: the exit codes users script against, and failures that carry theirs.
//!
//! A command returns `Result<Exit, Failure>`; what a failure says is printed once, where the command returns.

use std::fmt::Display;
use std::process::ExitCode;

use farcall_engine::config::{Diagnostics, Finding, LoadError};

/// An exit code of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    /// A call ended otherwise than `succeeded` or `cancelled`, or a file was rejected.
    CallFailed,
    /// Usage, configuration, refused access, or an address that is in use.
    Usage,
    /// No such call, upstream or the like.
    NotFound,
    /// What is asked for contradicts how things stand, as cancelling what has ended.
    Conflict,
    /// What was waited for did not come in time.
    TimedOut,
    /// No server answers, or the one that does cannot serve now.
    Unreachable,
    /// The data directory is in use or cannot be used.
    Directory,
    /// Stopped by a signal before it was done.
    Interrupted,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Mistakes in the configuration, each with its place.
    Configuration(Diagnostics),
    Told {
        exit: Exit,
        error: anyhow::Error,
        /// What the user can do.
        hint: Option<String>,
    },
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::CallFailed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::TimedOut => 5,
            Self::Unreachable => 6,
            Self::Directory => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self::Told { exit, error: error.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{message}"))
    }

    pub(crate) fn directory(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Directory, error)
    }

    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Told { exit, error, .. } => Self::Told { exit, error, hint: Some(text.into()) },
            Self::Configuration(_) => self,
        }
    }

    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) => Exit::Usage,
            Self::Told { exit, .. } => *exit,
        }
    }

    /// Whether its message has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        match self {
            Self::Configuration(_) => false,
            Self::Told { error, .. } => format!("{error:#}").contains(words),
        }
    }

    /// Logs it, for those who read the log only.
    pub(crate) fn log(&self) {
        match self {
            Self::Configuration(mistakes) => {
                for Finding { path, line, column, message, hint, .. } in mistakes.iter() {
                    tracing::error!(path, line, column, hint, error = message, "the configuration cannot be used");
                }
            }
            Self::Told { error, hint, .. } => {
                tracing::error!(error = format!("{error:#}"), hint = hint.as_deref(), "farcall cannot go on");
            }
        }
    }

    /// What is printed, without a newline at the end.
    pub(crate) fn render(&self, color: bool) -> String {
        match self {
            Self::Configuration(diagnostics) => diagnostics.render(color),
            Self::Told { error, hint, .. } => {
                let label = if color { "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m" } else { "error:" };
                let hint = hint.iter().map(|hint| format!("\nhint: {hint}"));
                format!("{label} {error:#}{}", hint.collect::<String>())
            }
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Invalid(diagnostics) => Self::Configuration(diagnostics),
            LoadError::WritableByEveryone { .. } => Self::directory(error),
            LoadError::Unreadable { .. } => Self::new(Exit::Usage, error),
        }
    }
}
