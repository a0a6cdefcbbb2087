//! What happened in a run, line by line, and one number that stands for all of it.
//!
//! Two runs of a seed that differ in anything differ in this number.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use farcall_core::attempt::BytesSent;
use farcall_core::call::{ErrorKind, State};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::Instant;

/// One thing that happened.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Line {
    Boot { number: u32, live: usize },
    Reboot { off_by_us: i64 },
    WallJump { by_us: i64 },
    Reconfigured,
    Forgotten { upstreams: usize },
    Crash { kept: usize },
    Stalled,
    Drain,
    Stopped,
    Healed,
    Offer { call: CallId, upstream: u32 },
    Acknowledged { call: CallId },
    Turn { seq: u64, writes: usize },
    Committed { seq: u64 },
    CommitFailed { seq: u64 },
    Broken { seq: u64 },
    Refused { call: CallId },
    Cancel { call: CallId },
    Pause { upstream: u32 },
    Resume { upstream: u32 },
    Breaker { upstream: u32, opened: bool },
    Launch { attempt: AttemptId, upstream: u32 },
    Abort { attempt: AttemptId },
    Sent { attempt: AttemptId },
    Arrived { attempt: AttemptId, upstream: u32, cost: u32 },
    FirstByte { attempt: AttemptId },
    Finished { attempt: AttemptId, status: Option<u16>, error: Option<ErrorKind>, retry_after: Option<Duration> },
    Aborted { attempt: AttemptId, wrote: bool },
    Stored { call: CallId, state: State, attempts: u32 },
    Filed { call: CallId },
    Loaded { calls: usize },
    StaleFound { calls: usize },
    Pruned { call: CallId },
}

/// The log of a run.
#[derive(Debug)]
pub(crate) struct Log {
    hasher: DefaultHasher,
    count: u64,
    /// Lines that are kept for a failure's report.
    kept_max: usize,
    last: VecDeque<(Instant, Line)>,
}

impl Log {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { hasher: DefaultHasher::new(), count: 0, kept_max, last: VecDeque::new() }
    }

    pub(crate) fn note(&mut self, at: Instant, line: Line) {
        (at, line).hash(&mut self.hasher);
        self.count += 1;
        if self.last.len() == self.kept_max {
            self.last.pop_front();
        }
        self.last.push_back((at, line));
    }

    /// A digest of every line so far.
    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// Lines so far.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The last lines, times counted from `start`.
    pub(crate) fn tail(&self, start: Instant) -> Vec<String> {
        let seconds = |at: Instant| at.since(start).as_secs_f64();
        self.last.iter().map(|(at, line)| format!("{:>16.6} {line}", seconds(*at))).collect()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Line {
    pub(crate) const fn aborted(attempt: AttemptId, wrote: BytesSent) -> Self {
        Self::Aborted { attempt, wrote: matches!(wrote, BytesSent::Maybe) }
    }
}
