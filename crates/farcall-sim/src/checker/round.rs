//! One try of a call: its attempt, and those that were added to it. The first success decides, and a redirect that is followed is one;
//! else the last to end. What came after a success has lost.

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::ErrorKind;
use farcall_core::hedge::HedgeDelay;
use farcall_core::id::AttemptId;
use farcall_store::record::{AttemptRecord, CallRecord};

use super::history::{Came, Trail, check_outcome, id, what_came};
use super::terms::CallTerms;
use super::{Check, Violation, ensure, violation};
use crate::facts::{Cut, Reported};
use crate::world::World;
use farcall_core::steady::Steady;

/// What a try came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) came: Came,
    pub(super) at: Steady,
    /// Whose end decided.
    pub(super) decider: AttemptId,
    /// One that did not decide may have arrived, and had no answer.
    pub(super) left_unknown: bool,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    attempt: &'a AttemptRecord,
    came: Came,
    at: Steady,
    nth: u64,
}

/// The attempts of the next try, and those after it.
pub(super) fn split(attempts: &[AttemptRecord]) -> Option<(&[AttemptRecord], &[AttemptRecord])> {
    let (_, others) = attempts.split_first()?;
    let added = others.iter().take_while(|attempt| attempt.kind == AttemptKind::Hedge).count();
    Some(attempts.split_at(1 + added))
}

/// What a try came to; that each of its attempts is stored as it ended; that hedges were in order.
pub(super) fn judge(
    world: &World,
    call: &CallRecord,
    round: &[AttemptRecord],
    (terms, trail): (&CallTerms<'_>, &Trail),
) -> Result<Round, Violation> {
    check_hedges(world, call, round, (terms, trail))?;
    let end = |attempt| -> Result<End<'_>, Violation> {
        let (came, at) = what_came(world, call, attempt, (terms, trail))?;
        Ok(End { attempt, came, at, nth: nth_end(world, id(call, attempt), attempt) })
    };
    let mut ends = round.iter().map(end).collect::<Result<Vec<_>, _>>()?;
    ends.sort_by_key(|end| end.nth);
    let winner = ends.iter().position(|end| matches!(end.came, Came::Success | Came::Redirected(..)));
    for (place, end) in ends.iter_mut().enumerate() {
        let id = id(call, end.attempt);
        let has_lost = winner.is_some_and(|winner| place > winner) && !has_died(end.attempt);
        let may_be_lost = has_lost && cut_of(world, id).is_none_or(|cut| cut == Cut::Lost);
        if may_be_lost && end.attempt.outcome == AttemptOutcome::Cancelled {
            end.came = Came::Lost;
        }
        check_outcome(end.attempt, end.came).map_err(|found| violation(format!("{id:?}: {found}")))?;
    }
    let died = || ends.iter().position(|end| has_died(end.attempt));
    let decider = winner.or_else(died).unwrap_or(ends.len() - 1);
    let is_unknown = |end: &End<'_>| matches!(end.came, Came::Unknown | Came::Interrupted);
    let left_unknown = ends.iter().enumerate().any(|(place, end)| place != decider && is_unknown(end));
    let End { came, at, attempt, .. } = ends[decider];
    Ok(Round { came, at, decider: id(call, attempt), left_unknown })
}

/// Each was added in its time, where it may be, and no more of them than that.
fn check_hedges(
    world: &World,
    call: &CallRecord,
    round: &[AttemptRecord],
    (terms, trail): (&CallTerms<'_>, &Trail),
) -> Check {
    let (head, added) = round.split_first().expect("a try has an attempt");
    for attempt in added {
        let id = id(call, attempt);
        trail.check(world, id, attempt, AttemptKind::Hedge)?;
        let Some(hedge) = terms.hedge(trail.method) else {
            return ensure(false, || format!("{id:?} is a hedge of a {}", trail.method));
        };
        ensure(added.len() <= hedge.extra as usize, || format!("{} has {} hedges", call.id, added.len()))?;
        let launched_at = world.facts.launches.get(&self::id(call, head)).map(|launch| launch.at);
        let granted_at = world.facts.decided.get(&id).map(|decided| decided.granted_at);
        let delay = match hedge.after {
            HedgeDelay::Fixed(delay) if !hedge.on_failure => delay,
            HedgeDelay::Fixed(_) | HedgeDelay::Learned(_) => std::time::Duration::ZERO,
        };
        let is_in_time = launched_at.zip(granted_at).is_some_and(|(from, at)| at >= from + delay);
        ensure(is_in_time, || format!("{id:?} was added at {granted_at:?}, {launched_at:?} and {delay:?} are before"))?;
    }
    Ok(())
}

/// Which end of all it was.
fn nth_end(world: &World, attempt: AttemptId, stored: &AttemptRecord) -> u64 {
    // A report that died with its process tells nothing.
    let reported = world.facts.reports.get(&attempt).filter(|_| !has_died(stored)).map(|report| report.nth_end);
    let decided = || world.facts.decided.get(&attempt).map(|decided| decided.nth_end);
    reported.or_else(decided).unwrap_or(u64::MAX)
}

fn cut_of(world: &World, attempt: AttemptId) -> Option<Cut> {
    match world.facts.reports.get(&attempt)?.what {
        Reported::Aborted { cut, .. } => Some(cut),
        Reported::Finished(_) => None,
    }
}

pub(super) fn has_died(attempt: &AttemptRecord) -> bool {
    attempt.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Unknown)
}
