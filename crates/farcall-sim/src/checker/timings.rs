//! The times that are told with starts and ends: how long a call waited for its turn, and how long an attempt took.
//!
//! A call waits from when it might have gone on: from its place in its lane, or, where a redirect led it, from then on. Of
//! what an earlier process left either may be unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farcall_core::attempt::AttemptKind;
use farcall_core::call::ErrorKind;
use farcall_core::dispatcher::{AttemptEnd, Progress, Write};
use farcall_core::hop::Heading;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::Instant;
use farcall_store::record::CallRecord;

use super::{Check, ensure};
use crate::facts::Reported;
use crate::world::World;

/// Whose place lies further back than any clock is wrong is in front of all others because farcall left it behind.
const LEFT_BEHIND: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What one process has decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timings {
    /// Since when calls might go on.
    since: BTreeMap<CallId, Instant>,
    /// Redirects led them where they go next: whoever reads one from the store does not know since when it waits.
    hops: BTreeSet<CallId>,
}

impl Timings {
    /// At a start, from what the store holds.
    pub(crate) fn of<'c>(world: &World, live: impl Iterator<Item = &'c CallRecord>) -> Self {
        let mut timings = Self::default();
        for call in live {
            timings.since.extend(call.progress.ready_at.map(|at| (call.id, world.clocks.instant(at))));
            timings.hops.extend(call.hop.as_ref().map(|_| call.id));
        }
        timings
    }

    /// Looks at what one turn tells.
    pub(crate) fn follow(&mut self, world: &World, writes: &[Write]) -> Check {
        for write in writes {
            match *write {
                Write::Insert { call, ready_at: Some(since), .. } | Write::Release { call, ready_at: since } => {
                    self.since.insert(call, since);
                }
                // The hedges' own checker looks at these.
                Write::Start { kind: AttemptKind::Hedge, .. } => {}
                Write::Start { attempt, at, waited, .. } => {
                    let is_hedged = world.facts.hedges.contains_key(&attempt.call);
                    self.check_wait((attempt, is_hedged), at.instant, waited)?;
                }
                Write::Settle { call, attempt, progress, .. } => self.settle(world, call, attempt, progress)?,
                Write::Insert { ready_at: None, .. }
                | Write::Close { .. }
                | Write::Filed { .. }
                | Write::Prune { .. }
                | Write::FreeKey { .. }
                | Write::Mark { .. }
                | Write::Upstream { .. }
                | Write::Open { .. }
                | Write::Grant { .. }
                | Write::GrantEnd { .. }
                | Write::GrantsLeft { .. } => {}
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        world: &World,
        call: CallId,
        attempt: Option<AttemptEnd>,
        progress: Option<Progress>,
    ) -> Check {
        let mut ended_at = Instant::MIN;
        if let Some(end) = attempt {
            let id = AttemptId { call, number: end.number };
            check_took(world, id, &end)?;
            ended_at = reported(world, id, &end).map_or(ended_at, |(at, _)| at);
        }
        let Some(progress) = progress else { return Ok(()) };
        match progress.heading {
            Some(Heading::Hop(_)) => drop(self.hops.insert(call)),
            Some(Heading::Home) => drop(self.hops.remove(&call)),
            None => {}
        }
        match progress.ready_at {
            // A hop has the place that its call had before.
            Some(at) => drop(self.since.insert(call, at.max(ended_at))),
            None => drop(self.since.remove(&call)),
        }
        Ok(())
    }

    fn check_wait(&self, (attempt, is_hedged): (AttemptId, bool), at: Instant, waited: Option<Duration>) -> Check {
        let since = self.since.get(&attempt.call);
        let truly = since.map(|&since| at.since(since)).filter(|&waited| waited < LEFT_BEHIND);
        // A redirect that won is followed once all that lost have reported.
        let went_later = is_hedged && waited <= truly;
        let is_excused = (waited.is_none() || went_later) && self.hops.contains(&attempt.call);
        ensure(waited == truly || is_excused, || {
            format!("{attempt:?} is said to have waited for {waited:?}, and did for {truly:?}")
        })
    }
}

/// When an attempt's end was heard of, and what was; nothing when no executor told it to this process.
fn reported(world: &World, attempt: AttemptId, end: &AttemptEnd) -> Option<(Instant, Reported)> {
    let died = end.error == Some(ErrorKind::Unknown);
    world.facts.reports.get(&attempt).filter(|_| !died).map(|report| (report.at.instant, report.what))
}

fn check_took(world: &World, attempt: AttemptId, end: &AttemptEnd) -> Check {
    let launched_at = world.facts.launches.get(&attempt).map(|launch| launch.at);
    let truly = reported(world, attempt, end).and_then(|(at, what)| match what {
        Reported::Finished(result) => Some(result.latency),
        Reported::Aborted { .. } => launched_at.map(|launched_at| at.since(launched_at)),
    });
    let took = end.took;
    ensure(took == truly, || format!("{attempt:?} is said to have taken {took:?}, and took {truly:?}"))
}
