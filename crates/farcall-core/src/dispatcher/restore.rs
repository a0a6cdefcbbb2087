//! Taking over what an earlier process left: calls that wait, and attempts that were out when it died.
//!
//! An attempt without an end may have arrived, so it ends `unknown` and its slots cool from now. Nothing is sent here.

use super::entry::Entry;
use super::{AttemptEnd, Census, Dispatcher, Effect, Progress, Write};
use crate::attempt::AttemptOutcome;
use crate::call::{CallSpec, ErrorKind, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::lifecycle::{self, Step};
use crate::policy::Terms;
use crate::settle::{Decision, Tries, decide_interrupted};
use crate::time::{Instant, Now};

/// A call as its store kept it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    pub spec: CallSpec,
    pub state: State,
    pub tries: Tries,
    pub attempts: u32,
    /// When it may go on.
    pub next_at: Option<Instant>,
    /// Attempts that were out.
    pub open: Vec<OpenAttempt>,
}

/// An attempt that was out when its process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAttempt {
    pub number: u32,
}

impl Dispatcher {
    /// Takes the counts over; to be called once, before anything is restored.
    pub const fn restore_census(&mut self, census: Census) {
        self.census = census;
        self.durable_census = census;
    }

    /// Takes a call over. Oldest first, so that the lanes keep their order.
    pub fn restore(&mut self, now: Now, recovered: Recovered) {
        if recovered.state == State::Running {
            return self.restore_running(now, recovered);
        }
        let until = recovered.next_at.filter(|&at| at > now.instant);
        let closed_until = self.quota_of(recovered.spec.upstream).closed_until;
        let reason = match recovered.state {
            State::Scheduled => WaitReason::NotBefore,
            _ if closed_until >= until => WaitReason::Cooldown,
            _ => WaitReason::Backoff,
        };
        let mut state = recovered.state;
        if let (None, Some(due)) = (until, lifecycle::next(state, Step::Due)) {
            self.census.change(state, due);
            state = due;
        }
        let entry = Entry::new(recovered.spec, state, recovered.tries, recovered.attempts);
        self.place_new(entry, until.map(|until| (until, reason)));
    }

    /// An attempt that was out though its call had ended, a hedge that lost: it may have arrived.
    pub fn restore_loser(&mut self, now: Now, call: CallId, upstream: UpstreamId, open: OpenAttempt) {
        let proved_at = now.instant + self.quota_of(upstream).limits.jitter();
        let attempt = Some(unknown_end(now, open.number, proved_at));
        self.writes.push(Write::Settle { call, upstream, attempt, progress: None });
    }

    /// A call whose attempts were out: they are stored as unknown, and the call goes on or ends by `on_unknown`.
    fn restore_running(&mut self, now: Now, recovered: Recovered) {
        let Recovered { spec, tries, attempts, open, .. } = recovered;
        let (call, id) = (spec.id, spec.upstream);
        let policy = &self.upstreams[id.0 as usize].policy;
        let terms = Terms::new(policy, spec.overrides.as_deref(), spec.method);
        let decision = decide_interrupted(&terms, tries, ErrorKind::Unknown);
        let proved_at = now.instant + self.quota_of(id).limits.jitter();
        let mut ends = open.iter().map(|open| unknown_end(now, open.number, proved_at)).collect::<Vec<_>>();
        let last = ends.pop();
        for end in ends {
            self.writes.push(Write::Settle { call, upstream: id, attempt: Some(end), progress: None });
        }
        let (state, error) = match decision {
            Decision::End { state, error } => (state, error),
            Decision::Wait { .. } | Decision::Requeue { .. } => (State::Retrying, Some(ErrorKind::Unknown)),
        };
        self.census.change(State::Running, state);
        let finished_at = state.is_end().then_some(now.timestamp);
        let progress = Progress { state, next_at: None, tries, status: None, error, finished_at };
        self.writes.push(Write::Settle { call, upstream: id, attempt: last, progress: Some(progress) });
        if state.is_end() {
            self.effects_after.push(Effect::Ended { call, has_file: spec.has_file });
            self.insert_callbacks(now, &spec, state);
        } else {
            self.place_new(Entry::new(spec, state, tries, attempts), None::<(Instant, WaitReason)>);
        }
    }
}

const fn unknown_end(now: Now, number: u32, proved_at: Instant) -> AttemptEnd {
    AttemptEnd {
        number,
        outcome: AttemptOutcome::Unknown,
        status: None,
        error: Some(ErrorKind::Unknown),
        proved_at: Some(proved_at),
        ended_at: now.timestamp,
    }
}
