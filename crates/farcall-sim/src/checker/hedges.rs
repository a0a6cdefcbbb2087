//! Hedges, watched from outside: only of calls that may be repeated while they are at work, never more than the budget allows, never
//! while a call waits for the same quota, and whatever lost is cut off at once.

use std::collections::BTreeMap;

use farcall_core::attempt::AttemptKind;
use farcall_core::dispatcher::Write;
use farcall_core::id::AttemptId;

use super::{Check, ensure, terms};
use crate::engine::Process;
use crate::world::World;

/// What a whole hedge costs.
const WHOLE: u64 = 10_000;

/// What one process has earned and spent, by the upstream of the calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hedges {
    accounts: BTreeMap<usize, Account>,
    /// Nobody can say any more what was decided.
    is_over: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    earned: u64,
    spent: u64,
}

impl Hedges {
    pub(crate) const fn end(&mut self) {
        self.is_over = true;
    }

    /// An attempt was let go: a first one earns what its call's budget says.
    pub(crate) fn earn(&mut self, home: usize, share: Option<u32>) {
        self.accounts.entry(home).or_default().earned += u64::from(share.unwrap_or(0));
    }

    /// Looks at what one turn decides.
    pub(crate) fn follow(&mut self, world: &World, writes: &[Write]) -> Check {
        for write in writes {
            if let Write::Start { attempt, kind: AttemptKind::Hedge, waited, .. } = *write {
                ensure(waited.is_none(), || format!("{attempt:?} is a hedge, and is said to have waited"))?;
                self.check(world, attempt)?;
            }
        }
        Ok(())
    }

    fn check(&mut self, world: &World, attempt: AttemptId) -> Check {
        let method = world.ledger.method_of(attempt.call).unwrap_or_default();
        let terms = terms(&world.plan, &world.facts, attempt.call);
        let Some(hedge) = terms.hedge(method) else {
            return ensure(false, || format!("{attempt:?} is a hedge of {method}, which must not be hedged"));
        };
        let is_draining = world.process.as_ref().is_some_and(|process| process.draining.is_some());
        ensure(!is_draining, || format!("{attempt:?} is a hedge, started while we drain"))?;
        if hedge.budget.is_none() || self.is_over {
            return Ok(());
        }
        let account = self.accounts.entry(terms.upstream).or_default();
        account.spent += WHOLE;
        let Account { earned, spent } = *account;
        ensure(spent <= earned, || format!("{attempt:?} is over the budget: {spent} of {earned} thousandths"))
    }
}

/// Every attempt that lost in a turn was told so in that turn.
pub(crate) fn check_losers(world: &World, writes: &[Write]) -> Check {
    let Some(Process { boot, .. }) = world.process else { return Ok(()) };
    for write in writes {
        let Write::Settle { call, progress: Some(progress), .. } = *write else { continue };
        let all = AttemptId { call, number: 0 }..=AttemptId { call, number: u32::MAX };
        let out = world.flights.range(all).find(|(_, flight)| flight.is_out(boot));
        ensure(out.is_none() || !progress.state.is_end(), || format!("{call} has ended, and {out:?} is out"))?;
    }
    Ok(())
}
