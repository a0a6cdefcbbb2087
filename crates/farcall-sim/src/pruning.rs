//! Looking for calls that ended long ago, as the engine does it: a read of the store after a while, an answer later still.
//!
//! What may go is decided in the core; whether it might is the matter of `checker::pruned`.

use farcall_core::dispatcher::{Event, Stale, StaleAsk, StaleCall};
use farcall_core::retention::Retention;
use farcall_core::steady::SteadyClock;
use farcall_store::port::{Ended, EndedRange, Store};
use farcall_store::record::EndedRecord;

use crate::checker::{Check, violation};
use crate::dice::Dice;
use crate::log::Line;
use crate::world::{Happening, World};

/// How long calls are kept in this run; nothing when nothing is ever pruned. Short, so that runs see it.
pub(crate) fn draw(dice: &mut Dice) -> Option<Retention> {
    const SHORTEST: std::time::Duration = std::time::Duration::from_secs(5);
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(900);
    if dice.percent(40) {
        return None;
    }
    let mut age = || {
        let is_for_ever = dice.percent(15);
        let age = dice.spread(SHORTEST, LONGEST);
        (!is_for_ever).then_some(age)
    };
    let (succeeded, failed) = (age(), age());
    let bytes_max = dice.percent(40).then(|| u64::from(dice.spread_count(1_000, 100_000)));
    Some(Retention { succeeded, failed, bytes_max, ..Retention::default() })
}

impl World {
    /// The store is looked at after a while.
    pub(crate) fn look_for_stale(&mut self) {
        let Some(boot) = self.process.as_ref().map(|process| process.boot) else { return };
        let delay = self.plan.faults.read_latency(&mut self.dice, self.healed);
        self.schedule(self.now + delay, Happening::ReadStale { boot });
    }

    /// What ended long ago, as the store has it now; the engine hears of it later.
    pub(crate) fn read_stale(&mut self, boot: usize) -> Check {
        let Some(process) = self.process.as_ref().filter(|process| process.boot == boot) else { return Ok(()) };
        let Some(&ask) = process.dispatcher.stale_wanted() else { return Ok(()) };
        let fails = !self.healed && self.dice.percent(self.plan.faults.read_failure_percent);
        let event = if fails {
            Event::StaleUnread
        } else {
            let unreadable = |error| violation(format!("ended calls cannot be read: {error}"));
            let steady = self.clocks.process();
            let mut reader = self.store.reader().map_err(unreadable)?;
            let bytes = reader.stored_bytes().map_err(unreadable)?;
            self.tell(Event::Stored { bytes });
            let found = reader.ended(&range(steady, ask)).map_err(unreadable)?;
            Event::StaleFound { ask, found: found.into_iter().map(|record| stale_call(steady, record)).collect() }
        };
        if let Some(process) = &mut self.process {
            process.stale = Some(event);
        }
        let delay = self.plan.faults.read_latency(&mut self.dice, self.healed);
        self.schedule(self.now + delay, Happening::StaleRead { boot });
        Ok(())
    }

    pub(crate) fn stale_read(&mut self, boot: usize) {
        let process = self.process.as_mut().filter(|process| process.boot == boot);
        let Some(event) = process.and_then(|process| process.stale.take()) else { return };
        if let Event::StaleFound { found, .. } = &event {
            let calls = found.len();
            self.note(Line::StaleFound { calls });
        }
        self.tell(event);
    }
}

fn range(steady: SteadyClock, ask: StaleAsk) -> EndedRange {
    let StaleAsk { of, until, after, count } = ask;
    EndedRange {
        of: match of {
            Stale::Keys => Ended::Keyed,
            Stale::Calls(state) => Ended::Unkeyed(state),
        },
        until: steady.steady(until),
        after: after.map(|(at, call)| (steady.steady(at), call)),
        count,
    }
}

fn stale_call(steady: SteadyClock, record: EndedRecord) -> StaleCall {
    let EndedRecord { call, ended_at, is_held } = record;
    StaleCall { call, ended_at: steady.instant(ended_at), is_held }
}
