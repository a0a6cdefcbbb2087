//! Whatever may be done is done at once: looked at now and then, when the engine has nothing more to decide.
//!
//! Nothing that is due waits, nothing overdue is still out, and no upstream is kept waiting by anything but its own
//! limits, worked out anew from the store with room to spare. So a blocked upstream never holds up another.

use std::collections::BTreeMap;
use std::time::Duration;

use farcall_core::attempt::{AttemptOutcome, BytesSent};
use farcall_core::call::State;
use farcall_core::id::AttemptId;
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use farcall_core::time::Instant;
use farcall_store::record::{AttemptRecord, CallRecord};

use super::{Check, breakers, cost_of, ensure, quota_of, terms, told};
use crate::engine::Process;
use crate::world::World;

/// Looks at one moment in this many.
const MOMENTS: u64 = 8;
/// How long an attempt that is being cut off may take to end, a commit before the cut apart.
const CUT_MAX: Duration = Duration::from_secs(1);

/// How often the engine looks for deadlines of calls that only the store holds, at least.
const DEADLINES_EVERY_MAX: Duration = Duration::from_millis(100);
/// How soon a reading that failed is tried again.
const READ_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Looks now, if the engine is at rest and it is time.
pub(crate) fn check_prompt(world: &World) -> Check {
    let rests =
        |process: &&Process| process.is_idle() && process.draining.is_none() && !process.dispatcher.is_held_up();
    let Some(process) = world.process.as_ref().filter(rests) else { return Ok(()) };
    if !world.log.count().is_multiple_of(MOMENTS) {
        return Ok(());
    }
    // Who goes next may be on its way from the store just now.
    let is_loading = process.dispatcher.is_loading();
    let mut waiting: BTreeMap<usize, u32> = BTreeMap::new();
    for (call, attempts) in world.ledger.live_rows() {
        check_time(world, process, call, attempts)?;
        let own = || terms(&world.plan, &world.facts, call.id).upstream;
        let upstream = world.ledger.hop_key(call.id).and_then(|key| world.plan.place_of(key)).unwrap_or_else(own);
        let is_paused = process.paused.contains(&world.plan.quota(upstream));
        if !is_loading && is_due(world, call) && !is_paused && !is_crowded(world, process, upstream) {
            let quota = world.plan.quota(upstream);
            let cost = cost_of(&world.plan, &world.facts, &world.policies[quota], call.id);
            let most = waiting.entry(quota).or_default();
            *most = cost.max(*most);
        }
    }
    for (quota, cost) in waiting {
        let is_told_off = told::may_hold_up(world, quota, cost) || breakers::may_hold(world, process, quota);
        let is_shut = is_closed(world, quota) || is_told_off;
        let is_held = is_shut || is_used_up(world, process, quota) || !has_room(world, quota, cost);
        ensure(is_held, || format!("calls to upstream {quota} wait though one of cost {cost} may start"))?;
    }
    Ok(())
}

/// Its deadline, and the timeout of its attempt, lie ahead.
fn check_time(world: &World, process: &Process, call: &CallRecord, attempts: &[AttemptRecord]) -> Check {
    let deadline = call.deadline.map(|at| world.clocks.instant(at));
    let commit = world.plan.faults.commit_max + world.plan.faults.commit_slow_max;
    if call.progress.state != State::Running {
        // What only the store holds is read before it ends: commits, reads, and a while until reads are made again.
        let is_stored = !process.dispatcher.is_loaded(call.id);
        let patience =
            if is_stored { commit * 6 + world.plan.faults.trouble_max() + read_pause(world) } else { Duration::ZERO };
        let booted_at = world.facts.boots.last().copied().unwrap_or(world.now);
        let from = |at: Instant| if is_stored { at.max(booted_at) } else { at };
        let is_in_time = deadline.is_none_or(|at| from(at) + patience > world.now);
        return ensure(is_in_time, || format!("{} waits beyond its deadline", call.id));
    }
    let timeout = terms(&world.plan, &world.facts, call.id).timeout;
    let patience = CUT_MAX + commit + world.plan.faults.stall_max();
    let out = attempts.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Running);
    let overdue = out.filter(|attempt| {
        let id = AttemptId { call: call.id, number: attempt.number };
        let Some(launch) = world.facts.launches.get(&id) else { return true };
        let times_out_at = launch.at + timeout;
        deadline.map_or(times_out_at, |at| at.min(times_out_at)) + patience < world.now
    });
    ensure(overdue.count() == 0, || format!("an attempt of {} is out beyond its time", call.id))
}

/// Between two readings of deadlines, and after readings that failed: a hundred in a row at the very most.
fn read_pause(world: &World) -> Duration {
    let fails = world.plan.faults.read_failure_percent > 0;
    let read = world.plan.faults.read_max * 4;
    // The one that is under way may have begun too early to see the call.
    DEADLINES_EVERY_MAX + read + if fails { (READ_AGAIN_MAX + read) * 100 } else { Duration::ZERO }
}

fn is_due(world: &World, call: &CallRecord) -> bool {
    if call.callback_of.is_some_and(|parent| world.ledger.is_unfiled(parent)) {
        return false;
    }
    let from = match call.progress.state {
        State::Scheduled => call.not_before,
        State::Retrying | State::Queued => call.progress.ready_at,
        _ => return false,
    };
    from.is_none_or(|at| world.clocks.instant(at) <= world.now)
}

fn is_closed(world: &World, quota: usize) -> bool {
    let now = world.clocks.steady(world.now);
    world.facts.closings.iter().any(|closing| closing.quota == quota && closing.until > now)
}

fn is_crowded(world: &World, process: &Process, upstream: usize) -> bool {
    let most = world.policies[upstream].concurrency.map_or(UpstreamPolicy::DURABLE_CONCURRENCY, u32::from);
    let out = process.out.values().filter(|id| id.0 as usize == upstream).count();
    out >= most as usize
}

/// As many attempts are out as are allowed in all, from whichever upstream.
fn is_used_up(world: &World, process: &Process, quota: usize) -> bool {
    let out = || process.out.values().filter(|id| world.plan.quota(id.0 as usize) == quota).count();
    world.policies[quota].concurrency.is_some_and(|most| out() >= most.get() as usize)
}

/// Whether every window surely has this much room: each attempt is counted as long as it can possibly count.
fn has_room(world: &World, quota: usize, cost: u32) -> bool {
    let policy = &world.policies[quota];
    let booted_at = world.facts.boots.last().copied().unwrap_or(world.now);
    let changed_at = world.facts.eras.last().map_or(world.now, |era| era.at);
    let interval = policy.limits.iter().map(|limit| limit.window / limit.count.get()).max().filter(|_| policy.smooth);
    if interval.is_some_and(|interval| changed_at + interval > world.now) {
        return false;
    }
    let is_here = |call: &CallRecord, attempt: &&AttemptRecord| {
        let id = AttemptId { call: call.id, number: attempt.number };
        quota_of(&world.plan, &world.facts, id) == quota
    };
    let is_past = |interval: Duration, call: &CallRecord, attempt: &AttemptRecord| {
        world.clocks.instant(attempt.granted_at) + interval * call.cost <= world.now
    };
    let is_spaced = interval.is_none_or(|interval| {
        let mut rows = world.ledger.rows();
        rows.all(|(call, attempts)| {
            attempts.iter().filter(|attempt| is_here(call, attempt)).all(|attempt| is_past(interval, call, attempt))
        })
    });
    let has_room = |limit: &LimitSpec| {
        let length = limit.window + limit.window / 1_000 + policy.jitter + Duration::from_micros(1);
        let slack = policy.jitter + world.plan.faults.commit_max + world.plan.faults.commit_slow_max;
        let is_unsure = world.process.as_ref().is_some_and(|p| p.is_unsure(quota, limit.window, slack, world.now));
        let is_fresh = is_unsure || (limit.window <= Duration::from_secs(1) && booted_at + length > world.now);
        let used = world.ledger.rows().map(|(call, attempts)| {
            let here = attempts.iter().filter(|attempt| is_here(call, attempt));
            let counted = here.filter(|attempt| may_count(world, call, attempt, limit, length)).count();
            call.cost * u32::try_from(counted).unwrap_or(u32::MAX)
        });
        !is_fresh && used.sum::<u32>() + cost <= limit.count.get()
    };
    is_spaced && policy.limits.iter().all(has_room)
}

fn may_count(world: &World, call: &CallRecord, attempt: &AttemptRecord, limit: &LimitSpec, length: Duration) -> bool {
    let id = AttemptId { call: call.id, number: attempt.number };
    let report = world.facts.reports.get(&id);
    let decided = attempt.ended_at.and_then(|_| world.facts.decided.get(&id)?.ended_at);
    // What another boot proved may have been proved when this one began.
    let earliest =
        if limit.window <= Duration::from_secs(60) { world.clocks.process().certain_since() } else { Instant::MIN };
    let counts_from = decided.map(|at| world.clocks.instant(at).max(earliest));
    // A report that died with its process tells a later one nothing.
    let is_known = decided.is_some() && report.is_some_and(|report| decided == Some(report.steady));
    let sent_nothing = is_known && report.is_some_and(|report| report.what.wrote() == BytesSent::No);
    // Of pruned calls it is kept to ten seconds when they were sent.
    let rounded = if world.ledger.is_pruned(call.id) { Duration::from_secs(10) } else { Duration::ZERO };
    !sent_nothing && counts_from.is_none_or(|at| at + length + rounded > world.now)
}
