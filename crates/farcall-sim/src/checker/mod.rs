//! Whether what happened is what was promised. Nothing here asks the machine what it should have done.
//!
//! Some checks run while the world turns (`ledger`, `caution`, `promptness`, `order`, `timings`, `hedges`), the others on the whole run: the upstreams' own logs of
//! arrivals (`windows`), every call's history (`history`, `round`, `expires`), upstreams that ask to wait
//! (`closings`), callbacks (`callbacks`), paused upstreams (`pauses`), breakers (`breakers`), and what upstreams told of their quota (`told`).

mod breakers;
mod callbacks;
mod caution;
mod closings;
mod expires;
mod hedges;
mod history;
mod ledger;
mod liveness;
mod order;
mod pauses;
mod promptness;
mod pruned;
mod round;
mod terms;
mod timings;
mod told;
mod windows;

use std::fmt;

pub(crate) use caution::check_caution;
pub(crate) use closings::closing;
pub(crate) use hedges::{Hedges, check_losers};
pub(crate) use history::wins;
pub(crate) use ledger::Ledger;
pub(crate) use liveness::time_to_end;
pub(crate) use order::Order;
pub(crate) use promptness::check_prompt;
pub(crate) use terms::{cost_of, place_of, quota_of, terms};
pub(crate) use timings::Timings;

use crate::world::World;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(String);

/// What a check finds.
pub(crate) type Check = Result<(), Violation>;

pub(crate) const fn violation(what: String) -> Violation {
    Violation(what)
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation(otherwise())) }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All checks that look at a whole run.
pub(crate) fn check_whole(world: &World) -> Check {
    windows::check(world)?;
    history::check(world)?;
    closings::check(world)?;
    callbacks::check(world)?;
    pauses::check(world)?;
    told::check(world)?;
    breakers::check(world)?;
    world.ledger.check_final(&world.store, &world.facts)
}
