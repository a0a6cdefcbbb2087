//! A call that has not ended, in memory, and its attempts that are out.
//!
//! Plain data: what happens to an entry stands with what makes it happen.

use crate::call::{CallSpec, QuotaId, State, WaitReason};
use crate::limit::Grant;
use crate::settle::Tries;
use crate::time::Instant;

/// One live call.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) spec: CallSpec,
    pub(super) state: State,
    pub(super) place: Place,
    pub(super) tries: Tries,
    /// Attempts made, over its whole life.
    pub(super) attempts: u32,
    pub(super) deadline: Option<Instant>,
    /// It was to be cancelled when an attempt had been let go.
    pub(super) is_cancel_requested: bool,
    /// Attempts whose handling broke down, since this process has the call.
    pub(super) deaths: u32,
    /// Attempts that are out.
    pub(super) live: Vec<Live>,
}

/// Where the call is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In its upstream's lanes.
    Lane,
    /// Waiting for a time.
    Asleep { until: Instant, reason: WaitReason },
    /// A callback whose parent is not filed yet.
    Held,
    /// Attempts are out.
    Running,
    /// It has ended, and attempts that lost are still to report.
    Ended,
}

/// One attempt that is out.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) number: u32,
    /// What it is charged to, and its slots there.
    pub(super) quota: QuotaId,
    pub(super) grant: Grant,
    /// Its start is stored.
    pub(super) is_durable: bool,
    /// Nothing before it is launched.
    pub(super) times_out_at: Option<Instant>,
    /// Why it is being cut off, if it is.
    pub(super) cut: Option<Cut>,
}

impl Entry {
    /// The attempt of this number, if it is out and its start durable: of any other nobody can tell anything.
    pub(super) fn launched(&mut self, number: u32) -> Option<&mut Live> {
        self.live.iter_mut().find(|live| live.number == number && live.is_durable)
    }
}

/// Why an attempt is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Timeout,
    Deadline,
    /// Another attempt of the call has won.
    Lost,
    Drain,
    /// The call was cancelled before the attempt was let go.
    Cancel,
}
