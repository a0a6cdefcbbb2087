//! One lane: its calls in memory in the order in which they may go on, and where those begin that only the store holds.
//!
//! Every waiting call of the lane whose position lies before the edge is in memory; those from the edge on are counted
//! and stand in the store alone, but for some that the dispatcher must not forget. So memory holds the front of a lane
//! however long it is. Who is let in, and when more is loaded, is decided by the dispatcher.

use std::collections::BTreeMap;

use crate::id::CallId;
use crate::time::Instant;

/// Where a waiting call stands in its lane: from when on it may go on, and its id among those of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub ready_at: Instant,
    pub call: CallId,
}

/// The calls of one lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// May go on; with what each costs.
    ready: BTreeMap<Position, u32>,
    /// Wait for their time.
    asleep: BTreeMap<Position, u32>,
    /// Calls that only the store holds.
    beyond: u64,
    /// No call that only the store holds stands before this. There is one exactly while there are such calls.
    edge: Option<Position>,
    load: Load,
    /// Cost this lane's tenant may still spend in its turn.
    pub(super) deficit: u32,
}

/// Whether calls are on their way from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Load {
    #[default]
    Idle,
    Wanted,
    /// What was left to the store meanwhile may be missing from what is read; this is the first of those.
    UnderWay {
        first_left_out: Option<Position>,
    },
}

/// How a load of a lane came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Nothing from here on may be taken from it.
    pub(super) until: Option<Position>,
}

impl Position {
    /// Before every other.
    pub const FIRST: Self = Self { ready_at: Instant::MIN, call: CallId::from_bits(0) };

    /// Behind every other.
    pub const LAST: Self = Self { ready_at: Instant::from_micros(i64::MAX), call: CallId::from_bits(u128::MAX) };

    /// The next one that any call could have.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { call: CallId::from_bits(self.call.bits().saturating_add(1)), ..self }
    }
}

impl Window {
    /// Calls in memory.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.asleep.len()
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) const fn beyond(&self) -> u64 {
        self.beyond
    }

    pub(super) const fn edge(&self) -> Option<Position> {
        self.edge
    }

    /// Nobody waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.beyond == 0
    }

    pub(super) fn first_ready(&self) -> Option<(Position, u32)> {
        self.ready.first_key_value().map(|(&position, &cost)| (position, cost))
    }

    /// Calls in memory that may go on, in order.
    pub(super) fn ready_calls(&self) -> impl Iterator<Item = (Position, u32)> {
        self.ready.iter().map(|(&position, &cost)| (position, cost))
    }

    /// Calls in memory that sleep and wake before this position.
    pub(super) fn sleepers_before(&self, position: Position) -> impl Iterator<Item = (Position, u32)> {
        self.asleep.range(..position).map(|(&position, &cost)| (position, cost))
    }

    /// The last call in memory.
    pub(super) fn last(&self) -> Option<Position> {
        let last = |calls: &BTreeMap<Position, u32>| calls.last_key_value().map(|(&position, _)| position);
        last(&self.asleep).max(last(&self.ready))
    }

    pub(super) fn put_ready(&mut self, position: Position, cost: u32) {
        self.ready.insert(position, cost);
    }

    pub(super) fn put_asleep(&mut self, position: Position, cost: u32) {
        self.asleep.insert(position, cost);
    }

    /// The time of a sleeper has come; false when it is not here.
    pub(super) fn wake(&mut self, position: Position) -> bool {
        let Some(cost) = self.asleep.remove(&position) else { return false };
        self.ready.insert(position, cost);
        true
    }

    /// Takes a call out of memory; false when it is not there.
    pub(super) fn remove(&mut self, position: Position) -> bool {
        self.ready.remove(&position).or_else(|| self.asleep.remove(&position)).is_some()
    }

    /// Whether a call of this position belongs to the store alone.
    pub(super) fn is_beyond(&self, position: Position) -> bool {
        self.edge.is_some_and(|edge| edge <= position)
    }

    /// Counts calls that only the store holds, none of them before this position.
    pub(super) fn leave_out(&mut self, from: Position, count: u64) {
        self.beyond += count;
        self.edge = Some(self.edge.map_or(from, |edge| edge.min(from)));
        if let Load::UnderWay { first_left_out } = &mut self.load {
            *first_left_out = Some(first_left_out.map_or(from, |first| first.min(from)));
        }
    }

    /// One call less that only the store holds.
    pub(super) fn forget_one_beyond(&mut self) {
        self.beyond -= 1;
        if self.beyond == 0 {
            self.edge = None;
        }
    }

    /// Whether calls should be asked for that nobody has asked for yet.
    pub(super) fn is_low(&self, low: usize) -> bool {
        self.load == Load::Idle && self.beyond > 0 && self.before_edge(low + 1) <= low
    }

    /// Calls in memory before the edge; no more than `most` are counted when some stand behind it.
    fn before_edge(&self, most: usize) -> usize {
        match self.edge {
            Some(edge) if self.last().is_some_and(|last| last >= edge) => {
                let before = |calls: &BTreeMap<Position, u32>| calls.range(..edge).take(most).count();
                before(&self.ready) + before(&self.asleep)
            }
            Some(_) | None => self.len(),
        }
    }

    pub(super) const fn want_load(&mut self) {
        self.load = Load::Wanted;
    }

    /// From where on to load, if calls are wanted still.
    pub(super) fn begin_load(&mut self) -> Option<Position> {
        if self.load != Load::Wanted {
            return None;
        }
        self.load = if self.beyond > 0 { Load::UnderWay { first_left_out: None } } else { Load::Idle };
        self.edge
    }

    /// What may be taken from what was read; nothing when nothing was asked for. `reached` is where reading stopped
    /// before the end of the lane.
    pub(super) fn end_load(&mut self, reached: Option<Position>) -> Option<Span> {
        let Load::UnderWay { first_left_out } = self.load else { return None };
        self.load = Load::Idle;
        let until = [reached, first_left_out].into_iter().flatten().min();
        if self.beyond > 0 {
            // With no end found and nothing left out meanwhile, all that was counted has been read.
            self.edge = until.or(self.edge);
        }
        Some(Span { until })
    }
}
