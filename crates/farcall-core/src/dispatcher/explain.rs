//! Why one call waits, what goes before it, and when it will start if nothing changes.
//!
//! Answers for people; nothing is decided by them. The order is the lanes' own, walked ahead. The estimate takes every
//! call in front to start as soon as limits and concurrency let it, and attempts to take as long as they did of late; calls
//! that come later, wake later or fail are not foreseen.

use std::time::Duration;

use super::entry::Place;
use super::storage::Storage;
use super::upstream::LineId;
use super::{Dispatcher, Standing};
use crate::call::{Durability, State, UpstreamId};
use crate::id::CallId;
use crate::lane::{Ahead, Asked, LaneId, POSITIONS_MAX, Position, StoredLane};
use crate::time::{Instant, Now};

/// What is known of why a call does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub standing: Standing,
    /// Where it goes next.
    pub upstream: UpstreamId,
    /// It waits in a lane, or for its time there: who goes before it.
    pub ahead: Option<Ahead>,
    /// When it starts, as far as can be told.
    pub starts_at: Option<Instant>,
    /// What holds up every call of this engine, if anything does.
    pub held: Option<Held>,
}

/// What holds up every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is to stop.
    Draining,
    /// The last commit failed.
    Storage,
}

/// A waiting call that only the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPlace {
    pub upstream: UpstreamId,
    pub lane: LaneId,
    pub position: Position,
    pub cost: u32,
    pub state: State,
}

impl Dispatcher {
    /// Why a call in memory does not start, or nothing when it is not there. `stored` is what was found in the store of
    /// lanes that an earlier answer named; `latency` how long attempts there take.
    pub fn explain(&mut self, now: Now, call: CallId, stored: &[StoredLane], latency: Duration) -> Option<Explanation> {
        let standing = self.standing(call)?;
        let entry = &self.calls[&call];
        let line = entry.line();
        let asked = Asked { lane: entry.lane(), position: entry.position(), cost: entry.spec.cost.get() };
        let waits = matches!(entry.place, Place::Lane | Place::Asleep { .. });
        Some(self.explained(now, (standing, line), waits.then_some(asked), stored, latency))
    }

    /// The same of a call that only the store holds.
    pub fn explain_stored(
        &mut self,
        now: Now,
        place: StoredPlace,
        stored: &[StoredLane],
        latency: Duration,
    ) -> Explanation {
        let StoredPlace { upstream, lane, position, cost, state } = place;
        let standing = self.stored_standing(now, upstream, state, position.ready_at);
        let line = LineId { upstream, durability: Durability::Durable };
        self.explained(now, (standing, line), Some(Asked { lane, position, cost }), stored, latency)
    }

    fn explained(
        &mut self,
        now: Now,
        (standing, line): (Standing, LineId),
        asked: Option<Asked>,
        stored: &[StoredLane],
        latency: Duration,
    ) -> Explanation {
        let held = match self.storage {
            _ if self.draining => Some(Held::Draining),
            Storage::Waits { .. } => Some(Held::Storage),
            Storage::Works | Storage::Tries { .. } => None,
        };
        let ahead = asked.map(|asked| self.ahead(line, asked, stored, now.instant));
        let known = asked.zip(ahead.as_ref()).filter(|(_, ahead)| ahead.is_exact && held.is_none());
        let starts_at = known.and_then(|(asked, ahead)| self.starts_at(now.instant, line, asked, ahead, latency));
        Explanation { standing, upstream: line.upstream, ahead, starts_at, held }
    }

    /// Who goes before a call at its quota: of its own line, and of those that take turns with that.
    fn ahead(&self, id: LineId, asked: Asked, stored: &[StoredLane], now: Instant) -> Ahead {
        let upstream = &self.upstreams[id.upstream.0 as usize];
        let quota = &self.quotas[upstream.quota.0 as usize];
        let mut ahead = upstream.line(id.durability).lanes.ahead(asked, stored, now);
        let own = quota.turns.iter().position(|&turn| turn == id).unwrap_or(quota.turns.len());
        for (place, turn) in quota.turns.iter().enumerate().filter(|(_, turn)| **turn != id) {
            let turns = ahead.calls + usize::from(place < own);
            let waiting =
                usize::try_from(self.upstreams[turn.upstream.0 as usize].line(turn.durability).lanes.waiting())
                    .unwrap_or(usize::MAX);
            let before = waiting.min(turns);
            ahead.calls += before;
            ahead.cost += before as u64;
        }
        if ahead.calls >= POSITIONS_MAX {
            (ahead.calls, ahead.is_exact) = (POSITIONS_MAX, false);
        }
        ahead
    }

    fn starts_at(
        &mut self,
        now: Instant,
        id: LineId,
        asked: Asked,
        ahead: &Ahead,
        latency: Duration,
    ) -> Option<Instant> {
        let upstream = &self.upstreams[id.upstream.0 as usize];
        let quota = &mut self.quotas[upstream.quota.0 as usize];
        if upstream.is_withdrawn || quota.is_paused {
            return None;
        }
        let open_until = quota.breaker.as_ref().and_then(|breaker| breaker.open_until(now));
        let begins = quota.closed_until.into_iter().chain(open_until).fold(now, Instant::max);
        let cost = ahead.cost + u64::from(quota.limits.cap(asked.cost));
        let by_limits = quota.limits.forecast(begins, cost, latency);
        let in_flight = upstream.line(id.durability).in_flight;
        let by_slots = begins + wait_for_slot(upstream.concurrency(id.durability), in_flight, ahead.calls, latency);
        Some(by_limits.max(by_slots).max(asked.position.ready_at))
    }
}

/// How long it takes until the last of so many calls finds room, when attempts take `latency` each.
fn wait_for_slot(concurrency: u32, in_flight: u32, ahead: usize, latency: Duration) -> Duration {
    let concurrency = concurrency.max(1);
    let calls = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(in_flight);
    latency.saturating_mul(calls / concurrency)
}
