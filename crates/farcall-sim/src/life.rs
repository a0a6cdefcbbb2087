//! Lives of the process: it starts, is killed, is asked to stop; and the moment from which nothing goes wrong.
//!
//! What a start does with what was left is in `recovery`.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::dispatcher::Event;
use farcall_core::policy::LimitSpec;
use farcall_core::time::Instant;

use crate::checker::{self, Check, Order, Timings, ensure, violation};
use crate::engine::{Added, Process};
use crate::facts::{Drain, Era};
use crate::faults::Faults;
use crate::log::Line;
use crate::policies;
use crate::recovery;
use crate::world::{Happening, World};

impl World {
    /// The process starts on what the store holds.
    pub(crate) fn boot(&mut self) -> Check {
        if !self.facts.boots.is_empty() {
            self.maybe_reboot();
            if self.plan.faults.changes_limits {
                self.change_policies();
            }
        }
        let boot = self.facts.boots.len();
        self.facts.boots.push(self.now);
        self.facts.eras.push(Era { at: self.now, policies: self.policies.clone() });
        let seed = self.dice.seed();
        let (dispatcher, recovery) = recovery::boot(self, seed)
            .map_err(|error| violation(format!("the store cannot be taken over: {error}")))?;
        self.note(Line::Boot { number: u32::try_from(boot).unwrap_or(u32::MAX), live: recovery.engaged.len() });
        self.ledger.check_recovery(&recovery)?;
        let order = Order::of(self, self.ledger.live_rows().map(|(call, _)| call));
        let timings = Timings::of(self, self.ledger.live_rows().map(|(call, _)| call));
        let process = self.process.insert(Process::new(boot, dispatcher));
        (process.order, process.timings) = (order, timings);
        self.take_over_pauses(&recovery)?;
        for call in &recovery.unfiled {
            self.file_soon(call.id);
        }
        for place in std::mem::take(&mut self.parked) {
            self.schedule(self.now, Happening::Offer { place });
        }
        if !self.healed && self.dice.percent(self.plan.faults.crash_loop_percent) {
            let soon = self.dice.up_to(self.plan.faults.commit_max * 4);
            self.schedule(self.now + soon, Happening::Crash { boot: Some(boot) });
        }
        Ok(())
    }

    /// The process is killed, if the one meant runs. What was on its way to the disk is kept or lost.
    pub(crate) fn crash(&mut self, boot: Option<usize>) -> Check {
        let is_meant = |process: &mut Process| boot.is_none_or(|boot| process.boot == boot);
        let Some(mut process) = self.process.take_if(|process| !self.healed && is_meant(process)) else {
            return Ok(());
        };
        self.loading = None;
        let lost = self.lose_power(&mut process)?;
        // Whether the disk has one that nobody was told of, the next start sees.
        for pause in self.facts.pauses.iter_mut().filter(|pause| pause.until.is_none() && !pause.is_told) {
            pause.until = Some(self.now);
        }
        self.facts.openings.retain(|opening| opening.is_stored);
        checker::check_caution(self, &process, &lost)?;
        self.facts.crashes.push(self.now);
        for (call, place) in process.offered {
            if !self.ledger.knows(call) {
                self.facts.origins.remove(&call);
                self.parked.push(place);
            }
        }
        self.restart_later();
        Ok(())
    }

    /// The process is asked to stop, if it runs.
    pub(crate) fn drain(&mut self, place: usize) {
        if self.healed {
            return;
        }
        let (_, patience) = self.plan.faults.drains_after[place];
        let drain = Drain { from: self.now, until: self.now + patience };
        let Some(process) = self.process.as_mut().filter(|process| process.draining.is_none()) else { return };
        process.draining = Some(drain);
        self.facts.drains.push(self.clocks.steady(drain.until));
        self.note(Line::Drain);
        self.tell(Event::Drain { until: drain.until });
    }

    /// A draining process ends when nothing is out and everything is durable; it must not take for ever.
    pub(crate) fn stop_if_drained(&mut self) -> Check {
        let Some(process) = &self.process else { return Ok(()) };
        let Some(drain) = process.draining else { return Ok(()) };
        let faults = &self.plan.faults;
        let slack = Duration::from_secs(2)
            + (faults.commit_max + faults.commit_slow_max) * 4
            + process.stalled_for
            + faults.reopen_max;
        let cannot_store = process.dispatcher.is_held_up() || process.journal.is_broken;
        if self.now > drain.until && cannot_store && process.stalled_until.is_none() {
            // It gives up, and what it could not store is lost with it.
            return self.crash(None);
        }
        ensure(self.now <= drain.until + slack, || "a drain takes too long".to_owned())?;
        if !process.dispatcher.is_drained() || !process.is_idle() {
            return Ok(());
        }
        ensure(process.offered.is_empty(), || "a drain leaves offers without an answer".to_owned())?;
        ensure(process.out.is_empty(), || "a drain leaves attempts out".to_owned())?;
        self.process = None;
        self.loading = None;
        self.note(Line::Stopped);
        self.restart_later();
        Ok(())
    }

    /// Somebody sets the wall clock.
    pub(crate) fn wall_jump(&mut self, by_us: i64) {
        self.note(Line::WallJump { by_us });
        self.clocks.jump(by_us);
    }

    /// From now on upstreams answer promptly and nothing breaks.
    pub(crate) fn heal(&mut self) {
        self.note(Line::Healed);
        self.healed = true;
        for network in &mut self.networks {
            network.heal();
        }
        self.resume_all();
        self.end_by = Some(self.now + checker::time_to_end(self));
    }

    fn restart_later(&mut self) {
        let restarts_at: Instant = self.now + self.dice.up_to(self.plan.faults.downtime_max);
        self.close_flights(restarts_at);
        self.store = std::mem::take(&mut self.store).crash();
        self.schedule(restarts_at, Happening::Boot);
    }

    /// The configuration is edited while the process runs.
    pub(crate) fn reconfigure(&mut self) -> Check {
        if self.healed || self.process.is_none() {
            return Ok(());
        }
        let before: Vec<_> = self.policies.iter().map(|policy| policy.limits.clone()).collect();
        self.change_policies();
        self.note(Line::Reconfigured);
        self.facts.eras.push(Era { at: self.now, policies: self.policies.clone() });
        recovery::change(self).map_err(|error| violation(format!("the store cannot be read: {error}")))?;
        let Some(process) = &mut self.process else { return Ok(()) };
        process.order.change_costs();
        for (place, policy) in self.policies.iter().enumerate() {
            // One whose count was raised may have had to look at the past again.
            let is_new =
                |limit: &&LimitSpec| before[place].iter().all(|it| it.window != limit.window || it.count < limit.count);
            let added = policy.limits.iter().filter(is_new);
            process.added.extend(added.map(|limit| Added { place, window: limit.window, at: self.now }));
        }
        Ok(())
    }

    /// The whole machine was started anew, too.
    fn maybe_reboot(&mut self) {
        if self.healed || !self.dice.percent(self.plan.faults.reboot_percent) {
            return;
        }
        let only_lags = self.believes_the_wall();
        let off_by_us = Faults::clock_error(&mut self.dice, only_lags);
        self.note(Line::Reboot { off_by_us });
        self.clocks.reboot(off_by_us);
    }

    /// Windows too long to be taken as full after a reboot rest on a wall clock that is not ahead then.
    fn believes_the_wall(&self) -> bool {
        let limits = || self.policies.iter().flat_map(|policy| &policy.limits);
        self.plan.faults.changes_limits || limits().any(|limit| limit.window > Duration::from_secs(60))
    }

    /// The configuration was edited while nothing ran.
    fn change_policies(&mut self) {
        let forms = self.plan.forms;
        for policy in self.policies.iter_mut().skip(1) {
            match self.dice.count(0, 4) {
                0 => policies::recount(&mut self.dice, &mut policy.limits),
                1 => policy.limits = policies::limits(&mut self.dice, forms),
                2 if forms.concurrency => policy.concurrency = NonZeroU32::new(self.dice.count(1, 20)),
                _ => {}
            }
        }
    }
}
