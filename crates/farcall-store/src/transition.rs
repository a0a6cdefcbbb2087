//! What may follow what: the conditions of every write, in one place for all stores.
//!
//! A store looks up where the call stands, asks here, and rolls its batch back when the answer is a refusal. Nothing
//! here decides what should happen; it only recognises what cannot have happened.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;

use crate::port::{AttemptEnd, CommitError, Settle, Start, Write};

/// Where a stored call stands, as far as the conditions ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) filed: bool,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    /// It stands in a lane.
    pub(crate) waits: bool,
}

/// What keeps an ended call from being pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldBy {
    pub(crate) open_attempt: bool,
    pub(crate) live_callback: bool,
}

/// The length of the times over which what pruned calls count in limits is summed up, in microseconds. Each sum counts
/// from the end of its time, so that nothing is taken to have been earlier than it was.
pub(crate) const KEPT_STEP_US: i64 = 10_000_000;

/// The same of what attempts of calls that are not stored count, once they have ended.
pub(crate) const GRANT_STEP_US: i64 = 1_000_000;

/// Why a write is refused: words that go before "of call_...".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal(&'static str);

/// The call's id is stored already.
pub(crate) const SECOND_INSERT: Refusal = Refusal("second insert");
/// Another call of the scope holds the idempotency key.
pub(crate) const KEY_TAKEN: Refusal = Refusal("insert under a taken idempotency key");
/// The call is not stored.
pub(crate) const UNKNOWN_CALL: Refusal = Refusal("change before the insert");
/// The attempt is not stored, or ended before.
pub(crate) const UNMATCHED_END: Refusal = Refusal("end without its running attempt");
/// The attempt of a call that is not stored was granted already.
pub(crate) const SECOND_GRANT: Refusal = Refusal("second grant");
/// The attempt of a call that is not stored was not granted, or ended before.
pub(crate) const UNGRANTED_END: Refusal = Refusal("end without its grant");
/// The call is not stored as its last write left it.
pub(crate) const CHANGED_MEANWHILE: Refusal = Refusal("write on what somebody else has changed");
/// Another engine has taken over, or this one never has.
pub(crate) const SUPERSEDED: Refusal = Refusal("superseded write");

/// What a permitted settlement does to its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Nothing: only the attempt changes, whether or not the call has ended.
    Stays,
    /// The call goes on, with the progress given.
    GoesOn,
    /// The call ends, with the progress given.
    Ends,
}

/// The call that the refusal of a whole batch names.
pub(crate) fn first_call(writes: &[Write]) -> CallId {
    writes.iter().find_map(Write::call).unwrap_or(CallId::from_bits(0))
}

impl Refusal {
    pub(crate) const fn of(self, call: CallId) -> CommitError {
        CommitError::Conflict { call, what: self.0 }
    }
}

impl Standing {
    /// Whether this attempt may start now.
    pub(crate) const fn start(self, start: &Start) -> Result<(), Refusal> {
        if self.state.is_end() {
            return Err(Refusal("start after the end"));
        }
        match self.attempts.checked_add(1) {
            Some(next) if next == start.number => Ok(()),
            Some(_) | None => Err(Refusal("start out of order")),
        }
    }

    /// After this attempt has started.
    #[must_use]
    pub(crate) const fn started(self, start: &Start) -> Self {
        Self { state: State::Running, filed: self.filed, attempts: start.number, waits: false }
    }

    /// What this settlement does. That its attempt runs is for the store to check.
    pub(crate) fn settle(self, settle: &Settle) -> Result<Settlement, Refusal> {
        if settle.attempt.as_ref().is_some_and(still_runs) {
            return Err(Refusal("attempt end without an outcome"));
        }
        let ends = settle.progress.as_ref().map(|progress| progress.state.is_end());
        match (self.state.is_end(), ends) {
            (_, None) if settle.attempt.is_none() => Err(Refusal("settlement of nothing")),
            (_, None) if settle.heading.is_some() => Err(Refusal("heading without a progress")),
            (_, None | Some(false)) if settle.response.is_some() => Err(Refusal("response before the end")),
            (_, None) => Ok(Settlement::Stays),
            (false, Some(false)) => Ok(Settlement::GoesOn),
            (false, Some(true)) => Ok(Settlement::Ends),
            (true, Some(_)) => Err(Refusal("second end")),
        }
    }

    /// Whether the call may be let into its lane.
    pub(crate) const fn release(self) -> Result<(), Refusal> {
        if self.state.is_end() || matches!(self.state, State::Running) {
            return Err(Refusal("release of a call that does not wait"));
        }
        Ok(())
    }

    /// Whether something may be remembered of the call.
    pub(crate) const fn mark(self) -> Result<(), Refusal> {
        if self.state.is_end() { Err(Refusal("mark after the end")) } else { Ok(()) }
    }

    /// Whether the call may be pruned.
    pub(crate) const fn prune(self, held_by: HeldBy) -> Result<(), Refusal> {
        if !self.state.is_end() {
            return Err(Refusal("pruning before the end"));
        }
        if !self.filed {
            return Err(Refusal("pruning before the filing"));
        }
        match held_by {
            HeldBy { open_attempt: true, .. } => Err(Refusal("pruning while an attempt is out")),
            HeldBy { live_callback: true, .. } => Err(Refusal("pruning before the callback's end")),
            HeldBy { open_attempt: false, live_callback: false } => Ok(()),
        }
    }

    /// Whether the call's idempotency key may be freed.
    pub(crate) const fn free_key(self, has_key: bool) -> Result<(), Refusal> {
        match (self.state.is_end(), has_key) {
            (false, _) => Err(Refusal("freeing of the key before the end")),
            (true, false) => Err(Refusal("freeing of no key")),
            (true, true) => Ok(()),
        }
    }

    /// Whether the call's files may be noted as in place.
    pub(crate) const fn file(self) -> Result<(), Refusal> {
        if !self.state.is_end() {
            return Err(Refusal("filing before the end"));
        }
        if self.filed { Err(Refusal("second filing")) } else { Ok(()) }
    }
}

fn still_runs(end: &AttemptEnd) -> bool {
    end.outcome == AttemptOutcome::Running
}
