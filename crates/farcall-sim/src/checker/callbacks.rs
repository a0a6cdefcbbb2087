//! Callbacks: exactly one for every end that wants one, none for any other, and none before its parent is filed.
//!
//! That they end, too, is the matter of `liveness`.

use std::collections::BTreeMap;

use farcall_core::call::{Source, State};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::Instant;

use super::{Check, ensure, terms};
use crate::world::World;

pub(super) fn check(world: &World) -> Check {
    let mut children: BTreeMap<CallId, u32> = BTreeMap::new();
    for (call, attempts) in world.ledger.rows() {
        let Some(parent) = call.callback_of else { continue };
        *children.entry(parent).or_default() += 1;
        let Some(stored) = world.ledger.call(parent) else {
            return ensure(false, || format!("{} calls back for nobody", call.id));
        };
        ensure(stored.progress.state.is_end(), || format!("{} calls back before {parent} has ended", call.id))?;
        let Some(first) = attempts.first().filter(|_| stored.file.is_some()) else { continue };
        let filed_at = world.facts.filed.get(&parent);
        let id = AttemptId { call: call.id, number: first.number };
        let Some(started_at) = world.facts.decided.get(&id).map(|decided| decided.granted_at) else {
            return ensure(false, || format!("{} was tried and nobody decided it", call.id));
        };
        ensure(filed_at.is_some_and(|&at| at <= started_at || is_released(world, parent, started_at)), || {
            format!("{} was tried before {parent} was filed", call.id)
        })?;
    }
    for (call, _) in world.ledger.rows() {
        let (on_success, on_fail) = terms(&world.plan, &world.facts, call.id).wants_callback;
        let wants = if call.progress.state == State::Succeeded { on_success } else { on_fail };
        let expected = u32::from(wants && call.source != Source::Callback);
        let count = children.get(&call.id).copied().unwrap_or_default();
        ensure(count == expected, || format!("{} has {count} callbacks, {expected} wanted", call.id))?;
    }
    Ok(())
}

/// Filing and the start of the callback may be one commit; its launch then comes after both.
fn is_released(world: &World, parent: CallId, started_at: Instant) -> bool {
    let launches = world.facts.launches.iter();
    let of_child = |call: CallId| world.ledger.call(call).is_some_and(|child| child.callback_of == Some(parent));
    let first =
        launches.filter(|(attempt, _)| attempt.number == 1 && of_child(attempt.call)).map(|(_, launch)| launch.at);
    let filed_at = world.facts.filed.get(&parent).copied();
    first.min().is_none_or(|at| at >= started_at && filed_at.is_some_and(|filed| filed <= at))
}
