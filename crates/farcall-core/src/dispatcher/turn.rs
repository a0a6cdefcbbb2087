//! What a turn hands over: writes that must be made durable, and effects that may happen at once.
//!
//! Plain data that crosses the border of the core: numbers and words, no text and no bytes.

use std::time::Duration;

use super::foresee::Refusal;
use crate::attempt::{AttemptKind, AttemptOutcome};
use crate::breaker::BreakerState;
use crate::call::{ErrorKind, State, UpstreamId};
use crate::hop::Heading;
use crate::id::{AttemptId, CallId};
use crate::settle::Tries;
use crate::time::{Instant, Now, Timestamp};

/// The number of a turn; they count up by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// Everything decided at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    pub seq: Seq,
    /// To be committed together, in this order.
    pub writes: Vec<Write>,
    /// What was decided of ephemeral calls, in this order: it is true at once, and stored nowhere.
    pub unstored: Vec<Write>,
    /// May happen now: what they rest on is durable.
    pub effects: Vec<Effect>,
}

/// A change that must be durable before what rests on it happens; of an ephemeral call, one that is only told.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Insert {
        call: CallId,
        state: State,
        /// Its place in its lane; nothing for one that is held back.
        ready_at: Option<Instant>,
        callback: Option<Callback>,
    },
    Start {
        attempt: AttemptId,
        kind: AttemptKind,
        /// Where it goes, and whose limits it is charged to.
        upstream: UpstreamId,
        at: Now,
        /// How long the call waited since it might have gone on; nothing where that is not known.
        waited: Option<Duration>,
    },
    /// An attempt ended, a waiting call did, or both an attempt and its call.
    Settle { call: CallId, upstream: UpstreamId, attempt: Option<AttemptEnd>, progress: Option<Progress> },
    /// An answer to this call asks everybody to keep away from its upstream until then.
    Close { call: CallId, until: Instant },
    /// A callback that was held back, or a call that was told to keep away, may go on.
    Release { call: CallId, ready_at: Instant },
    /// A call's files are in place.
    Filed { call: CallId },
    /// A call that ended long ago is forgotten, but for what it counts in limits from `grants_since` on.
    Prune { call: CallId, state: State, grants_since: Instant },
    /// The idempotency key of a call that ended long ago may name another.
    FreeKey { call: CallId },
    /// Something to remember of a call that runs.
    Mark { call: CallId, mark: Mark },
    /// What is set at this upstream now: whether it is paused, and whatever else whoever stores it knows.
    Upstream { upstream: UpstreamId },
    /// This upstream asks nobody to keep away any more.
    Open { upstream: UpstreamId },
    /// An attempt of an ephemeral call takes slots of a window that outlasts a restart.
    Grant { attempt: AttemptId, upstream: UpstreamId, at: Now, cost: u32 },
    /// Such an attempt has ended: from when its slots cool; nothing when it sent nothing. What was counted before
    /// `grants_since` may go.
    GrantEnd { attempt: AttemptId, proved_at: Option<Instant>, grants_since: Instant },
    /// Such attempts that an earlier process left behind are taken as proved then.
    GrantsLeft { proved_at: Instant },
}

/// What is remembered of a call that runs, beside its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is to be cancelled: no further attempt is made, also after a restart.
    CancelRequested,
    /// Its attempt is not what farcall dies of.
    Survived,
}

impl Write {
    /// The call it changes; nothing when it changes an upstream.
    pub const fn call(&self) -> Option<CallId> {
        match *self {
            Self::Insert { call, .. }
            | Self::Settle { call, .. }
            | Self::Close { call, .. }
            | Self::Release { call, .. }
            | Self::Filed { call }
            | Self::Mark { call, .. }
            | Self::Prune { call, .. }
            | Self::FreeKey { call } => Some(call),
            Self::Start { attempt, .. } | Self::Grant { attempt, .. } | Self::GrantEnd { attempt, .. } => {
                Some(attempt.call)
            }
            Self::Upstream { .. } | Self::Open { .. } | Self::GrantsLeft { .. } => None,
        }
    }
}

/// What a callback that is inserted is for, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback {
    pub parent: CallId,
    pub parent_upstream: UpstreamId,
    pub parent_end: State,
    pub asked_by: AskedBy,
    pub upstream: UpstreamId,
}

/// Who wants a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// The policy of the call's upstream.
    Policy,
    /// The call itself.
    Call,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptEnd {
    pub number: u32,
    pub kind: AttemptKind,
    /// From launch to the end; nothing of one that was never launched, or by an earlier process.
    pub took: Option<Duration>,
    pub outcome: AttemptOutcome,
    pub status: Option<u16>,
    pub error: Option<ErrorKind>,
    /// From when its slots cool; nothing when it sent nothing.
    pub proved_at: Option<Instant>,
    pub ended_at: Timestamp,
}

/// Where the call stands from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    /// Its place in its lane, when it waits.
    pub ready_at: Option<Instant>,
    pub tries: Tries,
    /// Where it goes from now on; nothing when that stays as it is.
    pub heading: Option<Heading>,
    /// The status and error of the attempt that decided.
    pub status: Option<u16>,
    pub error: Option<ErrorKind>,
    pub finished_at: Option<Timestamp>,
}

/// Something for the shell to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tell whoever offered it that the call is accepted.
    Acknowledge { call: CallId },
    /// Tell them that it is not: it cannot be stored now, and nothing of it is kept.
    Refuse { call: CallId },
    /// Tell them that an ephemeral call is not taken on, or not any more: nothing of it was sent.
    Refused { call: CallId, refusal: Refusal },
    /// Make an attempt of a call of this upstream, at `hop` when a redirect has led the call there; from `not_after` on, the
    /// call's deadline, only report it aborted and nothing written.
    Launch { attempt: AttemptId, upstream: UpstreamId, hop: Option<UpstreamId>, not_after: Option<Instant> },
    /// This answer is the call's: give it on as it comes.
    Relay { attempt: AttemptId },
    /// Another answer may follow: take this one in as a whole.
    Withhold { attempt: AttemptId },
    /// Cut an attempt off; only its report settles it.
    Abort { attempt: AttemptId },
    /// Read what [`super::Dispatcher::wanted`] names from the store, and answer with `Event::Loaded`.
    Load,
    /// Look up in the store what [`super::Dispatcher::stale_wanted`] names, and answer with `Event::StaleFound`.
    FindStale,
    /// The call was to be cancelled, which is durable: an attempt that was let go decides how it ends.
    CancelNoted { call: CallId },
    /// The call was to be cancelled, and is none that has not ended; what it is the store tells.
    CancelMissed { call: CallId },
    /// What was set at an upstream under this ticket is durable.
    UpstreamStored { ticket: u64 },
    /// The call has ended, durably.
    Ended { call: CallId, has_file: bool },
    /// The breaker of this upstream has opened or closed. It is not stored, so this rests on nothing.
    BreakerTurned { upstream: UpstreamId, state: BreakerState },
}
