//! A call that has not ended, in memory, and its attempts that are out.
//!
//! Plain data: what happens to an entry stands with what makes it happen.

use std::time::Duration;

use super::finish::Over;
use super::upstream::LineId;
use crate::attempt::AttemptKind;
use crate::breaker::Pass;
use crate::call::{CallSpec, ErrorKind, Method, QuotaId, State, UpstreamId, WaitReason};
use crate::hedge::HeldBack;
use crate::hop::{Heading, Hop};
use crate::lane::{LaneId, Position};
use crate::limit::Grant;
use crate::settle::Tries;
use crate::time::Instant;

/// One live call.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) spec: CallSpec,
    pub(super) state: State,
    pub(super) place: Place,
    /// Where redirects have led it.
    pub(super) hop: Option<Hop>,
    pub(super) tries: Tries,
    /// Attempts made, over its whole life.
    pub(super) attempts: u32,
    pub(super) deadline: Option<Instant>,
    /// It is queued, and the store still has it as scheduled: that its time came is not written.
    pub(super) is_stored_as_scheduled: bool,
    /// Its insert is durable.
    pub(super) is_stored: bool,
    /// Since when it waits for its turn, or until when it sleeps: its place in its lane.
    pub(super) ready_at: Instant,
    /// When a redirect led it where it waits or is out; nothing when that is not known, because it was read from the store.
    pub(super) hopped_at: Option<Instant>,
    /// It was to be cancelled when an attempt had been let go.
    pub(super) is_cancel_requested: bool,
    /// Attempts that are out.
    pub(super) live: Vec<Live>,
    pub(super) hedging: Hedged,
}

impl Entry {
    pub(super) const fn new(spec: CallSpec, state: State, tries: Tries, attempts: u32, ready_at: Instant) -> Self {
        Self {
            spec,
            state,
            place: Place::Lane,
            hop: None,
            tries,
            attempts,
            deadline: None,
            is_stored_as_scheduled: false,
            is_stored: true,
            ready_at,
            hopped_at: None,
            is_cancel_requested: false,
            live: Vec::new(),
            hedging: Hedged::NONE,
        }
    }

    /// Since when it might go on, where that is known: a hop has the place that its call had before, and did not wait there
    /// all the time.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        if self.hop.is_none() { Some(self.ready_at) } else { self.hopped_at.map(|at| at.max(self.ready_at)) }
    }

    pub(super) const fn lane(&self) -> LaneId {
        LaneId { priority: self.spec.priority, tenant: self.spec.tenant }
    }

    /// The upstream that it goes to next, and in whose lanes it waits: its own, or that of a hop.
    pub(super) fn upstream(&self) -> UpstreamId {
        self.hop.map_or(self.spec.upstream, |hop| hop.upstream)
    }

    /// The line in which it waits, or among whose attempts its own are.
    pub(super) fn line(&self) -> LineId {
        LineId { upstream: self.upstream(), durability: self.spec.durability }
    }

    /// That of its next attempt.
    pub(super) fn method(&self) -> Method {
        self.hop.map_or(self.spec.method, |hop| hop.method)
    }

    /// Redirects followed so far.
    pub(super) fn redirects(&self) -> u32 {
        self.hop.map_or(0, |hop| hop.count)
    }

    /// Why its next attempt is made that is no hedge. Of the first try when no attempt was made but those whose redirects
    /// were followed, and hedges, as far as those are remembered.
    pub(super) fn next_kind(&self) -> AttemptKind {
        let is_first = self.attempts == self.redirects() + self.hedging.in_all;
        if is_first { AttemptKind::First } else { AttemptKind::Retry }
    }

    /// Leaves the hop, if it is at one.
    pub(super) fn go_home(&mut self) -> Option<Heading> {
        self.hop.take().map(|_| Heading::Home)
    }

    /// To where its next try begins: its own URL, or the hop at which its request has become another.
    pub(super) fn begin_anew(&mut self) -> Option<Heading> {
        let method = self.spec.method;
        let leaves = self.hop.is_some_and(|hop| !hop.is_begun_from(method));
        if leaves { self.go_home() } else { None }
    }

    pub(super) const fn position(&self) -> Position {
        Position { ready_at: self.ready_at, call: self.spec.id }
    }
}

/// What is remembered of hedges.
#[derive(Debug, Clone)]
pub(super) struct Hedged {
    /// Made of the present try, and since the call came into memory.
    pub(super) of_try: u32,
    pub(super) in_all: u32,
    /// Why the last that was due was kept back.
    pub(super) held_back: Option<HeldBack>,
    /// An attempt of the present try ended without an answer, by this error.
    pub(super) unknown: Option<ErrorKind>,
    /// An attempt that is over and whose consequences wait: for losers that are to report, or for what is added because
    /// all have failed.
    pub(super) held: Option<Box<Over>>,
}

impl Hedged {
    const NONE: Self = Self { of_try: 0, in_all: 0, held_back: None, unknown: None, held: None };

    /// A try begins.
    pub(super) fn begin(&mut self) {
        *self = Self { in_all: self.in_all, ..Self::NONE };
    }
}

/// Where the call is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In its upstream's lanes.
    Lane,
    /// In its upstream's lanes, waiting for the time that is its place there.
    Asleep { reason: WaitReason },
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
    pub(super) kind: AttemptKind,
    pub(super) launched_at: Option<Instant>,
    /// From launch to the end, as its report tells.
    pub(super) took: Option<Duration>,
    /// Among whose attempts it is counted.
    pub(super) upstream: UpstreamId,
    /// What it is charged to, and its slots there.
    pub(super) quota: QuotaId,
    pub(super) grant: Grant,
    /// What the breaker there, if there is one, let it through with.
    pub(super) pass: Option<Pass>,
    /// Its start is stored, or need not be.
    pub(super) is_durable: bool,
    /// Its grant is stored apart, because its call is not.
    pub(super) is_granted: bool,
    /// When its last byte left our buffers, if that was told.
    pub(super) sent_at: Option<Instant>,
    /// Its answer is given on as it comes: no other will be.
    pub(super) is_relayed: bool,
    /// Nothing before it is launched, and once its answer is given on.
    pub(super) times_out_at: Option<Instant>,
    /// Why it is being cut off, if it is.
    pub(super) cut: Option<Cut>,
    /// When it is looked at whether it takes too long.
    pub(super) hedged_at: Option<Instant>,
    /// How long it takes is learned from.
    pub(super) is_sample: bool,
    /// A hedge that the budget paid for.
    pub(super) is_paid: bool,
}

impl Live {
    /// An attempt that is decided, and nowhere yet.
    pub(super) const fn new(
        number: u32,
        kind: AttemptKind,
        (upstream, quota): (UpstreamId, QuotaId),
        grant: Grant,
    ) -> Self {
        Self {
            number,
            kind,
            launched_at: None,
            took: None,
            upstream,
            quota,
            grant,
            pass: None,
            is_durable: false,
            is_granted: false,
            sent_at: None,
            is_relayed: false,
            times_out_at: None,
            cut: None,
            hedged_at: None,
            is_sample: false,
            is_paid: false,
        }
    }
}

impl Entry {
    /// The attempt of this number, if it is out and may have been let go: of any other nobody can tell anything.
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
