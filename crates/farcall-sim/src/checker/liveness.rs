//! How long everything may take to end once nothing goes wrong any more. Generous, but finite and derived.
//!
//! That nothing waits without a reason is the matter of `promptness`.

use std::time::Duration;

use farcall_core::policy::UpstreamPolicy;

use super::cost_of;
use crate::hedging;
use crate::world::World;

/// More than any call of a plan is tried: every retry of every round, every wait for Retry-After, every restart.
const ATTEMPTS_MAX: usize = 60;

/// From the moment of healing on.
pub(crate) fn time_to_end(world: &World) -> Duration {
    let faults = &world.plan.faults;
    let step = (faults.commit_max + faults.commit_slow_max) * 4 + faults.stall_max() + faults.reopen_max;
    let mut longest = Duration::ZERO;
    for (place, policy) in world.policies.iter().enumerate().filter(|&(place, _)| !world.plan.is_webhook(place)) {
        longest = longest.max(time_of_upstream(world, place, policy, step));
    }
    // A start that is still to come may find other limits; they are drawn from the same ranges.
    let restarts = if faults.changes_limits { longest * 20 + Duration::from_secs(7_200) * 400 } else { Duration::ZERO };
    // Callbacks come after whatever they are for, to upstreams that may be busy with calls then.
    let callbacks = longest + faults.file_delay_max;
    // Calls that the process may have died of go one after the other.
    let calls = u32::try_from(world.plan.calls.len()).expect("plans are small");
    let suspects = Duration::from_secs(3) * calls * 3;
    longest + restarts + callbacks + suspects + faults.downtime_max + patience(world) + breakers(world) + step
}

/// Until every call has been sent once more.
fn time_of_upstream(world: &World, place: usize, policy: &UpstreamPolicy, step: Duration) -> Duration {
    let network = &world.networks[place];
    let once = network.healthy_max() + network.abort_max + policy.jitter + step;
    let takes_callbacks = (0..world.policies.len())
        .any(|other| (other == 0 || world.plan.is_webhook(other)) && world.plan.quota(other) == place);
    // Any call may have been sent on to here.
    let is_here = |upstream: usize| world.plan.forms.redirects || world.plan.quota(upstream) == place;
    let calls = world.plan.calls.iter().filter(|call| is_here(call.upstream as usize)).count();
    let callbacks = if takes_callbacks { world.plan.calls.len() * 2 } else { 0 };
    let count = u32::try_from(calls + callbacks).expect("plans are small") + 1;
    let costs: u32 = world
        .facts
        .origins
        .keys()
        .filter(|&&call| is_here(super::terms(&world.plan, &world.facts, call).upstream))
        .map(|&call| cost_of(&world.plan, &world.facts, policy, call))
        .sum::<u32>()
        .max(count * 12)
        // Each attempt may be hedged.
        * if policies_hedge(world) { 1 + hedging::EXTRA_MAX } else { 1 };
    let mut time = once * count;
    for limit in &policy.limits {
        let fillings = costs / limit.count * 2 + 2;
        time += (limit.window * 2 + once) * fillings;
    }
    time
}

fn policies_hedge(world: &World) -> bool {
    let own = world.plan.calls.iter().filter_map(|call| call.overrides.as_ref());
    world.policies.iter().any(|policy| policy.hedge.is_some()) || own.into_iter().any(|own| own.hedge.is_some())
}

/// Until every breaker has closed: a probe that was under way may fail, and each that a deadline cuts off says nothing.
/// One that is given too little time fails for ever, until no call has a retry left.
fn breakers(world: &World) -> Duration {
    let calls = || world.plan.calls.iter();
    let own = calls().filter_map(|call| call.overrides.as_ref()?.timeout).min();
    let time_of = |(place, policy): (usize, &UpstreamPolicy)| {
        let open = policy.breaker?.open;
        let timeout = own.map_or(policy.timeout, |own| own.min(policy.timeout));
        let probes = if timeout < world.networks[place].healthy_max() {
            calls().count() * ATTEMPTS_MAX
        } else {
            calls().filter(|call| call.deadline.is_some() || call.cancel_after.is_some()).count() + 4
        };
        Some(open * u32::try_from(probes).expect("plans are small"))
    };
    world.policies.iter().enumerate().filter_map(time_of).max().unwrap_or_default()
}

/// What a call may still be told to wait by answers that were under way, and by its own wishes.
fn patience(world: &World) -> Duration {
    let longest = |durations: &mut dyn Iterator<Item = Duration>| durations.max().unwrap_or_default();
    let policies = || world.policies.iter();
    let own = || world.plan.calls.iter().filter_map(|call| call.overrides.as_ref());
    let retries = || policies().map(|policy| &policy.retry).chain(own().filter_map(|own| own.retry.as_ref()));
    let timeout = longest(&mut policies().map(|policy| policy.timeout).chain(own().filter_map(|own| own.timeout)));
    let backoff = longest(&mut retries().map(|retry| retry.max_delay.max(retry.retry_after_max)));
    let wishes = longest(&mut world.plan.calls.iter().filter_map(|call| call.delay));
    let offers = longest(&mut world.plan.calls.iter().map(|call| call.offer_after));
    timeout + backoff + wishes + offers + Duration::from_secs(60)
}
