//! Calls that ended `expired` before their deadline: only those that could not make it any more.
//!
//! Whether limits left no time for a call is a property test of the core; here is looked whether there was anything at
//! all that might have kept it for so long.

use std::time::Duration;

use farcall_core::steady::Steady;
use farcall_store::record::CallRecord;

use super::history::{Came, full_delay};
use super::terms::CallTerms;
use crate::facts::Origin;
use crate::world::World;

/// Whether a call that was tried so far, or not at all, may be given up before its deadline.
pub(super) fn is_hopeless(
    world: &World,
    call: &CallRecord,
    deadline: Steady,
    (terms, retries, last): (&CallTerms<'_>, u32, Option<(Steady, Came)>),
) -> bool {
    let Some((ended_at, came)) = last else { return may_be_kept(world, call, deadline, terms.upstream) };
    let wait = match came {
        Came::Throttled(wait) => wait,
        Came::Again | Came::Unknown => full_delay(terms.retry, retries),
        _ => return false,
    };
    let longest = wait + Duration::from_micros(1);
    ended_at.as_micros().saturating_add(i64::try_from(longest.as_micros()).unwrap_or(i64::MAX)) >= deadline.as_micros()
}

/// Something holds calls to this upstream, or it was not to start in time anyway.
fn may_be_kept(world: &World, call: &CallRecord, deadline: Steady, upstream: usize) -> bool {
    let quota = world.plan.quota(upstream);
    let comes_late = match world.facts.origins.get(&call.id) {
        Some(Origin::Planned { times, .. }) => times.not_before >= Some(deadline),
        Some(Origin::Callback { .. }) | None => false,
    };
    let is_limited = world.facts.eras.iter().any(|era| !era.policies[quota].limits.is_empty());
    let is_closed = world.facts.closings.iter().any(|closing| closing.quota == quota && closing.until >= deadline);
    comes_late || is_limited || is_closed || world.plan.upstreams[quota].policy.breaker.is_some()
}
