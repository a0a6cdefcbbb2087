//! What is on disk is never less cautious than what was in memory: limits rebuilt from it have no more room.
//!
//! It compares what the two would allow, not how they count.

use farcall_core::call::UpstreamId;
use farcall_core::id::AttemptId;
use farcall_store::port::{Store, Write};

use super::{Check, cost_of, ensure, violation};
use crate::engine::Process;
use crate::recovery;
use crate::world::World;

/// Compares a process that has just died with what a start at this very moment would make of the store. `lost` are
/// the writes that died with it: attempts that only they knew of were never launched.
pub(crate) fn check_caution(world: &World, process: &Process, lost: &[Write]) -> Check {
    let unreadable = |error| violation(format!("the store cannot be read: {error}"));
    let mut reader = world.store.snapshot().reader().map_err(unreadable)?;
    let mut rebuilt = recovery::declare(&mut *reader, world, 0).map_err(unreadable)?;
    let mut died = process.informed(world.clocks.now(world.now));
    for place in (1..world.policies.len()).filter(|&place| !world.plan.is_webhook(place)) {
        let upstream = UpstreamId(u32::try_from(place).expect("plans are small"));
        let unlaunched = cost_of_lost_starts(world, place, lost);
        let before = died.upstream_standing(upstream, world.now).limits;
        let after = rebuilt.upstream_standing(upstream, world.now).limits;
        for (before, after) in before.iter().zip(&after) {
            let slack = world.policies[place].jitter + world.plan.faults.commit_max + world.plan.faults.commit_slow_max;
            // A window that came lately may count what had just ended for too long.
            if process.is_unsure(place, before.spec.window, slack, world.now) {
                continue;
            }
            // After a limit was lowered more may be in use than there is; a start reads what fills it, and no more.
            let needed = before.used.min(before.spec.count.get());
            ensure(after.used + unlaunched >= needed, || {
                format!("{upstream:?}: {before:?} in memory, {after:?} from disk, {unlaunched} never launched")
            })?;
        }
    }
    Ok(())
}

fn cost_of_lost_starts(world: &World, place: usize, lost: &[Write]) -> u32 {
    let starts = lost.iter().filter_map(|write| match write {
        Write::Start(start) => Some(AttemptId { call: start.call, number: start.number }),
        Write::Grant(grant) => Some(grant.attempt),
        Write::Insert(_)
        | Write::Settle(_)
        | Write::Close { .. }
        | Write::Release { .. }
        | Write::Filed(_)
        | Write::Mark { .. }
        | Write::Prune(_)
        | Write::FreeKey(_)
        | Write::Upstream(_)
        | Write::Open { .. }
        | Write::GrantEnd(_)
        | Write::GrantsLeft { .. } => None,
    });
    starts
        .filter(|&attempt| super::quota_of(&world.plan, &world.facts, attempt) == place)
        .map(|attempt| cost_of(&world.plan, &world.facts, &world.policies[place], attempt.call))
        .sum()
}
