//! What the store keeps: calls, attempts, requests, responses, as plain rows.
//!
//! A record says what happened; what follows from it is decided in `farcall-core`. Bodies stand apart from metadata:
//! a request is the bytes of the call document as it came, a response its head and decoded body. What decisions rest on
//! is kept in steady time, what people read by the wall clock.

use bytes::Bytes;
use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{ErrorKind, Source, State, TenantId, Via};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::steady::{KeptClock, Steady};
use farcall_core::time::Timestamp;

/// Which file a call came from. The same four values after a crash are the same call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The name in the inbox, as bytes: names need not be UTF-8.
    pub name: Vec<u8>,
    pub device: u64,
    pub inode: u64,
    /// Change time (ctime) in nanoseconds.
    pub changed_ns: i64,
}

/// An error as users read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRecord {
    pub kind: ErrorKind,
    pub message: String,
}

/// What changes while a call lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: State,
    /// Its place in its lane, while it waits in one: from when on it may go on. Nothing while it runs or is held back,
    /// and when it has ended.
    pub ready_at: Option<Steady>,
    /// Retries used in the present round.
    pub retries: u32,
    /// Rounds begun after the first.
    pub requeues: u32,
    /// Waits for Retry-After so far.
    pub throttles: u32,
    /// Attempts whose handling broke down.
    pub deaths: u32,
    /// How often in a row farcall died with an attempt out that it had only just begun.
    pub orphaned: u32,
    pub finished_at: Option<Timestamp>,
    /// The status of the answer that decided, when there was one.
    pub status: Option<u16>,
    pub error: Option<ErrorRecord>,
}

/// A call's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    pub id: CallId,
    pub source: Source,
    pub via: Via,
    /// The name of a declared upstream.
    pub upstream: Option<String>,
    /// What its next attempt is counted by, and in whose lanes it waits: the declared name or, of an undeclared upstream, the
    /// origin. Its own upstream's, or that of the place where redirects have led it.
    pub limit_key: String,
    /// Upper case; empty for a process.
    pub method: String,
    pub url: String,
    pub tags: Vec<String>,
    pub priority: u8,
    pub tenant: Option<String>,
    /// What lanes tell tenants apart by.
    pub tenant_id: TenantId,
    pub cost: u32,
    pub accepted_at: Timestamp,
    pub not_before: Option<Steady>,
    pub deadline: Option<Steady>,
    /// When its first attempt started.
    pub started_at: Option<Timestamp>,
    /// Attempts made.
    pub attempts: u32,
    pub progress: Progress,
    /// It is to be cancelled, and was when an attempt was out.
    pub cancel_requested: bool,
    /// Its document has settings of its own over its upstream's policy.
    pub has_overrides: bool,
    pub callback_of: Option<CallId>,
    pub retry_of: Option<CallId>,
    pub file: Option<FileIdentity>,
    /// Its response file and request file are in place; true for calls that came from no file.
    pub filed: bool,
    pub idempotency: Option<IdempotencyRecord>,
    /// Where redirects have led it. Nothing of one that has ended.
    pub hop: Option<HopRecord>,
}

impl CallRecord {
    /// The limit key of its own upstream, wherever redirects have led it.
    pub fn home_key(&self) -> &str {
        self.hop.as_ref().map_or(&self.limit_key, |hop| &hop.home_key)
    }
}

/// Where redirects have led a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopRecord {
    pub url: String,
    /// Upper case.
    pub method: String,
    /// Redirects followed so far.
    pub count: u32,
    /// The name of the declared upstream that the URL belongs to.
    pub upstream: Option<String>,
    /// The request's body goes along.
    pub has_body: bool,
    /// It has left the origin of the call's URL, and what is not for others stays behind, for good.
    pub is_elsewhere: bool,
    /// The limit key of the call's own upstream.
    pub home_key: String,
}

impl Progress {
    /// That of a call in this state which was never tried, and may go on from `ready_at` on.
    pub const fn waiting(state: State, ready_at: Option<Steady>) -> Self {
        Self {
            state,
            ready_at,
            retries: 0,
            requeues: 0,
            throttles: 0,
            deaths: 0,
            orphaned: 0,
            finished_at: None,
            status: None,
            error: None,
        }
    }
}

/// A key that names at most one call of its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Whose keys these are; the empty scope is the user's own.
    pub scope: String,
    pub key: String,
    /// A digest of the content, to tell the same call from another with its key.
    pub digest: [u8; 32],
}

/// One attempt of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    pub number: u32,
    pub kind: AttemptKind,
    pub outcome: AttemptOutcome,
    pub status: Option<u16>,
    pub started_at: Timestamp,
    /// When it took its slots.
    pub granted_at: Steady,
    /// When its arrival was known to lie in the past: first response byte, or end.
    pub proved_at: Option<Steady>,
    pub ended_at: Option<Timestamp>,
    pub error: Option<ErrorRecord>,
}

/// A call's document, and how it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    pub via: Via,
    pub document: Bytes,
    /// As it was inserted.
    pub trace: Option<String>,
}

/// A call with its document and the answer kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    pub call: CallRecord,
    pub document: Bytes,
    pub response: Option<ResponseRecord>,
}

/// The answer that is kept: that of the attempt which ended the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRecord {
    pub status: u16,
    /// In the order received, names in lower case; values as received, which need not be UTF-8.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Decoded.
    pub body: Bytes,
    /// A content coding was removed, so length and coding headers no longer hold.
    pub decoded: bool,
}

/// Slots taken by an attempt, or by several, for rebuilding limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRecord {
    /// The attempt, while it is open.
    pub open: Option<AttemptId>,
    /// The later of grant and proof; nothing while the attempt is open.
    pub latest_at: Option<Steady>,
    pub cost: u32,
}

/// A call that has ended, as far as it matters to whoever prunes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRecord {
    pub call: CallId,
    pub ended_at: Steady,
    /// An attempt of it is still out, or a callback of it has not ended.
    pub is_held: bool,
}

/// Counters of durable calls: `accepted = pruned + sum of calls`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    pub accepted: u64,
    pub pruned: u64,
    /// Calls by state, in the order of [`State::ALL`].
    pub calls: [u64; State::ALL.len()],
}

impl Totals {
    /// Calls in this state.
    pub const fn of(&self, state: State) -> u64 {
        self.calls[state as usize]
    }

    /// The count of calls in this state, to change.
    pub const fn of_mut(&mut self, state: State) -> &mut u64 {
        &mut self.calls[state as usize]
    }
}

/// The calls of one limit key, priority and tenant that wait; callbacks stand apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName {
    pub limit_key: String,
    /// Its calls are callbacks.
    pub of_callbacks: bool,
    pub priority: u8,
    pub tenant: TenantId,
}

/// A lane, and how many calls wait in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRecord {
    pub lane: LaneName,
    pub waiting: u64,
}

/// What was set at an upstream while farcall ran.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamRecord {
    pub limit_key: String,
    /// Nothing is started there.
    pub is_paused: bool,
    /// What was patched, in a form that stores do not look into; empty when nothing is.
    pub patches: String,
}

impl UpstreamRecord {
    /// Nothing is set: stores keep no such row.
    pub const fn is_blank(&self) -> bool {
        !self.is_paused && self.patches.is_empty()
    }
}

/// A stored call, or something that belongs to one, that does not read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Unless that is damaged, too.
    pub call: Option<CallId>,
    /// It has not ended, and cannot be read to be made.
    pub is_live: bool,
    /// What its store says of it.
    pub what: String,
}

/// What a store holds that still needs the engine, taken over at open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Calls that have not ended and wait in no lane, in the order of acceptance: they run, or are held back.
    pub engaged: Vec<CallRecord>,
    /// Every lane in which calls wait, in order.
    pub lanes: Vec<LaneRecord>,
    /// Attempts still marked running, oldest call first: the engine died while they were out. Their call may have
    /// ended meanwhile by another attempt, and then stands in neither list.
    pub open_attempts: Vec<(CallId, AttemptRecord)>,
    /// Ended calls whose files are not in place yet, in the order of acceptance.
    pub unfiled: Vec<CallRecord>,
    /// Attempts of calls that are not stored, still granted: the engine died while they were out.
    pub open_grants: u64,
    /// Upstreams at which something was set, in the order of their limit keys.
    pub upstreams: Vec<UpstreamRecord>,
    /// What of all these does not read back, and stands in none of the lists.
    pub damaged: Vec<Damaged>,
    pub totals: Totals,
    /// The clock that was kept last.
    pub clock: Option<KeptClock>,
    /// When the latest of all that is stored was decided: that lies in the past, whatever clocks show.
    pub latest: Option<Steady>,
}
