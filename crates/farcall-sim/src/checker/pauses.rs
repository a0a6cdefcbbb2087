//! Nothing starts at an upstream while it is paused, nor after a restart when somebody was told that it is.
//!
//! What was started before may still be launched: its start was on its way to the disk.

use super::{Check, ensure, place_of};
use crate::world::World;

pub(super) fn check(world: &World) -> Check {
    for (attempt, launch) in &world.facts.launches {
        let quota = world.plan.quota(place_of(&world.plan, &world.facts, *attempt));
        let Some(granted_at) = world.facts.decided.get(attempt).map(|decided| decided.granted_at) else { continue };
        let mut pauses = world.facts.pauses.iter().filter(|pause| pause.boot <= launch.boot);
        let pause = pauses.find(|pause| {
            let is_inside = pause.from < granted_at && pause.until.is_none_or(|until| granted_at < until);
            pause.quota == quota && is_inside
        });
        ensure(pause.is_none(), || format!("{attempt:?} started while its upstream was paused: {pause:?}"))?;
    }
    Ok(())
}
