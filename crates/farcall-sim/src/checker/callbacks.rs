//! Callbacks: exactly those that an end wants, each to where it should go, and none before its parent is filed.
//!
//! That they end, too, is the matter of `liveness`.

use std::collections::BTreeMap;

use farcall_core::call::State;
use farcall_core::id::{AttemptId, CallId};

use super::{Check, ensure, terms};
use crate::world::World;

pub(super) fn check(world: &World) -> Check {
    let mut children: BTreeMap<CallId, Vec<usize>> = BTreeMap::new();
    for (call, attempts) in world.ledger.rows() {
        let Some(parent) = call.callback_of else { continue };
        children.entry(parent).or_default().push(terms(&world.plan, &world.facts, call.id).upstream);
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
        ensure(filed_at.is_some_and(|&at| at <= started_at || is_released(world, call.id, parent)), || {
            format!("{} was tried before {parent} was filed", call.id)
        })?;
    }
    for (call, _) in world.ledger.rows() {
        let (on_success, on_fail) = terms(&world.plan, &world.facts, call.id).callbacks;
        let expected = if call.progress.state == State::Succeeded { on_success } else { on_fail };
        let mut places = children.remove(&call.id).unwrap_or_default();
        places.sort_unstable();
        ensure(places == expected, || format!("{} has callbacks to {places:?}, {expected:?} wanted", call.id))?;
    }
    Ok(())
}

/// Filing and the start of the callback may be one commit; its launch then comes after both.
fn is_released(world: &World, callback: CallId, parent: CallId) -> bool {
    let launch = world.facts.launches.get(&AttemptId { call: callback, number: 1 });
    let filed_at = world.facts.filed.get(&parent);
    launch.is_none_or(|launch| filed_at.is_some_and(|&filed| filed <= launch.at))
}
