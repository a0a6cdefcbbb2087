//! Log lines about calls that did not go well: one line an event, and never more than a reader can take.
//!
//! What succeeded is counted, not logged. When more happens in a second than is shown, one line says how much was left
//! out; nothing is lost, the store has every outcome.

use std::time::Duration;

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::time::{Instant, Timestamp};
use farcall_store::record::{ErrorRecord, Progress};

/// Lines in a second.
const LINES_MAX: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Writes lines, and counts those it leaves out.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    second: Instant,
    lines: u32,
    left_out: u64,
}

/// Says when the store becomes full, and when it no longer is.
#[derive(Debug, Default)]
pub(super) struct SpaceAnnouncer {
    full_since: Option<Instant>,
}

impl SpaceAnnouncer {
    pub(super) const fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    pub(super) const fn full_since(&self) -> Option<Instant> {
        self.full_since
    }

    /// Says whether that has changed.
    pub(super) fn note(&mut self, now: Instant, free_bytes: u64, min_free: u64) -> bool {
        let is_full = free_bytes < min_free;
        let was_full = self.is_full();
        self.full_since = is_full.then(|| self.full_since.unwrap_or(now));
        if is_full && !was_full {
            tracing::warn!(
                free_bytes,
                min_free,
                "the disk is nearly full: no call is taken, and files stay in the inbox, until there is space again"
            );
        } else if was_full && !is_full {
            tracing::info!(free_bytes, min_free, "there is space again, calls are taken");
        }
        is_full != was_full
    }
}

/// What a settlement says.
pub(super) struct Settled<'a> {
    pub(super) call: CallId,
    pub(super) upstream: &'a str,
    pub(super) outcome: Option<AttemptOutcome>,
    pub(super) progress: &'a Progress,
    /// By the wall clock of now.
    pub(super) waits_until: Option<Timestamp>,
    /// The trace it was sent in, when one is known.
    pub(super) trace_id: Option<u128>,
}

impl Announcer {
    pub(super) fn settled(&mut self, now: Instant, settled: &Settled<'_>) {
        let Settled { call, upstream, outcome, progress, waits_until, trace_id } = *settled;
        let is_bad_end = progress.state.is_end() && !matches!(progress.state, State::Succeeded | State::Cancelled);
        let is_throttled = outcome == Some(AttemptOutcome::Throttled) && !progress.state.is_end();
        if !(is_bad_end || is_throttled) || !self.may_speak(now) {
            return;
        }
        let trace_id = trace_id.map(|id| format!("{id:032x}"));
        let trace_id = trace_id.as_deref();
        if is_throttled {
            let wait_ms = waits_until.map(|at| at.as_micros() / 1_000);
            tracing::info!(%call, upstream, status = progress.status, until_unix_ms = wait_ms, trace_id, "an upstream asks to wait");
            return;
        }
        let (kind, error) = words(progress.error.as_ref());
        tracing::warn!(%call, upstream, state = %progress.state, status = progress.status, kind, error, trace_id, "a call ended");
    }

    fn may_speak(&mut self, now: Instant) -> bool {
        if now.since(self.second) >= SECOND {
            if self.left_out > 0 {
                tracing::warn!(events = self.left_out, "more of the like were left out");
            }
            *self = Self { second: now, lines: 0, left_out: 0 };
        }
        let may = self.lines < LINES_MAX;
        self.lines += 1;
        self.left_out += u64::from(!may);
        may
    }
}

fn words(error: Option<&ErrorRecord>) -> (&'static str, &str) {
    error.map_or(("", ""), |error| (error.kind.as_str(), error.message.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_lines_a_second_than_a_reader_can_take() {
        let mut announcer = Announcer::default();
        let at = |ms: i64| Instant::from_micros(10_000_000 + ms * 1_000);
        let spoken = (0..100).filter(|&ms| announcer.may_speak(at(ms))).count();
        assert_eq!((spoken, announcer.left_out), (20, 80));
        assert!(announcer.may_speak(at(1_000)));
        assert_eq!(announcer.left_out, 0);
    }
}
