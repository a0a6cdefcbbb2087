//! Who goes before a call, if nothing comes and nothing goes: the order of the lanes, walked without touching them.
//!
//! For people who ask why a call waits; nothing is decided by it. What only the store holds is told by whoever asks: a
//! lane of which that is wanted is named, and what is known of it counts until then.

use std::collections::{HashMap, VecDeque};

use super::{LOWER_PRIORITY_EVERY, LaneId, Lanes, Position, index, priority};
use crate::call::{Priority, TenantId};
use crate::time::Instant;

/// Positions up to this are counted exactly.
pub const POSITIONS_MAX: usize = 1_000;

/// A call of which somebody asks who goes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub lane: LaneId,
    pub position: Position,
    pub cost: u32,
}

/// Calls of a lane that only the store holds, in the order of their positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLane {
    pub lane: LaneId,
    pub calls: Vec<(Position, u32)>,
    /// There may be more behind them.
    pub is_cut: bool,
}

/// Who goes before a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ahead {
    /// So many, and what they cost in all; no more than [`POSITIONS_MAX`] are counted.
    pub calls: usize,
    pub cost: u64,
    /// There are just so many.
    pub is_exact: bool,
    /// Lanes of which the store has to be asked to know it, from there on.
    pub missing: Vec<(LaneId, Position)>,
}

/// What is left of the lanes during the walk.
struct Walk {
    levels: [Level; Priority::LEVELS],
    since_lower: u32,
    last_lower: usize,
    missing: Vec<(LaneId, Position)>,
}

#[derive(Default)]
struct Level {
    turns: VecDeque<TenantId>,
    lanes: HashMap<TenantId, Line>,
}

/// The known calls of a lane, in order.
struct Line {
    calls: VecDeque<(Position, u32)>,
    deficit: u32,
    /// More follow from there on that are not known.
    unknown_from: Option<Position>,
}

impl Lanes {
    /// Who goes before a call that waits here, or would if its time had come.
    pub fn ahead(&self, asked: Asked, stored: &[StoredLane], now: Instant) -> Ahead {
        let mut walk = Walk::of(self, asked, stored, now);
        let mut ahead = Ahead::default();
        while ahead.calls < POSITIONS_MAX {
            let Some((position, cost)) = walk.take() else { break };
            if position.call == asked.position.call {
                ahead.is_exact = walk.missing.is_empty();
                break;
            }
            ahead.calls += 1;
            ahead.cost += u64::from(cost);
        }
        ahead.missing = walk.missing;
        ahead
    }

    /// Calls that wait and may go on, in memory and beyond.
    pub fn waiting(&self) -> u64 {
        u64::try_from(self.ready()).unwrap_or(u64::MAX).saturating_add(self.beyond())
    }
}

impl Walk {
    fn of(lanes: &Lanes, asked: Asked, stored: &[StoredLane], now: Instant) -> Self {
        let mut levels: [Level; Priority::LEVELS] = Default::default();
        for (place, level) in levels.iter_mut().enumerate() {
            let tenants = &lanes.priorities[place];
            level.turns = tenants.turns.clone();
            for &tenant in tenants.lanes.keys() {
                let lane = LaneId { priority: priority(place), tenant };
                let own = (asked.lane == lane).then_some(asked);
                let line = Line::of(lanes, lane, own, stored.iter().find(|stored| stored.lane == lane), now);
                if line.has_any(now) {
                    level.lanes.insert(tenant, line);
                }
            }
            let mut others: Vec<TenantId> = level.lanes.keys().copied().collect();
            others.sort_unstable();
            others.retain(|tenant| !level.turns.contains(tenant));
            level.turns.extend(others);
            let lanes = &level.lanes;
            level.turns.retain(|tenant| lanes.contains_key(tenant));
        }
        Self { levels, since_lower: lanes.since_lower, last_lower: lanes.last_lower, missing: Vec::new() }
    }

    /// The next call, as `Lanes::take` would choose it.
    fn take(&mut self) -> Option<(Position, u32)> {
        loop {
            let place = self.next_level()?;
            let Some(taken) = self.levels[place].take() else { continue };
            match taken {
                Taken::Call(position, cost) => {
                    if self.levels[..place].iter().any(|level| !level.turns.is_empty()) {
                        (self.since_lower, self.last_lower) = (0, place);
                    } else {
                        self.since_lower = self.since_lower.saturating_add(1);
                    }
                    return Some((position, cost));
                }
                Taken::Unknown(tenant, from) => {
                    self.missing.push((LaneId { priority: priority(place), tenant }, from));
                }
            }
        }
    }

    fn next_level(&self) -> Option<usize> {
        let waits = |place: &usize| !self.levels[*place].turns.is_empty();
        let highest = (0..Priority::LEVELS).find(waits)?;
        if self.since_lower < LOWER_PRIORITY_EVERY - 1 {
            return Some(highest);
        }
        let mut lower = (highest + 1..Priority::LEVELS).filter(waits);
        let first = lower.clone().next();
        Some(lower.find(|&place| place > self.last_lower).or(first).unwrap_or(highest))
    }
}

enum Taken {
    Call(Position, u32),
    /// What comes next in this lane is not known, from there on.
    Unknown(TenantId, Position),
}

impl Level {
    /// Deficit round robin, as in the lanes themselves. Nothing when the tenant whose turn it is has no call more.
    fn take(&mut self) -> Option<Taken> {
        loop {
            let &tenant = self.turns.front()?;
            let is_alone = self.turns.len() == 1;
            let line = self.lanes.get_mut(&tenant)?;
            let Some(&(position, cost)) = line.calls.front() else {
                self.turns.pop_front();
                return line.unknown_from.map(|from| Taken::Unknown(tenant, from));
            };
            let takes = is_alone || line.deficit >= cost || {
                line.deficit += 1;
                line.deficit >= cost
            };
            if !takes {
                self.turns.rotate_left(1);
                continue;
            }
            line.calls.pop_front();
            line.deficit = line.deficit.saturating_sub(cost);
            self.turns.pop_front();
            if !line.calls.is_empty() || line.unknown_from.is_some() {
                self.turns.push_back(tenant);
            }
            return Some(Taken::Call(position, cost));
        }
    }
}

impl Line {
    /// `own` is the call that is asked for, when it belongs to this lane.
    fn of(lanes: &Lanes, lane: LaneId, own: Option<Asked>, stored: Option<&StoredLane>, now: Instant) -> Self {
        let window = &lanes.priorities[index(lane.priority)].lanes[&lane.tenant];
        let mut calls: Vec<(Position, u32)> = window.ready_calls().take(POSITIONS_MAX + 1).collect();
        // Whoever sleeps in front of it wakes before it.
        calls.extend(own.into_iter().flat_map(|own| window.sleepers_before(own.position)));
        calls.extend(own.map(|own| (own.position, own.cost)));
        let mut unknown_from = window.edge();
        if let Some(stored) = stored {
            let last = own.map_or(now, |own| own.position.ready_at.max(now));
            calls.extend(stored.calls.iter().filter(|(position, _)| position.ready_at <= last));
            unknown_from = stored.calls.last().filter(|_| stored.is_cut).map(|(position, _)| position.next());
        }
        calls.sort_unstable_by_key(|&(position, _)| position);
        calls.dedup_by_key(|&mut (position, _)| position.call);
        if let Some(from) = unknown_from {
            calls.retain(|&(position, _)| position < from);
        }
        Self { calls: calls.into(), deficit: window.deficit, unknown_from }
    }

    /// Whether anything of it may go on, as far as is known.
    fn has_any(&self, now: Instant) -> bool {
        !self.calls.is_empty() || self.unknown_from.is_some_and(|from| from.ready_at <= now)
    }
}
