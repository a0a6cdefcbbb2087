//! How the store does: what its failures mean for those who wait, and what is said of them.
//!
//! When to try again is decided in the core, and the journal opens a broken store again by itself; here is only what is
//! known of it, for health, for refusals and for the log. Each trouble is told once, and once that it is over.

use std::time::Duration;

use farcall_core::dispatcher::{Event, Seq};
use farcall_core::time::{Instant, Now};
use farcall_store::port::CommitError;

use super::Run;
use crate::cause::chain;
use crate::clock;
use crate::handle::{StoreHealth, SubmitError};
use crate::journal::FailedCommit;

/// A store that cannot be opened again within this time has failed, and those who wait are told so.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store's health, and since when it is bad.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) health: StoreHealth,
    /// Nothing certain is known of the last commit since then.
    broken_since: Option<Instant>,
    /// The first of the failures since the last commit that succeeded.
    unwell_since: Option<Instant>,
    /// What the store said last.
    pub(super) error: Option<String>,
    /// It was told in the log that commits fail.
    is_told: bool,
}

/// What was told when the store could not be opened again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

impl Storage {
    /// Whether nothing certain is known of the last commit.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken_since.is_some()
    }

    pub(super) const fn unwell_since(&self) -> Option<Instant> {
        self.unwell_since
    }

    /// Why a call cannot be stored now.
    pub(super) const fn refusal(&self) -> SubmitError {
        match self.health {
            StoreHealth::Full => SubmitError::NoSpace,
            StoreHealth::Ok | StoreHealth::Recovering | StoreHealth::Failed => SubmitError::StoreFailed,
        }
    }

    /// When its health gets worse by itself.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.broken_since.map(|since| since + PATIENCE).filter(|_| self.health != StoreHealth::Failed)
    }

    /// What an engine ends with that cannot store what it holds.
    pub(super) fn give_up(&self) -> Option<CommitError> {
        let reason = || Reason(self.error.clone().unwrap_or_default());
        match self.health {
            StoreHealth::Ok => None,
            StoreHealth::Full => Some(CommitError::Full),
            StoreHealth::Recovering | StoreHealth::Failed => Some(CommitError::Io(Box::new(reason()))),
        }
    }

    fn note_broken(&mut self, now: Instant, error: &str) {
        if self.broken_since.is_none() {
            tracing::error!(
                error,
                "cannot write to the store, opening it again; nothing is sent until it can be written"
            );
            self.broken_since = Some(now);
            self.health = StoreHealth::Recovering;
            self.is_told = true;
        }
        self.unwell_since.get_or_insert(now);
        self.error = Some(error.to_owned());
    }

    fn note_failed(&mut self, now: Instant, error: &CommitError) {
        self.broken_since = None;
        self.unwell_since.get_or_insert(now);
        self.error = Some(chain(error));
        if matches!(error, CommitError::Full) {
            self.health = StoreHealth::Full;
            if !self.is_told {
                tracing::warn!("the disk is full: nothing is sent and no call is taken until there is space again");
            }
        } else {
            self.health = StoreHealth::Recovering;
        }
        self.is_told = true;
    }

    fn note_committed(&mut self) {
        if std::mem::take(&mut self.is_told) {
            tracing::info!("the store can be written again");
        }
        *self = Self::default();
    }

    /// Looks at the time; says whether the store has just failed for good measure.
    fn look(&mut self, now: Instant, is_held_up: bool) -> bool {
        if self.broken_since.is_none() {
            // Nothing is kept back any more: who comes next finds out.
            if !is_held_up {
                self.health = StoreHealth::Ok;
            }
            return false;
        }
        let has_failed = self.next_look().is_some_and(|at| at <= now);
        if has_failed {
            self.health = StoreHealth::Failed;
            let error = self.error.as_deref();
            tracing::error!(
                error,
                "the store cannot be opened again: nothing is sent and no call is taken until it can"
            );
        }
        has_failed
    }
}

impl Run {
    pub(super) fn committed(&mut self, now: Now, seq: Seq) {
        self.storage.note_committed();
        self.dispatcher.handle(now, Event::Committed { seq });
        self.watchers.events.committed(seq);
        self.counts.committed(seq, &self.upstreams);
        self.is_unpublished = true;
    }

    /// Nothing of these turns is stored. A store that contradicts what was decided cannot be worked with.
    pub(super) fn commit_failed(&mut self, failed: FailedCommit) {
        let FailedCommit { seq, error, mut writes } = failed;
        writes.extend(self.journal.resume());
        if matches!(error, CommitError::Conflict { .. }) {
            tracing::error!(
                error = chain(&error),
                "the store contradicts what was decided, stopping; what was accepted stays on disk"
            );
            self.storage.health = StoreHealth::Failed;
            self.pending.refuse_all();
            self.store_failure = Some(error);
        } else {
            self.storage.note_failed(clock::instant(), &error);
            self.pending.keep(writes);
            self.dispatcher.handle(clock::now(), Event::CommitFailed { seq });
            self.watchers.events.failed(seq);
            self.counts.failed(seq);
        }
        self.publish();
    }

    pub(super) fn store_broken(&mut self, error: &str) {
        self.storage.note_broken(clock::instant(), error);
        self.publish();
    }

    /// Whether the store's health has changed with time.
    pub(super) fn look_at_store(&mut self, now: Instant) {
        let before = self.storage.health;
        if self.storage.look(now, self.dispatcher.is_held_up()) {
            // A file's call may turn out to be stored: its submitter waits, or it would be taken twice.
            self.pending.refuse_clients();
        }
        if self.storage.health != before {
            self.publish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn a_store_that_is_not_opened_again_in_time_has_failed() {
        let mut storage = Storage::default();
        storage.note_broken(at(1_000), "no disk");
        assert_eq!((storage.health, storage.next_look()), (StoreHealth::Recovering, Some(at(6_000))));
        storage.note_broken(at(3_000), "no disk still");
        assert!(!storage.look(at(5_999), false));
        assert!(storage.look(at(6_000), false));
        assert_eq!((storage.health, storage.next_look()), (StoreHealth::Failed, None));
        assert!(!storage.look(at(9_000), false), "it is told once");
        let given_up = storage.give_up().map(|error| chain(&error));
        assert_eq!(given_up.as_deref(), Some("cannot write to the store: no disk still"));
        storage.note_committed();
        assert_eq!((storage.health, storage.is_broken()), (StoreHealth::Ok, false));
    }

    #[test]
    fn a_full_store_is_full_until_nothing_is_kept_back() {
        let mut storage = Storage::default();
        storage.note_failed(at(0), &CommitError::Full);
        assert!(matches!(storage.refusal(), SubmitError::NoSpace));
        storage.look(at(1), true);
        assert_eq!(storage.health, StoreHealth::Full);
        storage.look(at(2), false);
        assert_eq!(storage.health, StoreHealth::Ok);
        storage.note_failed(at(3), &CommitError::Full);
        assert_eq!(storage.unwell_since(), Some(at(0)), "it was never well in between");
        storage.note_committed();
        assert_eq!(storage.unwell_since(), None);
    }
}
