//! Breakers, by what they told and what truly happened: nothing starts while one is open, then one probe at a time and
//! never two within one `open`; it opens for a reason and not without one, and a probe decides.
//!
//! When it turned is what the engine told; whether it should have is worked out anew, with the window as exact as a
//! tenth of it. Moments at which several things happen are left open: either may have been first.

use std::time::Duration;

use farcall_core::attempt::{AttemptKind, AttemptOutcome, BytesSent};
use farcall_core::breaker::BreakerPolicy;
use farcall_core::call::ErrorKind;
use farcall_core::id::AttemptId;
use farcall_core::time::Instant;
use farcall_store::record::AttemptRecord;

use super::{Check, ensure, quota_of, terms, violation};
use crate::engine::Process;
use crate::facts::{BreakerTurn, Cut, Reported, Turned};
use crate::world::World;

/// An attempt, as far as a breaker is concerned.
struct Try {
    id: AttemptId,
    granted_at: Instant,
    /// When its report was heard, and whether it says that the upstream fails, if it says anything.
    ended: Option<(Instant, Option<bool>)>,
    was_launched: bool,
    may_have_sent: bool,
}

/// A time between two turns of one breaker, within one start of the process.
struct Phase {
    from: Instant,
    until: Option<(Instant, Turned)>,
    is_open: bool,
}

pub(super) fn check(world: &World) -> Check {
    for (quota, upstream) in world.plan.upstreams.iter().enumerate() {
        let Some(policy) = upstream.policy.breaker.filter(|_| world.plan.quota(quota) == quota) else { continue };
        for boot in 0..world.facts.boots.len() {
            let tries = tries(world, quota, boot);
            for phase in phases(world, quota, boot) {
                let found = match phase.is_open {
                    true => check_open(world, policy, &phase, &tries),
                    false => check_closed(policy, &phase, &tries),
                };
                found.map_err(|found| violation(format!("breaker of upstream {quota}, start {boot}: {found}")))?;
            }
        }
    }
    Ok(())
}

/// Whether an attempt may have been the probe of a breaker.
pub(super) fn may_be_probe(world: &World, id: AttemptId, granted_at: Instant) -> bool {
    let quota = quota_of(&world.plan, &world.facts, id);
    let boot = boot_of(world, id, granted_at);
    let is_before = |turn: &&BreakerTurn| (turn.quota, turn.boot) == (quota, boot) && turn.at <= granted_at;
    let mut turns = world.facts.breaker_turns.iter().rev().filter(is_before);
    turns.next().is_some_and(|last| last.what == Turned::Opened || last.at == granted_at)
}

/// Whether its breaker may keep an upstream waiting now.
pub(super) fn may_hold(world: &World, process: &Process, quota: usize) -> bool {
    let Some(policy) = world.plan.upstreams[quota].policy.breaker else { return false };
    let is_here = |turn: &&BreakerTurn| (turn.quota, turn.boot) == (quota, process.boot);
    let Some(last) = world.facts.breaker_turns.iter().rev().find(is_here) else { return false };
    let is_recent = |at: Instant| at + policy.open > world.now;
    let is_out = || process.out.values().any(|id| world.plan.quota(id.0 as usize) == quota);
    let probed = || tries(world, quota, process.boot).iter().any(|probe| is_recent(probe.granted_at));
    last.what == Turned::Opened && (is_recent(last.at) || is_out() || probed())
}

fn boot_of(world: &World, id: AttemptId, granted_at: Instant) -> usize {
    let by_time = || world.facts.boots.iter().rposition(|&at| at <= granted_at).unwrap_or_default();
    world.facts.launches.get(&id).map_or_else(by_time, |launch| launch.boot)
}

/// By the time of their starts.
fn tries(world: &World, quota: usize, boot: usize) -> Vec<Try> {
    let here = world.facts.decided.iter().filter(|(id, decided)| {
        world.plan.quota(decided.place) == quota && boot_of(world, **id, decided.granted_at) == boot
    });
    let mut tries: Vec<Try> = here
        .map(|(&id, decided)| {
            let launch = world.facts.launches.get(&id);
            let report = world.facts.reports.get(&id).filter(|_| launch.is_some());
            Try {
                id,
                granted_at: decided.granted_at,
                ended: report.map(|report| (report.at.instant, fails(world, id, report.what))),
                was_launched: launch.is_some(),
                may_have_sent: report.is_none_or(|report| report.what.wrote() != BytesSent::No),
            }
        })
        .collect();
    tries.sort_by_key(|one| (one.granted_at, one.id));
    tries
}

fn phases(world: &World, quota: usize, boot: usize) -> Vec<Phase> {
    let turns = world.facts.breaker_turns.iter().filter(|turn| (turn.quota, turn.boot) == (quota, boot));
    let mut phases = vec![Phase { from: world.facts.boots[boot], until: None, is_open: false }];
    for turn in turns {
        if let Some(last) = phases.last_mut() {
            last.until = Some((turn.at, turn.what));
        }
        phases.push(Phase { from: turn.at, until: None, is_open: turn.what == Turned::Opened });
    }
    phases
}

/// Whether an end says that the upstream fails; nothing when it says nothing, as those of hedges and of attempts that lost.
fn fails(world: &World, id: AttemptId, what: Reported) -> Option<bool> {
    let is_hedge_or_lost =
        |stored: &AttemptRecord| stored.kind == AttemptKind::Hedge || stored.outcome == AttemptOutcome::Cancelled;
    if world.ledger.attempt(id).is_some_and(is_hedge_or_lost) {
        return None;
    }
    let result = match what {
        Reported::Aborted { cut: Cut::Timeout, .. } => return Some(true),
        Reported::Aborted { .. } => return None,
        Reported::Finished(result) => result,
    };
    let by_status = || {
        let success = terms(&world.plan, &world.facts, id.call).success;
        result.status.is_some_and(|status| status >= 500 && !success.contains(status))
    };
    match result.error {
        None | Some(ErrorKind::TooLarge | ErrorKind::Decode) => Some(by_status()),
        Some(ErrorKind::Connect | ErrorKind::Reset | ErrorKind::Truncated | ErrorKind::Protocol) => Some(true),
        Some(ErrorKind::Internal) => None,
        Some(other) => unreachable!("no course ends with {other}"),
    }
}

/// Nothing for a while, then one probe after the other, and the first that says anything decides.
fn check_open(world: &World, policy: BreakerPolicy, phase: &Phase, tries: &[Try]) -> Check {
    let until = phase.until.map(|(at, _)| at);
    let is_inside = |one: &&Try| phase.from < one.granted_at && until.is_none_or(|until| one.granted_at < until);
    let mut before: Option<&Try> = None;
    for probe in tries.iter().filter(is_inside) {
        let is_time = phase.from + policy.open <= probe.granted_at;
        ensure(is_time, || format!("{:?} started while it was open", probe.id))?;
        let kind = world.ledger.attempt(probe.id).map(|stored| stored.kind);
        ensure(kind.is_none_or(|kind| kind == AttemptKind::Probe), || format!("{:?} is no probe", probe.id))?;
        if let Some(before) = before.filter(|before| before.was_launched) {
            check_next(policy, before, probe)?;
        }
        before = Some(probe);
    }
    let decides = |fails: bool| {
        let ends = tries.iter().filter(|one| phase.from < one.granted_at).filter_map(|one| one.ended);
        until.is_some_and(|until| ends.into_iter().any(|(at, said)| at == until && said == Some(fails)))
    };
    match phase.until {
        Some((at, Turned::Closed)) => ensure(decides(false), || format!("it closed at {at:?}, and no probe worked")),
        Some((at, Turned::Opened)) => {
            ensure(decides(true), || format!("it opened anew at {at:?}, and no probe failed"))
        }
        Some((_, Turned::ByHand)) | None => Ok(()),
    }
}

fn check_next(policy: BreakerPolicy, before: &Try, probe: &Try) -> Check {
    let Some((ended_at, said)) = before.ended.filter(|(at, _)| *at <= probe.granted_at) else {
        return Err(violation(format!("{:?} started beside the probe {:?}", probe.id, before.id)));
    };
    ensure(said.is_none() || ended_at == probe.granted_at, || format!("the probe {:?} decided nothing", before.id))?;
    let is_apart = !before.may_have_sent || before.granted_at + policy.open <= probe.granted_at;
    ensure(is_apart, || format!("{:?} came too soon after the probe {:?}", probe.id, before.id))
}

/// It opens when it must, and not before it may.
fn check_closed(policy: BreakerPolicy, phase: &Phase, tries: &[Try]) -> Check {
    let until = phase.until.map(|(at, _)| at);
    let mut ends: Vec<(Instant, Instant, bool)> = tries
        .iter()
        .filter(|one| phase.from <= one.granted_at)
        .filter_map(|one| one.ended.and_then(|(at, said)| Some((at, one.granted_at, said?))))
        .filter(|(at, _, _)| until.is_none_or(|until| *at <= until))
        .collect();
    ends.sort_unstable();
    if let Some((at, Turned::Opened)) = phase.until {
        ensure(may_open(policy, at, &ends), || format!("it opened at {at:?} without a reason: {policy:?} {ends:?}"))?;
    }
    let nine_tenths = policy.window * 9 / 10;
    for (place, &(at, _, _)) in ends.iter().enumerate() {
        let recent = || ends[..=place].iter().filter(|(other, _, _)| at.since(*other) < policy.window);
        let sure = recent().filter(|(other, granted, _)| at.since(*other) < nine_tenths && *granted > phase.from);
        let must_open = sure.count() >= policy.calls.get() as usize && recent().all(|(_, _, fails)| *fails);
        ensure(!must_open || until == Some(at), || format!("it stays closed at {at:?}: {ends:?}"))?;
    }
    Ok(())
}

/// Whether some window, of its length or up to a tenth shorter, has enough ends and enough failures among them.
fn may_open(policy: BreakerPolicy, at: Instant, ends: &[(Instant, Instant, bool)]) -> bool {
    let ends: Vec<(Instant, bool)> = ends.iter().map(|&(end, _, fails)| (end, fails)).collect();
    let recent: Vec<_> = ends.iter().filter(|(end, _)| at.since(*end) <= policy.window).collect();
    // Of those at the last moment the ones that work may have come after it.
    let last = recent.iter().filter(|(end, fails)| *end == at && !fails).count();
    let a_tenth = |end: Instant| at.since(end) + Duration::from_micros(10) >= policy.window * 9 / 10;
    let droppable = recent.iter().filter(|(end, _)| a_tenth(*end)).count();
    let is_enough = |dropped: usize, late: usize| {
        let failures = recent[dropped..].iter().filter(|(_, fails)| *fails).count() as u64;
        let all = (recent.len() - dropped - late) as u64;
        all >= u64::from(policy.calls.get()) && failures > 0 && failures * 10_000 >= share_of(policy) * all
    };
    (0..=droppable).any(|dropped| (0..=last.min(recent.len() - dropped)).any(|late| is_enough(dropped, late)))
}

/// In hundredths of a percent.
fn share_of(policy: BreakerPolicy) -> u64 {
    policy.failures.of(10_000)
}
