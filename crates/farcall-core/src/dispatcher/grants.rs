//! What ephemeral attempts take of windows that outlast a restart: stored before they are let go, and once they have ended.
//!
//! An end is not waited for by anybody, and written with whatever is written next, or after a while: a restart that knows of
//! a grant and not of its end counts it as proved just then, which is only ever more cautious.

use std::time::Duration;

use super::{Dispatcher, TURN_WRITES_MAX, Write};
use crate::id::AttemptId;
use crate::time::{Instant, Now};
use crate::timers::Timer;

/// How long an end waits for something else to be written.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Ends that are not written yet.
#[derive(Debug, Clone, Default)]
pub(super) struct GrantEnds {
    waiting: Vec<Write>,
    timer: Option<Instant>,
}

impl GrantEnds {
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Dispatcher {
    /// Attempts of ephemeral calls that an earlier process left behind may have arrived just now. To be called once, when
    /// every upstream is declared, if there are any.
    pub fn restore_grants(&mut self, now: Now) {
        let jitter = self.quotas.iter().map(|quota| quota.limits.jitter()).max().unwrap_or_default();
        self.writes.push(Write::GrantsLeft { proved_at: now.instant + jitter });
    }

    pub(super) fn note_grant_end(&mut self, now: Now, attempt: AttemptId, proved_at: Option<Instant>) {
        let grants_since = self.grants_since(now.instant);
        self.grant_ends.waiting.push(Write::GrantEnd { attempt, proved_at, grants_since });
        if self.draining {
            return self.write_grant_ends();
        }
        if self.grant_ends.timer.is_none() {
            let at = now.instant + WAIT_MAX;
            self.grant_ends.timer = Some(at);
            self.timers.set(at, Timer::GrantEnds);
        }
    }

    /// They have waited long enough.
    pub(super) fn write_grant_ends(&mut self) {
        if let Some(at) = self.grant_ends.timer.take() {
            self.timers.cancel(at, Timer::GrantEnds);
        }
        self.writes.append(&mut self.grant_ends.waiting);
    }

    /// Something is written: they go along, as far as there is room.
    pub(super) fn take_grant_ends_along(&mut self) {
        if self.writes.is_empty() || self.grant_ends.waiting.is_empty() || !self.may_write() {
            return;
        }
        let room = TURN_WRITES_MAX.saturating_sub(self.writes.len()).min(self.grant_ends.waiting.len());
        self.writes.extend(self.grant_ends.waiting.drain(..room));
        if self.grant_ends.waiting.is_empty() {
            self.write_grant_ends();
        }
    }
}
