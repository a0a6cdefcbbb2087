//! What upstreams told of their quota and what was started then: no more than remained, if they told the truth.
//!
//! An upstream that counts for itself sees every arrival. Of what came after the request that it answered, in the window
//! that it spoke of, whatever the engine started when it had heard the answer must have fitted, together with what was on
//! its way already. What only was on its way is nobody's fault.

use std::time::Duration;

use farcall_core::id::AttemptId;
use farcall_core::time::Instant;

use super::{Check, ensure, quota_of};
use crate::facts::{Arrival, Statement};
use crate::world::World;

/// A later answer may put an earlier reset in its place, if it is no more than this earlier.
const SAME_RESET: Duration = Duration::from_secs(2);

pub(super) fn check(world: &World) -> Check {
    for told in world.facts.statements.iter().filter(|told| told.is_true && proves(world, told.quota)) {
        check_one(world, told)?;
    }
    Ok(())
}

/// Whether arrivals can be known there: its network keeps to what proofs by sending rest on, or only answers prove.
fn proves(world: &World, quota: usize) -> bool {
    let upstream = &world.plan.upstreams[quota];
    upstream.network.keeps_time() || (upstream.policy.strict && upstream.network.late_max.is_some())
}

fn check_one(world: &World, told: &Statement) -> Check {
    let is_ours = |attempt: AttemptId| world.facts.launches.get(&attempt).is_some_and(|at| at.boot == told.boot);
    let started = |attempt: AttemptId| world.facts.decided.get(&attempt).map_or(Instant::MIN, |it| it.granted_at);
    let until = told.until - SAME_RESET;
    let is_inside = |arrival: &&Arrival| told.counted_at < arrival.at && arrival.at < until;
    let inside = world.facts.arrivals[told.quota].iter().filter(is_inside).filter(|arrival| is_ours(arrival.attempt));
    let inside: Vec<&Arrival> = inside.collect();
    let Some(last) = inside.iter().map(|arrival| started(arrival.attempt)).max().filter(|&at| at > told.heard_at)
    else {
        return Ok(());
    };
    let cost = |arrival: &&&Arrival| if started(arrival.attempt) <= last { arrival.cost } else { 0 };
    let sum: u32 = inside.iter().map(|arrival| cost(&arrival)).sum();
    ensure(sum <= told.remaining, || format!("{sum} came after {told:?}, the last of them started at {last:?}"))
}

/// Whether something that was told keeps a call of this cost from starting, for all that can be seen from here.
pub(super) fn may_hold_up(world: &World, quota: usize, cost: u32) -> bool {
    let boot = world.process.as_ref().map(|process| process.boot);
    let holds = |told: &&Statement| told.quota == quota && Some(told.boot) == boot && told.until > world.now;
    let jitter = world.policies[quota].jitter;
    world.facts.statements.iter().filter(holds).any(|told| {
        let counts = |call: &farcall_store::record::CallRecord, attempt: &farcall_store::record::AttemptRecord| {
            let id = AttemptId { call: call.id, number: attempt.number };
            let ended = world.facts.reports.get(&id).map(|report| report.at.instant + jitter);
            quota_of(&world.plan, &world.facts, id) == quota && ended.is_none_or(|at| at >= told.sent_at)
        };
        let rows = world.ledger.rows().map(|(call, attempts)| {
            let counted = attempts.iter().filter(|attempt| counts(call, attempt)).count();
            call.cost * u32::try_from(counted).unwrap_or(u32::MAX)
        });
        told.remaining < cost.saturating_add(rows.sum::<u32>())
    })
}
