//! Lanes lose nothing, keep the order of each lane, and let nobody wait for ever.

use std::collections::BTreeMap;

use farcall_core::call::{Priority, TenantId};
use farcall_core::id::CallId;
use farcall_core::lane::{LaneId, Lanes, Position};
use farcall_core::time::Instant;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Act {
    Push {
        priority: u8,
        tenant: u64,
        cost: u32,
    },
    Take,
    /// Removes the call at this place among those that wait, in parts of a thousand.
    Remove {
        place: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1u8..=5, 0u64..4, 1u32..6).prop_map(|(priority, tenant, cost)| Act::Push { priority, tenant, cost }),
        2 => Just(Act::Take),
        1 => (0usize..1_000).prop_map(|place| Act::Remove { place }),
    ]
}

fn lane(level: u8, tenant: u64) -> LaneId {
    LaneId { priority: Priority::new(level).expect("drawn from 1 to 5"), tenant: TenantId(tenant) }
}

fn position(number: u128) -> Position {
    Position { ready_at: Instant::from_micros(0), call: CallId::from_bits(number) }
}

proptest! {
    #[test]
    fn every_call_comes_out_once_and_oldest_first_of_its_lane(acts in vec(act(), 1..200)) {
        let mut lanes = Lanes::default();
        // By number: its lane and cost.
        let mut waiting: BTreeMap<u128, (u8, u64, u32)> = BTreeMap::new();
        for (number, act) in acts.into_iter().enumerate() {
            let number = number as u128;
            match act {
                Act::Push { priority: level, tenant, cost } => {
                    lanes.put_ready(lane(level, tenant), position(number), cost);
                    waiting.insert(number, (level, tenant, cost));
                }
                Act::Take => take_one(&mut lanes, &mut waiting)?,
                Act::Remove { place } if !waiting.is_empty() => {
                    let (&number, &(level, tenant, _)) =
                        waiting.iter().nth(place * waiting.len() / 1_000).expect("it is below the length");
                    prop_assert!(lanes.remove(lane(level, tenant), position(number)));
                    prop_assert!(!lanes.remove(lane(level, tenant), position(number)));
                    waiting.remove(&number);
                }
                Act::Remove { .. } => {}
            }
            prop_assert_eq!(lanes.ready(), waiting.len());
        }
        while !waiting.is_empty() {
            take_one(&mut lanes, &mut waiting)?;
        }
        prop_assert!(lanes.is_vacant() && lanes.take().is_none());
    }

    /// Others with calls waiting all the time: it goes before long, whatever the priorities, tenants and costs.
    #[test]
    fn a_call_waits_for_a_bounded_number_of_others(
        level in 1u8..=5,
        cost in 1u32..6,
        others in vec((1u8..=5, 1u64..4, 1u32..6), 1..12),
    ) {
        let mut lanes = Lanes::default();
        let mut numbers = 1u128..;
        let mut fill = |lanes: &mut Lanes| {
            for (&(level, tenant, cost), number) in others.iter().zip(&mut numbers) {
                lanes.put_ready(lane(level, tenant), position(number), cost);
            }
        };
        for _ in 0..50 {
            fill(&mut lanes);
        }
        lanes.put_ready(lane(level, 0), position(0), cost);
        // Its priority has one grant in twenty, shared by up to four; a tenant's turn takes up to five costs of six.
        let bound = 20 * 4 * 4 * 6;
        let place = (0..bound).position(|_| {
            fill(&mut lanes);
            lanes.take().is_some_and(|taken| taken.call == CallId::from_bits(0))
        });
        prop_assert!(place.is_some(), "it still waits after {bound} others");
    }
}

fn take_one(lanes: &mut Lanes, waiting: &mut BTreeMap<u128, (u8, u64, u32)>) -> Result<(), TestCaseError> {
    let promised = lanes.peek();
    let taken = lanes.take();
    prop_assert_eq!(promised, taken);
    let Some(taken) = taken else {
        prop_assert!(waiting.is_empty());
        return Ok(());
    };
    let number = taken.call.bits();
    let lane = waiting.remove(&number);
    prop_assert_eq!(lane.map(|(_, _, cost)| cost), Some(taken.cost));
    let oldest = waiting.iter().find(|(_, other)| lane.is_some_and(|lane| (lane.0, lane.1) == (other.0, other.1)));
    prop_assert!(oldest.is_none_or(|(&other, _)| number < other));
    Ok(())
}
