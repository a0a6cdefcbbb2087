//! Taking over what an earlier process left: calls that wait, and attempts that were out when it died.
//!
//! An attempt without an end may have arrived, so it ends `unknown` and its slots cool from now. Nothing is sent here.

use std::time::Duration;

use super::entry::Entry;
use super::finish::DEATHS_MAX;
use super::{AttemptEnd, Census, Dispatcher, Effect, Progress, Write};
use crate::attempt::{AttemptKind, AttemptOutcome};
use crate::call::{CallSpec, ErrorKind, State, UpstreamId, WaitReason};
use crate::hop::Hop;
use crate::id::CallId;
use crate::lane::{LaneId, Position};
use crate::policy::Terms;
use crate::settle::{Decision, Tries, decide_interrupted};
use crate::time::{Instant, Now};

/// Before anything that waits: long enough that nothing has waited that long.
const LONG_AGO: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How far apart calls are tried again that farcall may have died of: longer than it takes to know that it lives on.
const SUSPECTS_EVERY: Duration = Duration::from_secs(3);

/// A call as its store kept it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    pub spec: CallSpec,
    pub state: State,
    /// Where redirects have led it.
    pub hop: Option<Hop>,
    pub tries: Tries,
    pub attempts: u32,
    /// Its place in its lane, when it waits in one.
    pub ready_at: Option<Instant>,
    /// It was to be cancelled while an attempt was out.
    pub is_cancel_requested: bool,
    /// Attempts that were out.
    pub open: Vec<OpenAttempt>,
}

impl Recovered {
    /// The upstream in whose lanes it waits, or where its attempt is out.
    pub(super) fn upstream(&self) -> UpstreamId {
        self.hop.map_or(self.spec.upstream, |hop| hop.upstream)
    }

    pub(super) const fn lane(&self) -> LaneId {
        LaneId { priority: self.spec.priority, tenant: self.spec.tenant }
    }

    /// Before every other when it waits in no lane.
    pub(super) fn position(&self) -> Position {
        self.ready_at.map_or(Position::FIRST, |ready_at| Position { ready_at, call: self.spec.id })
    }
}

/// An attempt that was out when its process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAttempt {
    pub number: u32,
    pub kind: AttemptKind,
}

impl Dispatcher {
    /// Takes the counts over; to be called once, before anything is restored.
    pub const fn restore_census(&mut self, census: Census) {
        self.census = census;
        self.durable_census = census;
    }

    /// Takes over a call that runs or is held back. Those that wait in lanes come with their lanes.
    pub fn restore(&mut self, now: Now, recovered: Recovered) {
        if recovered.state == State::Running {
            return self.restore_running(now, recovered);
        }
        let Recovered { spec, state, hop, tries, attempts, .. } = recovered;
        let ready_at = self.end_of_line(now);
        if !spec.callback_of.is_some_and(|of| of.held) {
            self.writes.push(Write::Release { call: spec.id, ready_at });
        }
        self.place_new(Entry { hop, ..Entry::new(spec, state, tries, attempts, ready_at) }, None);
    }

    /// An attempt that was out though its call had ended, a hedge that lost: it may have arrived.
    pub fn restore_loser(&mut self, now: Now, call: CallId, upstream: UpstreamId, open: OpenAttempt) {
        let proved_at = now.instant + self.quota_of(upstream).limits.jitter();
        let attempt = Some(unknown_end(now, open, proved_at));
        self.writes.push(Write::Settle { call, upstream, attempt, progress: None });
    }

    /// A call whose attempts were out: they are stored as unknown, and the call goes on or ends by `on_unknown`.
    fn restore_running(&mut self, now: Now, recovered: Recovered) {
        let went_to = recovered.upstream();
        let Recovered { spec, state, hop, mut tries, attempts, is_cancel_requested, open, .. } = recovered;
        tries.orphaned += u32::from(!open.is_empty());
        let (call, id) = (spec.id, spec.upstream);
        let mut entry = Entry { hop, is_cancel_requested, ..Entry::new(spec, state, tries, attempts, now.instant) };
        let decision = self.decide_orphaned(&entry);
        let proved_at = now.instant + self.quota_of(went_to).limits.jitter();
        let mut ends = open.iter().map(|&open| unknown_end(now, open, proved_at)).collect::<Vec<_>>();
        let last = ends.pop();
        for end in ends {
            self.writes.push(Write::Settle { call, upstream: id, attempt: Some(end), progress: None });
        }
        let (state, error) = match decision {
            Decision::End { state, error } => (state, error),
            Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. } => {
                (State::Retrying, Some(ErrorKind::Unknown))
            }
        };
        self.census.change(State::Running, state);
        entry.state = state;
        let finished_at = state.is_end().then_some(now.timestamp);
        entry.ready_at = if state.is_end() { now.instant } else { self.place_of_orphan(now, tries) };
        let place = entry.ready_at;
        let ready_at = (!state.is_end()).then_some(place);
        let heading = if state.is_end() { entry.go_home() } else { entry.begin_anew() };
        let progress = Progress { state, ready_at, tries, heading, status: None, error, finished_at };
        self.writes.push(Write::Settle { call, upstream: id, attempt: last, progress: Some(progress) });
        if state.is_end() {
            self.effects_after.push(Effect::Ended { call, has_file: entry.spec.has_file });
            self.insert_callbacks(now, &entry.spec, state);
        } else {
            let asleep = (place > now.instant).then_some(WaitReason::Backoff);
            self.place_new(entry, asleep);
        }
    }

    /// What follows for a call whose attempts farcall left behind. One that it seems to die of is given up.
    fn decide_orphaned(&self, entry: &Entry) -> Decision {
        let policy = &self.upstreams[entry.spec.upstream.0 as usize].policy;
        let terms = Terms::new(policy, entry.spec.overrides.as_deref(), entry.method());
        match decide_interrupted(&terms, entry.tries, ErrorKind::Unknown) {
            end @ Decision::End { .. } => end,
            _ if entry.is_cancel_requested => Decision::End { state: State::Unknown, error: Some(ErrorKind::Unknown) },
            _ if entry.tries.orphaned >= DEATHS_MAX => {
                Decision::End { state: State::Poisoned, error: Some(ErrorKind::Internal) }
            }
            goes_on
            @ (Decision::Wait { .. } | Decision::Requeue { .. } | Decision::HandBack | Decision::Hop { .. }) => goes_on,
        }
    }

    /// Where a call waits whose attempt was out. It was the first of its lane, and is again: a million others may have
    /// come after it. Those that farcall may have died of go one after the other, and the first not before farcall has
    /// lived for a while without them, so that the next death tells which.
    fn place_of_orphan(&mut self, now: Now, tries: Tries) -> Instant {
        if tries.orphaned + 1 < DEATHS_MAX {
            return now.instant - LONG_AGO;
        }
        self.suspects += 1;
        now.instant + SUSPECTS_EVERY * self.suspects
    }
}

/// How long a call has waited that may go on since then; nothing of one that has the first place because farcall left it
/// behind.
pub(super) fn waited(now: Now, ready_at: Instant) -> Option<Duration> {
    Some(now.instant.since(ready_at)).filter(|&waited| waited < LONG_AGO / 2)
}

const fn unknown_end(now: Now, OpenAttempt { number, kind }: OpenAttempt, proved_at: Instant) -> AttemptEnd {
    AttemptEnd {
        number,
        kind,
        took: None,
        outcome: AttemptOutcome::Unknown,
        status: None,
        error: Some(ErrorKind::Unknown),
        proved_at: Some(proved_at),
        ended_at: now.timestamp,
    }
}
