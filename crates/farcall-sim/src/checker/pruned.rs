//! What is pruned may go: it ended long enough ago, its files are in place, and nothing of it is needed any more.
//!
//! That limits go on counting it is the matter of `caution` and `windows`.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;

use super::{Check, ensure};
use crate::world::World;

/// A call that ended less than ten seconds ago is kept, however much is stored.
const SPARED_US: i64 = 10_000_000;

/// Looks at a call that is about to be forgotten.
pub(super) fn check(world: &World, id: CallId) -> Check {
    let Some(call) = world.ledger.call(id) else {
        return ensure(false, || format!("{id} is pruned and was never stored"));
    };
    ensure(!world.ledger.is_pruned(id), || format!("{id} is pruned twice"))?;
    ensure(world.ledger.has_ended(id), || format!("{id} is pruned while it lives"))?;
    ensure(!world.ledger.is_unfiled(id), || format!("{id} is pruned before its files are in place"))?;
    let is_out = |(other, attempts): (&farcall_store::record::CallRecord, &[farcall_store::record::AttemptRecord])| {
        other.id == id && attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::Running)
    };
    ensure(!world.ledger.rows().any(is_out), || format!("{id} is pruned while an attempt of it is out"))?;
    let calls_back = world.ledger.live_rows().any(|(other, _)| other.callback_of == Some(id));
    ensure(!calls_back, || format!("{id} is pruned while a callback of it lives"))?;
    let kept = world.plan.retention.and_then(|retention| match call.progress.state {
        State::Succeeded | State::Cancelled => retention.succeeded,
        _ => retention.failed,
    });
    let now = world.clocks.steady(world.now).as_micros();
    let finished_us = world.facts.finishes.get(&id).map(|finish| finish.as_micros());
    let is_fresh = finished_us.is_none_or(|finished_us| finished_us.saturating_add(SPARED_US) > now);
    let is_old = kept.is_some_and(|kept| {
        let kept_us = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        world.facts.finishes.get(&id).is_some_and(|finish| finish.as_micros().saturating_add(kept_us) <= now)
    });
    // What is stored grows between two batches, so it was no more when that was decided.
    let bytes_max = world.plan.retention.and_then(|retention| retention.bytes_max);
    let is_too_much = bytes_max.is_some_and(|bytes_max| world.ledger.stored_bytes > bytes_max) && !is_fresh;
    ensure(is_old || is_too_much, || format!("{id} is pruned before its time, or though it is kept for ever"))
}
