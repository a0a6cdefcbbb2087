//! The calls that may start at one upstream, and who goes next.
//!
//! A lane is a priority and a tenant; within a lane the oldest goes first. Priorities are strict but for one grant in
//! twenty, which goes to a lower one; tenants of one priority take turns by deficit round robin, counted in cost
//! (Shreedhar and Varghese 1995). The order is decided before the limits are asked: a call that needs more slots than
//! are free is waited for and not overtaken in its upstream, or it might never start.

use std::collections::{HashMap, VecDeque};

use crate::call::{Priority, TenantId};
use crate::id::CallId;

/// One grant in this many goes to a lower priority, when one waits.
const LOWER_PRIORITY_EVERY: u32 = 20;

/// A call in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub call: CallId,
    pub cost: u32,
}

/// All lanes of one upstream.
#[derive(Debug, Clone, Default)]
pub struct Lanes {
    priorities: [Tenants; Priority::LEVELS],
    len: usize,
    /// Grants since a lower priority had its turn.
    since_lower: u32,
    /// Where the last turn of a lower priority was.
    last_lower: usize,
}

#[derive(Debug, Clone, Default)]
struct Tenants {
    /// Tenants with waiting calls, the one whose turn it is in front.
    turns: VecDeque<TenantId>,
    lanes: HashMap<TenantId, Lane>,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    calls: VecDeque<Waiting>,
    /// Cost this tenant may still spend in its turn.
    deficit: u32,
}

impl Lanes {
    /// Puts a call at the end of its lane.
    pub fn push(&mut self, priority: Priority, tenant: TenantId, waiting: Waiting) {
        let tenants = &mut self.priorities[index(priority)];
        let lane = tenants.lanes.entry(tenant).or_default();
        if lane.calls.is_empty() {
            tenants.turns.push_back(tenant);
        }
        lane.calls.push_back(waiting);
        self.len += 1;
    }

    /// Puts a call back where it was taken from: it goes before all others of its lane.
    pub fn push_front(&mut self, priority: Priority, tenant: TenantId, waiting: Waiting) {
        let tenants = &mut self.priorities[index(priority)];
        let lane = tenants.lanes.entry(tenant).or_default();
        if lane.calls.is_empty() {
            tenants.turns.push_front(tenant);
        }
        lane.deficit = lane.deficit.saturating_add(waiting.cost);
        lane.calls.push_front(waiting);
        self.len += 1;
    }

    /// The call whose turn it is; the answer stays the same until it is taken or removed.
    pub fn peek(&mut self) -> Option<Waiting> {
        let level = self.next_level()?;
        self.priorities[level].peek()
    }

    /// Takes the call that [`Lanes::peek`] named.
    pub fn take(&mut self) -> Option<Waiting> {
        let level = self.next_level()?;
        let is_lower = self.priorities[..level].iter().any(|tenants| !tenants.turns.is_empty());
        if is_lower {
            self.since_lower = 0;
            self.last_lower = level;
        } else {
            self.since_lower = self.since_lower.saturating_add(1);
        }
        self.len -= 1;
        self.priorities[level].take()
    }

    /// Removes a call wherever it stands; false when it is not here.
    pub fn remove(&mut self, priority: Priority, tenant: TenantId, call: CallId) -> bool {
        let tenants = &mut self.priorities[index(priority)];
        let Some(lane) = tenants.lanes.get_mut(&tenant) else { return false };
        let Some(place) = lane.calls.iter().position(|waiting| waiting.call == call) else { return false };
        lane.calls.remove(place);
        if lane.calls.is_empty() {
            tenants.lanes.remove(&tenant);
            tenants.turns.retain(|&other| other != tenant);
        }
        self.len -= 1;
        true
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
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
    fn peek(&mut self) -> Option<Waiting> {
        // Bounded: every full round adds one to every deficit, and no cost is above the smallest limit.
        loop {
            let &tenant = self.turns.front()?;
            let lane = self.lanes.get_mut(&tenant)?;
            let &head = lane.calls.front()?;
            if lane.deficit >= head.cost || self.turns.len() == 1 {
                return Some(head);
            }
            lane.deficit += 1;
            if lane.deficit >= head.cost {
                return Some(head);
            }
            self.turns.rotate_left(1);
        }
    }

    fn take(&mut self) -> Option<Waiting> {
        let head = self.peek()?;
        let tenant = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&tenant)?;
        lane.calls.pop_front();
        lane.deficit = lane.deficit.saturating_sub(head.cost);
        if lane.calls.is_empty() {
            self.lanes.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(head)
    }
}

fn index(priority: Priority) -> usize {
    usize::from(priority.level() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lanes: &mut Lanes, priority: u8, tenant: u32, number: u128, cost: u32) {
        let priority = Priority::new(priority).expect("tests use 1 to 5");
        lanes.push(priority, TenantId(tenant), Waiting { call: CallId::from_bits(number), cost });
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
        assert!(lanes.is_empty());
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
        let remove =
            |lanes: &mut Lanes, number| lanes.remove(Priority::default(), TenantId(1), CallId::from_bits(number));
        assert!(remove(&mut lanes, 1));
        assert!(!remove(&mut lanes, 1));
        assert_eq!(drain(&mut lanes, 5), [2]);
    }
}
