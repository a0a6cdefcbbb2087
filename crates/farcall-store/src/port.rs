//! The port: what the engine asks of any store.
//!
//! One writer, who commits batches: all of a batch is durable when [`Store::commit`] returns, or none of it is. Readers
//! are separate and may be slow without holding the writer up. A store decides nothing; it refuses what contradicts
//! what it holds ([`CommitError::Conflict`]), because that is a bug or another engine. What may follow what is written
//! once, in `transition.rs`, for every store.

use std::num::NonZeroI64;

use bytes::Bytes;
use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{Source, State};
pub use farcall_core::dispatcher::Mark;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::steady::{KeptClock, Steady};
use farcall_core::time::Timestamp;

use crate::record::{
    AttemptRecord, CallRecord, Damaged, EndedRecord, ErrorRecord, FileIdentity, GrantRecord, HopRecord, LaneName,
    OutcomeRecord, Progress, Recovery, RequestRecord, ResponseRecord, UpstreamRecord,
};

/// One change that must be durable before what rests on it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new call and the document it came as. Neither its id nor its idempotency key is known yet.
    Insert(Box<Insert>),
    /// An attempt is about to be made, counted by the limit key that the call has now; the call runs, and stands in no lane
    /// any more. The call has not ended, and the number is one above that of its last attempt.
    Start(Start),
    /// An attempt ended, or a waiting call did.
    Settle(Box<Settle>),
    /// An answer to this call asks everybody to keep away from where it went until then. The later of several counts.
    Close { call: CallId, until: Steady },
    /// A call that was held back, or waits for another time, may go on from then on, which is now. It has not ended and does
    /// not run.
    Release { call: CallId, ready_at: Steady },
    /// A call's response file and request file are in place. The call has ended, and was not filed before.
    Filed(CallId),
    /// A call is forgotten with all that belongs to it.
    Prune(Prune),
    /// The idempotency key of a call that has ended may name another from now on.
    FreeKey(CallId),
    /// Something to remember of a call that has not ended.
    Mark { call: CallId, mark: Mark },
    /// What was set at an upstream while it was at work, in place of all that was set there before.
    Upstream(Box<UpstreamRecord>),
    /// The upstream of this limit key asks nobody to keep away any more.
    Open { limit_key: String },
    /// An attempt of a call that is not stored is about to be made. It was not granted before.
    Grant(Grant),
    /// An attempt of a call that is not stored ended. It was granted, and has not ended before.
    GrantEnd(GrantEnd),
    /// Whatever was granted to calls that are not stored, and is open, was out when its engine died: it is taken as proved
    /// then.
    GrantsLeft { proved_at: Steady },
}

impl Write {
    /// When it was decided, which lies in the past; nothing of what comes with a write that says so.
    pub(crate) const fn decided_at(&self) -> Option<Steady> {
        match self {
            Self::Insert(insert) => Some(insert.at),
            Self::Start(start) => Some(start.granted_at),
            Self::Settle(settle) => Some(settle.at),
            // It goes on at once.
            Self::Release { ready_at, .. } => Some(*ready_at),
            Self::Grant(grant) => Some(grant.granted_at),
            Self::GrantEnd(_)
            | Self::GrantsLeft { .. }
            | Self::Close { .. }
            | Self::Filed(_)
            | Self::Prune(_)
            | Self::FreeKey(_)
            | Self::Mark { .. }
            | Self::Upstream(_)
            | Self::Open { .. } => None,
        }
    }

    /// The call it changes; nothing when it changes an upstream.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Insert(insert) => Some(insert.call.id),
            Self::Start(start) => Some(start.call),
            Self::Settle(settle) => Some(settle.call),
            Self::Prune(prune) => Some(prune.call),
            Self::Close { call, .. }
            | Self::Release { call, .. }
            | Self::Filed(call)
            | Self::FreeKey(call)
            | Self::Mark { call, .. } => Some(*call),
            Self::Grant(grant) => Some(grant.attempt.call),
            Self::GrantEnd(end) => Some(end.attempt.call),
            Self::Upstream(_) | Self::Open { .. } | Self::GrantsLeft { .. } => None,
        }
    }
}

/// Slots that an attempt takes whose call is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub attempt: AttemptId,
    /// What it is counted by.
    pub limit_key: String,
    pub granted_at: Steady,
    pub cost: u32,
}

/// The end of such an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantEnd {
    pub attempt: AttemptId,
    /// From when its slots cool; nothing when it sent nothing.
    pub proved_at: Option<Steady>,
    /// Of what was counted before that some may go.
    pub grants_since: Steady,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// When that was decided.
    pub at: Steady,
    pub call: CallRecord,
    pub request: Bytes,
    /// The trace that the call belongs to, in a form that stores do not look into; most have none.
    pub trace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub call: CallId,
    pub number: u32,
    pub kind: AttemptKind,
    pub started_at: Timestamp,
    /// When it took its slots.
    pub granted_at: Steady,
}

/// The end of an attempt that runs, of a call that has not ended, or both.
///
/// An end is final. When other attempts of the call are still out (hedges that lost), each is settled later without a
/// progress; anything else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// When that was decided.
    pub at: Steady,
    pub call: CallId,
    /// Nothing when a waiting call ends (expired).
    pub attempt: Option<AttemptEnd>,
    /// Where the call stands from now on; nothing when only the attempt ended.
    pub progress: Option<Progress>,
    /// Where it goes from now on; nothing when that stays as it is. Refused without a progress.
    pub heading: Option<Heading>,
    /// Kept when this attempt ended the call and there was an answer; refused without an end.
    pub response: Option<ResponseRecord>,
}

/// Where a call goes, and what it is counted by there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    pub limit_key: String,
    /// Where redirects have led it; nothing when it goes to its own URL.
    pub hop: Option<HopRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    pub number: u32,
    pub outcome: AttemptOutcome,
    pub status: Option<u16>,
    /// From when its slots cool; nothing when it sent nothing.
    pub proved_at: Option<Steady>,
    pub ended_at: Timestamp,
    pub error: Option<ErrorRecord>,
}

/// A call that has ended and is filed goes. None of its attempts is out, and no callback of it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    pub call: CallId,
    /// What its attempts count in limits is kept apart from it, as far as it was granted or proved then or later, and
    /// of what was so kept before, what is older may go.
    pub grants_since: Steady,
}

/// What of ended calls is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Calls in this state that are filed and hold no idempotency key.
    Unkeyed(State),
    /// Calls that hold an idempotency key.
    Keyed,
}

/// Calls that ended at `until` or before, in the order of their ends and, among those of one moment, of their ids; from
/// behind `after` on, at most `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRange {
    pub of: Ended,
    pub until: Steady,
    pub after: Option<(Steady, CallId)>,
    pub count: u32,
}

/// Which calls are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallsAsk<'a> {
    /// The call with this id, if there is one.
    One(CallId),
    /// The call that holds an idempotency key in a scope, if one does.
    Keyed { scope: &'a str, key: &'a str },
}

/// Which grants are asked for, beside all that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantsAsk {
    /// One by one, newest first: at most so many, where grant or proof came at `since` or later.
    Latest { since: Steady, count: u32 },
    /// The same, however many, summed over times of this length, each at the end of its time, newest first.
    Sums { since: Steady, step_us: NonZeroI64 },
}

/// What is kept of a limit key: the grants it gave, and whether its upstream is closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granted {
    /// For each that was asked for, in order, the attempts that hold slots: those that are still open, the latest grant
    /// leading and those of calls that are not stored behind the others, then those that were proved, by the later of grant and proof. One that ended without proof sent nothing
    /// and is left out. A store may round moments up to the next whole second, and those that are an hour old or of calls
    /// that were pruned to the next whole ten seconds.
    pub grants: Vec<Vec<GrantRecord>>,
    /// Until when the upstream asked everybody to keep away, if it ever did.
    pub closed_until: Option<Steady>,
}

/// Which of the calls that wait in lanes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingAsk<'a> {
    pub lanes: &'a [LaneRange],
    /// At most so many of those that have a deadline, the earliest first.
    pub expiring: u32,
}

/// Calls that wait.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaitingCalls {
    /// Those of each range, in the order of their places.
    pub lanes: Vec<Vec<CallRecord>>,
    pub expiring: Vec<CallRecord>,
}

/// Calls of a lane that are asked for: at most `count`, from a place on. Among those of one moment ids decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRange {
    pub lane: LaneName,
    pub ready_at: Steady,
    pub call: CallId,
    pub count: u32,
}

/// Which calls are listed. What is not set lets all through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallFilter {
    /// In one of these states; all when there are none.
    pub states: Vec<State>,
    /// Of this declared upstream, or of undeclared ones of this limit key.
    pub upstream: Option<String>,
    pub source: Option<Source>,
    /// With this tag, among others.
    pub tag: Option<String>,
    /// Accepted then or later.
    pub since: Option<Timestamp>,
    /// Accepted before that.
    pub until: Option<Timestamp>,
}

impl CallFilter {
    /// Whether a call passes.
    pub fn admits(&self, call: &CallRecord) -> bool {
        let of_upstream =
            |name: &String| call.upstream.as_ref().map_or(call.home_key() == name, |declared| declared == name);
        (self.states.is_empty() || self.states.contains(&call.progress.state))
            && self.upstream.as_ref().is_none_or(of_upstream)
            && self.source.is_none_or(|source| source == call.source)
            && self.tag.as_ref().is_none_or(|tag| call.tags.contains(tag))
            && self.since.is_none_or(|since| since <= call.accepted_at)
            && self.until.is_none_or(|until| call.accepted_at < until)
    }
}

/// Calls by the order of their acceptance, the last first, from behind a place on: at most `count` that the filter
/// lets through, and of at most so many that are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListAsk {
    pub filter: CallFilter,
    pub before: Option<u64>,
    pub count: u32,
    pub examined_max: u32,
}

/// Calls of a list, and behind which place it goes on; nothing at its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    pub calls: Vec<CallRecord>,
    pub next: Option<u64>,
}

/// What was read, and what stands among it that does not read back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Legible<T> {
    pub found: T,
    pub damaged: Vec<Damaged>,
}

impl<T> Legible<T> {
    /// All of it.
    pub const fn whole(found: T) -> Self {
        Self { found, damaged: Vec::new() }
    }
}

/// Why a batch was not committed; none of it is durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No space is left, or a quota is used up.
    #[error("the store's file system is full")]
    Full,
    /// A write contradicts what is stored: the call is unknown, has ended, or another engine has taken over. The id is nil
    /// when a batch about no call comes too late for that.
    #[error("write refused: {what} of {call}")]
    Conflict { call: CallId, what: &'static str },
    #[error("cannot write to the store")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What became of the batch whose commit failed with [`CommitError::Io`] and told nothing certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is durable, all of it.
    Kept,
    /// Nothing of it is, or ever will be.
    Lost,
}

/// Why a store could not be opened again.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store again")]
pub struct ReopenError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the store")]
pub struct ReadError {
    pub what: &'static str,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The one writer.
pub trait Store: Send + 'static {
    /// Takes over whatever an earlier engine left; its epoch ends here, and what it still commits is refused. Comes
    /// before the first commit.
    ///
    /// # Errors
    /// When the store cannot be read or the new epoch not written.
    fn take_over(&mut self) -> Result<Recovery, ReadError>;

    /// Makes the clock of the present boot durable, by which everything committed from now on is meant.
    ///
    /// # Errors
    /// When it cannot be made durable, or another engine has taken over.
    fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError>;

    /// Makes a batch durable, all or nothing. The writes take effect in the order given.
    ///
    /// # Errors
    /// When any write of it is refused or cannot be made durable.
    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError>;

    /// Opens the store anew after a commit failed with [`CommitError::Io`] or broke down, and says what became of that
    /// batch. Until then every commit fails. What was durable before still is; readers go on.
    ///
    /// # Errors
    /// When it cannot be opened or written; it may be tried again.
    fn reopen(&mut self) -> Result<Fate, ReopenError>;

    /// Another reader of the same data.
    ///
    /// # Errors
    /// When the store cannot be opened for reading.
    fn reader(&self) -> Result<Box<dyn Reader>, ReadError>;
}

/// A view of committed data. Methods take `&mut self`: one reader serves one request at a time.
pub trait Reader: Send {
    /// The calls that are asked for.
    ///
    /// # Errors
    /// When the store cannot be read, or one of them does not read back.
    fn calls(&mut self, asked: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError>;

    /// The attempts of a call by number; empty for an unknown call.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError>;

    /// What it takes to make attempts of these calls, in their order; nothing for an unknown call, and for one of which
    /// something is damaged. All at one go, because a backlog is read back while it is sent.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn requests(&mut self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError>;

    /// The answer kept for a call.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError>;

    /// These calls with all that their files are made of, in their order; nothing for an unknown call. Of the calls
    /// after the first only as many as fit into so many bytes of documents and answers: the others are left out. One
    /// that cannot be read holds up no other.
    fn outcomes(&mut self, ids: &[CallId], bytes_max: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>>;

    /// What limits and closings of a limit key rest on, all of one moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn grants(&mut self, limit_key: &str, asked: &[GrantsAsk]) -> Result<Granted, ReadError>;

    /// Calls that wait in lanes. Damaged ones are passed over and do not count.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn waiting(&mut self, asked: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError>;

    /// The ended calls of a range, and whether anything still holds them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError>;

    /// Calls whatever their state, newest first. Damaged ones are passed over.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&mut self, ask: &ListAsk) -> Result<Listed, ReadError>;

    /// The calls that came from files of this name and are not filed yet, in the order of acceptance.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError>;

    /// Bytes free where the store lies.
    ///
    /// # Errors
    /// When the file system does not say.
    fn free_bytes(&mut self) -> Result<u64, ReadError>;

    /// Bytes that the store takes for what it holds. Space that it has and may use again is not among them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn stored_bytes(&mut self) -> Result<u64, ReadError>;
}

impl dyn Reader + '_ {
    /// The call with this id.
    ///
    /// # Errors
    /// When the store cannot be read, or the call does not read back.
    pub fn call(&mut self, id: CallId) -> Result<Option<CallRecord>, ReadError> {
        Ok(self.calls(CallsAsk::One(id))?.pop())
    }
}

/// The first outcome, and those after it while all together have fewer bytes than that.
pub(crate) fn as_many_as_fit(
    outcomes: impl Iterator<Item = Result<Option<OutcomeRecord>, ReadError>>,
    bytes_max: usize,
) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for outcome in outcomes {
        if let Ok(Some(OutcomeRecord { document, response, .. })) = &outcome {
            bytes += document.len() + response.as_ref().map_or(0, |response| response.body.len());
        }
        taken.push(outcome);
        if bytes >= bytes_max {
            break;
        }
    }
    taken
}
