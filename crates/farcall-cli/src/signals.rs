//! The signals that ask the program to stop, and those that must not.
//!
//! What a first and a second request mean is decided by the commands.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// An init system, or `kill`.
    Terminate,
}

/// Signals that are caught from now on. SIGPIPE is ignored by the standard library.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// A file that may not grow further is an error of that write, not the end of the process.
    _file_size: Signal,
}

impl Signals {
    /// Catches them. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _file_size: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32))?,
        })
    }

    /// Waits for the next request to stop.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

/// Requests to apply a changed configuration (SIGHUP), which end a program that does not catch them. Must be called
/// inside a tokio runtime.
///
/// # Errors
/// When the system refuses.
pub(crate) fn reloads() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
