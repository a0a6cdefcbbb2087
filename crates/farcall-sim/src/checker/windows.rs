//! No window over its limit, as the upstream saw it; and what an upstream's own log says about each arrival.
//!
//! A window is held to the limits of the latest era in which one of its arrivals was decided: a limit that was
//! changed holds from then on, counting what was sent before.

use std::time::Duration;

use farcall_core::policy::LimitSpec;

use super::{Check, ensure};
use crate::facts::{Arrival, Era};
use crate::world::World;

/// Clocks count whole microseconds.
const CLOCK_STEP: Duration = Duration::from_micros(1);

pub(super) fn check(world: &World) -> Check {
    for (upstream, arrivals) in world.facts.arrivals.iter().enumerate() {
        check_known(world, arrivals)?;
        for (era, Era { policies, .. }) in world.facts.eras.iter().enumerate() {
            for limit in &policies[upstream].limits {
                check_limit(arrivals, era, *limit)
                    .map_err(|found| super::violation(format!("upstream {upstream}: {found}")))?;
            }
        }
        check_smooth(world, upstream)?;
        check_proofs(world, upstream, arrivals)?;
    }
    Ok(())
}

/// Whatever arrives was launched by us, once.
fn check_known(world: &World, arrivals: &[Arrival]) -> Check {
    let mut seen = std::collections::BTreeSet::new();
    for arrival in arrivals {
        let attempt = arrival.attempt;
        ensure(seen.insert(attempt), || format!("{attempt:?} arrived twice"))?;
        let launch = world.facts.launches.get(&attempt);
        ensure(launch.is_some_and(|launch| launch.at <= arrival.at), || format!("{attempt:?} arrived unlaunched"))?;
    }
    Ok(())
}

/// Every half-open window that begins with an arrival, and every one that ends with one.
fn check_limit(arrivals: &[Arrival], era: usize, limit: LimitSpec) -> Check {
    let mut first = 0;
    for last in 0..arrivals.len() {
        while arrivals[last].at.since(arrivals[first].at) >= limit.window {
            first += 1;
        }
        check_window(&arrivals[first..=last], era, limit)?;
    }
    let mut end = 0;
    for begin in 0..arrivals.len() {
        while end < arrivals.len() && arrivals[end].at.since(arrivals[begin].at) < limit.window {
            end += 1;
        }
        check_window(&arrivals[begin..end], era, limit)?;
    }
    Ok(())
}

fn check_window(arrivals: &[Arrival], era: usize, limit: LimitSpec) -> Check {
    if arrivals.iter().map(|arrival| arrival.era).max() != Some(era) {
        return Ok(());
    }
    let sum: u32 = arrivals.iter().map(|arrival| arrival.cost).sum();
    ensure(sum <= limit.count.get(), || {
        let window: Duration = limit.window;
        let listed: Vec<_> = arrivals.iter().map(|a| (a.at.as_micros(), a.attempt, a.cost, a.era)).collect();
        format!("{sum} arrived within {window:?}, {} are allowed (era {era}): {listed:?}", limit.count)
    })
}

/// No arrival is stored as proved before it came, where the network keeps to what proofs rest on.
fn check_proofs(world: &World, upstream: usize, arrivals: &[Arrival]) -> Check {
    if world.plan.upstreams[upstream].network.late_max.is_none() {
        return Ok(());
    }
    for arrival in arrivals {
        let proved_at = world.facts.decided.get(&arrival.attempt).and_then(|decided| decided.proved_at);
        let is_right = proved_at.is_some_and(|at| arrival.at <= at);
        ensure(is_right, || format!("{:?} arrived at {:?}, proved {proved_at:?}", arrival.attempt, arrival.at))?;
    }
    Ok(())
}

/// With `smooth`, starts of one era keep the largest W/N apart.
fn check_smooth(world: &World, upstream: usize) -> Check {
    let mut previous: Option<(usize, farcall_core::time::Instant, u32)> = None;
    for (attempt, era, started_at) in starts(world, upstream) {
        let policy = &world.facts.eras[era].policies[upstream];
        let interval = policy.limits.iter().map(|limit| limit.window / limit.count.get()).max();
        let cost = super::cost_of(&world.plan, &world.facts, policy, attempt.call);
        if let (true, Some(interval), Some((before, at, cost))) = (policy.smooth, interval, previous)
            && before == era
        {
            let apart = started_at.since(at);
            ensure(apart + CLOCK_STEP > interval * cost, || {
                format!("{attempt:?} started {apart:?} after one that costs {cost} of {:?}, smooth", policy.limits)
            })?;
        }
        previous = Some((era, started_at, cost));
    }
    Ok(())
}

/// Attempts launched at an upstream that did send something, with their starts, in order.
fn starts(world: &World, upstream: usize) -> Vec<(farcall_core::id::AttemptId, usize, farcall_core::time::Instant)> {
    let mut starts: Vec<_> = world
        .facts
        .launches
        .iter()
        .filter(|(attempt, _)| super::quota_of(&world.plan, &world.facts, **attempt) == upstream)
        .filter_map(|(attempt, _)| {
            let decided = world.facts.decided.get(attempt)?;
            Some((*attempt, decided.era, decided.granted_at))
        })
        .collect();
    starts.sort_by_key(|&(attempt, era, at)| (at, era, attempt));
    starts
}
