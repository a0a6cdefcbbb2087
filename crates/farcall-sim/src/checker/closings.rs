//! Upstreams that ask everybody to keep away: nothing starts there until then, whoever was told.
//!
//! What an attempt that had lost was told counts, too.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::id::AttemptId;

use super::history::{Came, after, of_result};
use super::terms::terms;
use super::{Check, violation};
use crate::facts::{Closing, Facts, Launch, Reported};
use crate::plan::Plan;
use crate::world::World;

/// The closing that a report means, if it means one.
pub(crate) fn closing(plan: &Plan, facts: &Facts, attempt: AttemptId, what: Reported) -> Option<Closing> {
    let Reported::Finished(result) = what else { return None };
    let terms = terms(plan, facts, attempt.call);
    let Came::Throttled(wait) = of_result(&result, (&terms, "", 0)) else { return None };
    let (at, quota) = (facts.reports.get(&attempt)?.steady, super::quota_of(plan, facts, attempt));
    Some(Closing { quota, attempt, at, until: after(at, wait.min(terms.retry.retry_after_max)) })
}

/// Nothing starts at an upstream that has asked everybody to wait, from the moment we knew until it ends.
pub(super) fn check(world: &World) -> Check {
    for (&attempt, launch) in &world.facts.launches {
        let quota = super::quota_of(&world.plan, &world.facts, attempt);
        let Some(stored) = world.ledger.attempt(attempt) else { continue };
        let started_at = stored.granted_at;
        let is_inside =
            |closing: &&Closing| closing.quota == quota && closing.at < started_at && started_at < closing.until;
        let mut known =
            world.facts.closings.iter().filter(is_inside).filter(|closing| is_known(world, closing, launch));
        if let Some(closing) = known.next() {
            return Err(violation(format!("{attempt:?} started while its upstream was closed: {closing:?}")));
        }
    }
    Ok(())
}

/// A later start knows of every closing whose answer was stored.
fn is_known(world: &World, closing: &Closing, launch: &Launch) -> bool {
    let boot = world.facts.launches.get(&closing.attempt).map(|closed| closed.boot);
    let is_stored =
        world.ledger.attempt(closing.attempt).is_some_and(|stored| stored.outcome == AttemptOutcome::Throttled);
    boot == Some(launch.boot) || is_stored
}
