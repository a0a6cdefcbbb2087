//! What goes when calls that have ended are pruned, and what is kept of them: what they count in limits.
//!
//! When they go is not decided here; what must not go is refused as `transition` says.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroI64;
use std::sync::Arc;

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;

use super::content::{Content, Row, amount, end_of_step, key_of, latest_at};
use crate::port::{Ended, EndedRange, Prune};
use crate::record::EndedRecord;
use crate::transition::{HeldBy, KEPT_STEP_US, Refusal, UNKNOWN_CALL};

/// Costs of attempts whose calls are gone, by limit key and the end of their time.
pub(super) type Kept = BTreeMap<(String, Steady), u32>;

impl Content {
    pub(super) fn ended(&self, range: &EndedRange) -> Vec<EndedRecord> {
        let held = self.held_calls();
        let is_asked_for = |row: &Row| match range.of {
            Ended::Unkeyed(state) => {
                row.call.progress.state == state && row.call.filed && row.call.idempotency.is_none()
            }
            Ended::Keyed => row.call.idempotency.is_some(),
        };
        let rows = self.rows().filter(|row| is_asked_for(row));
        let mut places: Vec<_> = rows
            .filter_map(|row| Some((row.ended_at?, row.call.id)))
            .filter(|&(at, call)| at <= range.until && range.after.is_none_or(|after| (at, call) > after))
            .collect();
        places.sort_unstable();
        let record = |(ended_at, call)| EndedRecord { call, ended_at, is_held: held.contains(&call) };
        places.into_iter().map(record).take(amount(range.count)).collect()
    }

    pub(super) fn prune(&mut self, prune: &Prune) -> Result<Arc<Row>, Refusal> {
        let row = self.row(prune.call).ok_or(UNKNOWN_CALL)?;
        let is_live_callback =
            |other: &Row| other.call.callback_of == Some(prune.call) && !other.call.progress.state.is_end();
        let live_callback = self.rows().any(is_live_callback);
        let open_attempt = row.open_attempts().next().is_some();
        row.standing().prune(HeldBy { open_attempt, live_callback })?;
        let row = self.remove(prune.call).ok_or(UNKNOWN_CALL)?;
        self.keep_grants(&row, prune.grants_since);
        Ok(row)
    }

    pub(super) fn kept_grants(&self, limit_key: &str) -> impl Iterator<Item = (Steady, u32)> {
        let of_key = self.kept().iter().filter(move |((key, _), _)| key == limit_key);
        of_key.map(|(&(_, at), &cost)| (at, cost))
    }

    fn keep_grants(&mut self, row: &Row, since: Steady) {
        let step = NonZeroI64::new(KEPT_STEP_US).expect("a time is not zero");
        let kept = self.kept_mut();
        kept.retain(|&(_, at), _| at >= since);
        let proved = row.attempts.iter().zip(&row.limit_keys).filter(|(attempt, _)| attempt.proved_at.is_some());
        for (attempt, limit_key) in proved {
            let at = latest_at(attempt);
            if at >= since {
                let place = (limit_key.clone(), end_of_step(at, step));
                let cost = kept.entry(place).or_default();
                *cost = cost.saturating_add(row.call.cost);
            }
        }
    }

    /// Calls that an attempt or a callback still needs.
    fn held_calls(&self) -> BTreeSet<CallId> {
        let is_live = |row: &&Row| !row.call.progress.state.is_end();
        let parents = self.rows().filter(is_live).filter_map(|row| row.call.callback_of);
        let out = self.rows().filter(|row| row.open_attempts().next().is_some()).map(|row| row.call.id);
        parents.chain(out).collect()
    }
}

impl Row {
    pub(super) fn free_key(&mut self) -> Result<(), Refusal> {
        self.standing().free_key(self.call.idempotency.is_some())?;
        self.call.idempotency = None;
        Ok(())
    }

    /// It is in this state from `at` on.
    pub(super) fn note_end(&mut self, state: State, at: Steady) {
        self.ended_at = state.is_end().then_some(at);
    }
}

/// Puts a row back as it was before a batch that was refused.
pub(super) fn put_back(content: &mut Content, call: CallId, row: Arc<Row>) {
    if let Some(key) = key_of(&row.call) {
        content.claim_key(key, call);
    }
    content.insert_row(row);
}
