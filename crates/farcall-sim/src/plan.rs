//! Everything about a run that its seed decides beforehand.
//!
//! What chance decides on the way comes from the same dice.

use std::time::Duration;

use farcall_core::dispatcher::Memory;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::time::{Instant, Now, Timestamp};

use crate::dice::Dice;
use crate::faults::Faults;
use crate::policies::{self, Forms};
use crate::upstream::Network;
use crate::workload::{self, CallPlan};

/// The plan of one run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) start: Instant,
    /// The wall clock shows this much more than the boot clock.
    clock_offset: Duration,
    pub(crate) forms: Forms,
    /// Place 0 is the callbacks'; places are upstream ids at every start.
    pub(crate) upstreams: Vec<UpstreamPlan>,
    pub(crate) calls: Vec<CallPlan>,
    pub(crate) faults: Faults,
    /// Small enough that lanes are loaded and left to the store all the time.
    pub(crate) memory: Memory,
}

/// An upstream as it is at first.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamPlan {
    /// Its name, and what its limits are counted by.
    pub(crate) key: String,
    pub(crate) policy: UpstreamPolicy,
    pub(crate) network: Network,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let forms = Forms::draw(dice);
        let count = dice.count(1, 6);
        let (calls, span) = workload::draw(dice, count);
        let changes_limits = dice.percent(40);
        let mut upstreams = vec![UpstreamPlan::new(dice, 0, policies::callbacks(), false)];
        for place in 1..=count {
            let policy = policies::draw(dice, forms);
            upstreams.push(UpstreamPlan::new(dice, place, policy, changes_limits));
        }
        if dice.percent(15) {
            upstreams[1].network.turn_hostile(dice);
        }
        let windows = upstreams.iter().flat_map(|upstream| &upstream.policy.limits).map(|limit| limit.window);
        let longest = windows.max().unwrap_or(Duration::from_secs(10));
        let mut faults = Faults::draw(dice, count, span, longest);
        faults.changes_limits = changes_limits;
        Self {
            start: Instant::from_micros(0) + dice.up_to(Duration::from_secs(1_000_000)),
            clock_offset: Duration::from_secs(1_700_000_000) + dice.up_to(Duration::from_secs(100_000_000)),
            forms,
            upstreams,
            calls,
            faults,
            memory: memory(dice),
        }
    }

    /// Both clocks at a moment of the boot clock.
    pub(crate) fn now(&self, instant: Instant) -> Now {
        let micros = Instant::from_micros(instant.as_micros()) + self.clock_offset;
        Now { instant, timestamp: Timestamp::from_micros(micros.as_micros()) }
    }

    /// The moment at which the wall clock shows this.
    pub(crate) fn instant(&self, timestamp: Timestamp) -> Instant {
        Instant::from_micros(timestamp.as_micros()) - self.clock_offset
    }
}

fn memory(dice: &mut Dice) -> Memory {
    let lane_min = dice.count(1, 4) as usize;
    let lane_max = lane_min + dice.count(0, 8) as usize;
    Memory { calls_max: dice.spread_count(1, 100) as usize, lane_max, lane_min }
}

impl UpstreamPlan {
    fn new(dice: &mut Dice, place: u32, policy: UpstreamPolicy, may_change: bool) -> Self {
        let network = Network::draw(dice, &policy, may_change);
        let key = if place == 0 { "callbacks".to_owned() } else { format!("upstream{place}") };
        Self { key, policy, network }
    }
}
