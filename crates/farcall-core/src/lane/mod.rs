//! The calls that wait at one upstream, and who goes next.
//!
//! A lane is a priority and a tenant; within a lane the oldest goes first. Priorities are strict but for one grant in
//! twenty, which goes to a lower one; tenants of one priority take turns by deficit round robin, counted in cost
//! (Shreedhar and Varghese 1995). The order is decided before the limits are asked: a call that needs more slots than
//! are free is waited for and not overtaken in its upstream, or it might never start. Memory holds the front of each
//! lane only (`window`); a lane whose next calls are still on their way from the store is passed over until they come.

mod order;
mod window;

use std::collections::{BTreeMap, VecDeque};

use crate::call::{Priority, TenantId};
use crate::id::CallId;

pub use order::{Ahead, Asked, POSITIONS_MAX, StoredLane};
pub use window::Position;
use window::{Span, Window};

/// One grant in this many goes to a lower priority, when one waits.
const LOWER_PRIORITY_EVERY: u32 = 20;

/// Which lane of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    pub priority: Priority,
    pub tenant: TenantId,
}

/// A call whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub lane: LaneId,
    pub call: CallId,
    pub cost: u32,
}

/// What lanes hold that only the store knows in detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    pub lane: LaneId,
    pub count: u64,
    /// None of them may go on before this.
    pub edge: Position,
}

/// All lanes of one upstream.
#[derive(Debug, Clone, Default)]
pub struct Lanes {
    priorities: [Tenants; Priority::LEVELS],
    /// Calls in memory that may go on, over all lanes.
    ready: usize,
    /// Calls that only the store holds, over all lanes.
    beyond: u64,
    /// Grants since a lower priority had its turn.
    since_lower: u32,
    /// Where the last turn of a lower priority was.
    last_lower: usize,
}

#[derive(Debug, Clone, Default)]
struct Tenants {
    /// Tenants with calls that may go on, the one whose turn it is in front.
    turns: VecDeque<TenantId>,
    /// In order, so that a few are found at once and whoever chooses names of tenants cannot make it slow.
    /// Boxed: most upstreams have one lane, and a map makes room for eleven.
    lanes: BTreeMap<TenantId, Box<Window>>,
}

impl Lanes {
    /// Puts a call that may go on into its lane.
    pub fn put_ready(&mut self, lane: LaneId, position: Position, cost: u32) {
        self.tenants(lane).put_ready(lane.tenant, position, cost);
        self.ready += 1;
    }

    /// Puts a call into its lane that waits for its time.
    pub fn put_asleep(&mut self, lane: LaneId, position: Position, cost: u32) {
        self.window(lane).put_asleep(position, cost);
    }

    /// The time of a sleeper has come.
    pub fn wake(&mut self, lane: LaneId, position: Position) {
        if self.tenants(lane).wake(lane.tenant, position) {
            self.ready += 1;
        }
    }

    /// A call that was taken goes back: its tenant has not spent that cost.
    pub fn give_back(&mut self, lane: LaneId, cost: u32) {
        let window = self.window(lane);
        window.deficit = window.deficit.saturating_add(cost);
    }

    /// The call whose turn it is; the answer stays the same until it is taken or removed.
    pub fn peek(&mut self) -> Option<Waiting> {
        let level = self.next_level()?;
        let (tenant, position, cost) = self.priorities[level].peek()?;
        let lane = LaneId { priority: priority(level), tenant };
        Some(Waiting { lane, call: position.call, cost })
    }

    /// Takes the call that [`Lanes::peek`] named.
    pub fn take(&mut self) -> Option<Waiting> {
        let waiting = self.peek()?;
        let level = index(waiting.lane.priority);
        let is_lower = self.priorities[..level].iter().any(|tenants| !tenants.turns.is_empty());
        if is_lower {
            self.since_lower = 0;
            self.last_lower = level;
        } else {
            self.since_lower = self.since_lower.saturating_add(1);
        }
        self.ready -= 1;
        self.priorities[level].take();
        Some(waiting)
    }

    /// Removes a call wherever it stands in memory; false when it is not there.
    pub fn remove(&mut self, lane: LaneId, position: Position) -> bool {
        let tenants = self.tenants(lane);
        let before = tenants.ready(lane.tenant);
        let is_removed = tenants.remove(lane.tenant, position);
        let after = tenants.ready(lane.tenant);
        self.ready -= before - after;
        is_removed
    }

    /// Those of one lane that may go on and are in memory, in order, with what each costs.
    pub fn ready_in(&self, lane: LaneId) -> impl Iterator<Item = (Position, u32)> {
        self.known(lane).into_iter().flat_map(Window::ready_calls)
    }

    /// How many of one lane may go on and are in memory.
    pub fn ready_of(&self, lane: LaneId) -> usize {
        self.known(lane).map_or(0, Window::ready)
    }

    /// Calls in memory that may go on.
    pub const fn ready(&self) -> usize {
        self.ready
    }

    /// Calls that only the store holds.
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Nobody waits here, neither in memory nor in the store alone.
    pub fn is_vacant(&self) -> bool {
        self.priorities.iter().all(|tenants| tenants.lanes.is_empty())
    }

    /// Calls of a lane in memory.
    pub fn loaded(&self, lane: LaneId) -> usize {
        self.known(lane).map_or(0, Window::len)
    }

    /// The last call of a lane in memory.
    pub fn last(&self, lane: LaneId) -> Option<Position> {
        self.known(lane)?.last()
    }

    /// Whether a call of this position belongs to the store alone.
    pub fn is_beyond(&self, lane: LaneId, position: Position) -> bool {
        self.known(lane).is_some_and(|window| window.is_beyond(position))
    }

    /// Counts calls that only the store holds, none of them before this position.
    pub fn leave_out(&mut self, lane: LaneId, from: Position, count: u64) {
        self.beyond += count;
        self.window(lane).leave_out(from, count);
    }

    /// A call that only the store held is in memory from now on, or has ended.
    pub fn forget_one_beyond(&mut self, lane: LaneId) {
        self.beyond -= 1;
        self.window(lane).forget_one_beyond();
        self.tenants(lane).tidy(lane.tenant);
    }

    /// The store alone holds no call of this lane, whatever was counted.
    pub fn forget_all_beyond(&mut self, lane: LaneId) {
        while self.known(lane).is_some_and(|window| window.beyond() > 0) {
            self.forget_one_beyond(lane);
        }
    }

    /// Lanes of which the store alone holds calls.
    pub fn stored(&self) -> impl Iterator<Item = Beyond> {
        (0..Priority::LEVELS).flat_map(|level| {
            self.priorities[level].lanes.iter().filter_map(move |(&tenant, window)| {
                let lane = LaneId { priority: priority(level), tenant };
                Some(Beyond { lane, count: window.beyond(), edge: window.edge()? })
            })
        })
    }

    /// Notes that more of a lane is wanted, when no more than `low` of it are in memory; false when that is noted
    /// already, or nothing is beyond.
    pub fn want_if_low(&mut self, lane: LaneId, low: usize) -> bool {
        let Some(window) = self.priorities[index(lane.priority)].lanes.get_mut(&lane.tenant) else { return false };
        let is_low = window.is_low(low);
        if is_low {
            window.want_load();
        }
        is_low
    }

    /// From where on to load a lane, if that is wanted still.
    pub fn begin_load(&mut self, lane: LaneId) -> Option<Position> {
        self.priorities[index(lane.priority)].lanes.get_mut(&lane.tenant)?.begin_load()
    }

    /// The load of a lane has come back, and reading stopped at `reached` unless it came to the end of the lane. Calls
    /// before the position given back may be taken from it; nothing may when the lane was not being loaded.
    pub fn end_load(&mut self, lane: LaneId, reached: Option<Position>) -> Option<Option<Position>> {
        let window = self.priorities[index(lane.priority)].lanes.get_mut(&lane.tenant)?;
        window.end_load(reached).map(|Span { until }| until)
    }

    fn tenants(&mut self, lane: LaneId) -> &mut Tenants {
        &mut self.priorities[index(lane.priority)]
    }

    fn window(&mut self, lane: LaneId) -> &mut Window {
        self.tenants(lane).lanes.entry(lane.tenant).or_default()
    }

    fn known(&self, lane: LaneId) -> Option<&Window> {
        self.priorities[index(lane.priority)].lanes.get(&lane.tenant).map(|window| &**window)
    }

    /// The priority whose turn it is: the highest that waits, or now and then a lower one.
    fn next_level(&self) -> Option<usize> {
        let waits = |level: &usize| !self.priorities[*level].turns.is_empty();
        let highest = (0..Priority::LEVELS).find(waits)?;
        if self.since_lower < LOWER_PRIORITY_EVERY - 1 {
            return Some(highest);
        }
        let lower = highest + 1..Priority::LEVELS;
        let after_last = lower.clone().filter(|&level| level > self.last_lower).find(waits);
        Some(after_last.or_else(|| lower.clone().find(waits)).unwrap_or(highest))
    }
}

impl Tenants {
    fn ready(&self, tenant: TenantId) -> usize {
        self.lanes.get(&tenant).map_or(0, |window| window.ready())
    }

    fn put_ready(&mut self, tenant: TenantId, position: Position, cost: u32) {
        let window = self.lanes.entry(tenant).or_default();
        if window.ready() == 0 {
            self.turns.push_back(tenant);
        }
        window.put_ready(position, cost);
    }

    fn wake(&mut self, tenant: TenantId, position: Position) -> bool {
        let Some(window) = self.lanes.get_mut(&tenant) else { return false };
        let had_none = window.ready() == 0;
        let is_woken = window.wake(position);
        if is_woken && had_none {
            self.turns.push_back(tenant);
        }
        is_woken
    }

    fn peek(&mut self) -> Option<(TenantId, Position, u32)> {
        // Bounded: every full round adds one to every deficit, and no cost is above the smallest limit.
        loop {
            let &tenant = self.turns.front()?;
            let window = self.lanes.get_mut(&tenant)?;
            let (position, cost) = window.first_ready()?;
            if window.deficit >= cost || self.turns.len() == 1 {
                return Some((tenant, position, cost));
            }
            window.deficit += 1;
            if window.deficit >= cost {
                return Some((tenant, position, cost));
            }
            self.turns.rotate_left(1);
        }
    }

    fn take(&mut self) {
        let Some((tenant, position, cost)) = self.peek() else { return };
        self.turns.pop_front();
        let Some(window) = self.lanes.get_mut(&tenant) else { return };
        window.remove(position);
        window.deficit = window.deficit.saturating_sub(cost);
        if window.ready() > 0 {
            self.turns.push_back(tenant);
        }
        self.tidy(tenant);
    }

    fn remove(&mut self, tenant: TenantId, position: Position) -> bool {
        let Some(window) = self.lanes.get_mut(&tenant) else { return false };
        let had_some = window.ready() > 0;
        let is_removed = window.remove(position);
        if had_some && window.ready() == 0 {
            self.turns.retain(|&other| other != tenant);
        }
        self.tidy(tenant);
        is_removed
    }

    /// A lane in which nobody waits is forgotten.
    fn tidy(&mut self, tenant: TenantId) {
        if self.lanes.get(&tenant).is_some_and(|window| window.is_empty()) {
            self.lanes.remove(&tenant);
        }
    }
}

fn index(priority: Priority) -> usize {
    usize::from(priority.level() - 1)
}

fn priority(level: usize) -> Priority {
    u8::try_from(level + 1).ok().and_then(Priority::new).expect("there are five levels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    fn lane(priority: u8, tenant: u64) -> LaneId {
        LaneId { priority: Priority::new(priority).expect("tests use 1 to 5"), tenant: TenantId(tenant) }
    }

    fn position(number: u128) -> Position {
        Position { ready_at: Instant::from_micros(0), call: CallId::from_bits(number) }
    }

    fn push(lanes: &mut Lanes, priority: u8, tenant: u64, number: u128, cost: u32) {
        lanes.put_ready(lane(priority, tenant), position(number), cost);
    }

    fn drain(lanes: &mut Lanes, count: usize) -> Vec<u128> {
        (0..count).filter_map(|_| lanes.take()).map(|waiting| waiting.call.bits()).collect()
    }

    #[test]
    fn the_oldest_of_the_highest_priority_goes_first() {
        let mut lanes = Lanes::default();
        push(&mut lanes, 3, 0, 1, 1);
        push(&mut lanes, 3, 0, 2, 1);
        push(&mut lanes, 1, 0, 3, 1);
        assert_eq!(drain(&mut lanes, 9), [3, 1, 2]);
        assert!(lanes.is_vacant());
    }

    #[test]
    fn one_grant_in_twenty_goes_to_lower_priorities_in_turn() {
        let mut lanes = Lanes::default();
        for number in 0..100 {
            push(&mut lanes, 1, 0, number, 1);
        }
        push(&mut lanes, 3, 0, 1_000, 1);
        push(&mut lanes, 5, 0, 2_000, 1);
        let order = drain(&mut lanes, 60);
        assert_eq!(order.iter().position(|&call| call == 1_000), Some(19));
        assert_eq!(order.iter().position(|&call| call == 2_000), Some(39));
    }

    #[test]
    fn a_backlog_of_one_tenant_delays_another_by_one_grant() {
        let mut lanes = Lanes::default();
        for number in 0..1_000 {
            push(&mut lanes, 3, 1, number, 1);
        }
        push(&mut lanes, 3, 2, 5_000, 1);
        assert_eq!(drain(&mut lanes, 2), [0, 5_000]);
    }

    #[test]
    fn tenants_share_by_cost_and_not_by_count() {
        let mut lanes = Lanes::default();
        for number in 0..10 {
            push(&mut lanes, 3, 1, number, 4);
            push(&mut lanes, 3, 2, 100 + number, 1);
        }
        let order = drain(&mut lanes, 10);
        assert_eq!(order.iter().filter(|&&call| call < 100).count(), 2, "{order:?}");
    }

    #[test]
    fn a_removed_call_is_gone_and_the_others_stay() {
        let mut lanes = Lanes::default();
        push(&mut lanes, 3, 1, 1, 1);
        push(&mut lanes, 3, 1, 2, 1);
        let remove = |lanes: &mut Lanes, number| lanes.remove(lane(3, 1), position(number));
        assert!(remove(&mut lanes, 1));
        assert!(!remove(&mut lanes, 1));
        assert_eq!(drain(&mut lanes, 5), [2]);
    }

    #[test]
    fn sleepers_are_passed_over_until_they_wake() {
        let mut lanes = Lanes::default();
        lanes.put_asleep(lane(3, 1), position(1), 1);
        push(&mut lanes, 3, 2, 2, 1);
        assert_eq!(drain(&mut lanes, 5), [2]);
        lanes.wake(lane(3, 1), position(1));
        assert_eq!(drain(&mut lanes, 5), [1]);
        assert!(lanes.is_vacant());
    }

    #[test]
    fn a_load_gives_nothing_that_may_have_been_overtaken_meanwhile() {
        let mut lanes = Lanes::default();
        let lane = lane(3, 1);
        lanes.leave_out(lane, position(10), 3);
        assert!(lanes.want_if_low(lane, 0));
        assert!(!lanes.want_if_low(lane, 0), "asked for once");
        assert_eq!(lanes.begin_load(lane), Some(position(10)));
        lanes.leave_out(lane, position(15), 1);
        assert_eq!(lanes.end_load(lane, Some(position(21))), Some(Some(position(15))));
        assert!(lanes.is_beyond(lane, position(15)) && !lanes.is_beyond(lane, position(14)));
        assert_eq!(lanes.end_load(lane, None), None, "a second answer is nobody's");
    }

    #[test]
    fn a_lane_is_forgotten_when_nobody_waits_in_it_and_not_before() {
        let mut lanes = Lanes::default();
        let lane = lane(3, 1);
        lanes.leave_out(lane, Position::FIRST, 2);
        push(&mut lanes, 3, 1, 7, 1);
        assert_eq!(drain(&mut lanes, 5), [7]);
        assert_eq!((lanes.beyond(), lanes.is_vacant()), (2, false));
        lanes.forget_one_beyond(lane);
        lanes.forget_one_beyond(lane);
        assert!(lanes.is_vacant());
    }
}
