//! Hedges laid over a plan that is drawn: upstreams that add attempts to what takes long, and calls with a mind of their own.
//!
//! They have dice of their own, so that all else of a seed is what it would be without them.

use std::time::Duration;

use farcall_core::hedge::{HedgeDelay, HedgePolicy, Hedging, Percentile};
use farcall_core::share::Share;

use crate::dice::Dice;
use crate::plan::UpstreamPlan;
use crate::workload::CallPlan;

/// The most attempts added to a try.
pub(crate) const EXTRA_MAX: u32 = 3;

/// Lays hedges over the upstreams of calls, and over calls.
pub(crate) fn lay_over(dice: &Dice, upstreams: &mut [UpstreamPlan], calls: &mut [CallPlan]) {
    let mut dice = dice.clone().fork();
    if !dice.percent(40) {
        return;
    }
    for upstream in upstreams {
        upstream.policy.hedge = dice.percent(80).then(|| policy(&mut dice));
        // Most calls are of methods that only then may be hedged.
        upstream.policy.idempotent |= dice.percent(40);
    }
    for own in calls.iter_mut().filter_map(|call| call.overrides.as_mut()) {
        own.hedge = match dice.count(0, 3) {
            0 => Some(Hedging::Never),
            1 => Some(Hedging::By(policy(&mut dice))),
            _ => None,
        };
    }
}

fn policy(dice: &mut Dice) -> HedgePolicy {
    let percentile = Percentile::from_permille(*dice.pick(&[500, 800, 950])).expect("all of them are");
    let after = match dice.percent(25) {
        true => HedgeDelay::Learned(percentile),
        false => HedgeDelay::Fixed(dice.spread(Duration::from_millis(1), Duration::from_secs(20))),
    };
    let budget = dice.percent(40).then(|| Share::from_permille(*dice.pick(&[100, 300, 1_000])));
    HedgePolicy { after, extra: dice.count(1, EXTRA_MAX), budget, on_failure: dice.percent(30) }
}
