//! What people do to a running engine: they cancel calls, pause upstreams and resume them. And what it does by itself: it
//! forgets upstreams.
//!
//! A process that stalls, or is not there, hears nothing of it. A pause that somebody was told of outlives its process.

use std::collections::BTreeSet;

use farcall_core::breaker::BreakerState;
use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Event;
use farcall_store::record::{Recovery, UpstreamRecord};

use crate::checker::{Check, ensure, violation};
use crate::engine::Added;
use crate::facts::{BreakerTurn, Opening, Pause, Turned};
use crate::log::Line;
use crate::recovery;
use crate::world::World;

/// The ticket of everything that is resumed: nothing is checked of what somebody was told of it.
const RESUMED: u64 = u64::MAX;

impl World {
    /// The submitter of the call at this place of the plan wants it to end.
    pub(crate) fn cancel(&mut self, place: usize) {
        let hears = self.process.as_ref().is_some_and(|process| process.stalled_until.is_none());
        let Some(&call) = self.facts.places.get(&place).filter(|_| hears && !self.healed) else { return };
        self.note(Line::Cancel { call });
        let at = self.clocks.steady(self.now);
        self.facts.cancels.entry(call).or_default().push(at);
        // One that was refused is nobody's.
        let is_known = self.ledger.knows(call);
        if let Some(process) = self.process.as_mut().filter(|process| is_known || process.offered.contains_key(&call)) {
            process.cancelled.insert(call);
            process.unanswered.insert(call);
        }
        self.look_at(Event::Cancel { call });
    }

    pub(crate) fn pause(&mut self, place: usize) {
        let upstream = self.plan.faults.pauses[place].upstream;
        let (quota, healed) = (self.plan.quota(upstream as usize), self.healed);
        let Some(process) = self.process.as_mut().filter(|process| process.stalled_until.is_none() && !healed) else {
            return;
        };
        let (ticket, boot) = (self.facts.pauses.len(), process.boot);
        process.dispatcher.pause(UpstreamId(upstream), ticket as u64);
        process.paused.insert(quota);
        process.is_dirty = true;
        self.facts.pauses.push(Pause { quota, boot, from: self.now, until: None, is_told: false });
        self.note(Line::Pause { upstream });
    }

    /// Somebody was told that what they set is durable.
    pub(crate) fn upstream_stored(&mut self, ticket: u64) {
        if let Some(pause) = usize::try_from(ticket).ok().and_then(|place| self.facts.pauses.get_mut(place)) {
            pause.is_told = true;
        }
    }

    pub(crate) fn resume(&mut self, place: usize) {
        let quota = self.plan.quota(self.plan.faults.pauses[place].upstream as usize);
        self.resume_quota(quota);
    }

    /// Whatever was paused may go on.
    pub(crate) fn resume_all(&mut self) {
        let paused: Vec<usize> = self.process.iter().flat_map(|process| process.paused.iter().copied()).collect();
        for quota in paused {
            self.resume_quota(quota);
        }
    }

    /// The engine forgets upstreams that nothing needs; calls come for them all the same.
    pub(crate) fn forget_idle(&mut self) -> Check {
        let hears = self.process.as_ref().is_some_and(|process| process.stalled_until.is_none());
        if !hears || self.healed {
            return Ok(());
        }
        let unreadable = |error| violation(format!("the store cannot be read: {error}"));
        let places = recovery::forget_idle(self).map_err(unreadable)?;
        if places.is_empty() {
            return Ok(());
        }
        self.note(Line::Forgotten { upstreams: places.len() });
        let Some(process) = &mut self.process else { return Ok(()) };
        for place in places {
            let (quota, boot) = (place, process.boot);
            self.facts.breaker_turns.push(BreakerTurn { quota, boot, at: self.now, what: Turned::ByHand });
            process.order.begin_anew(place);
            // Short windows are taken as full, as after a restart.
            let windows = self.policies[place].limits.iter().map(|limit| limit.window);
            process.added.extend(windows.map(|window| Added { place, window, at: self.now }));
        }
        Ok(())
    }

    /// The engine tells that a breaker opened or closed.
    pub(crate) fn breaker_turned(&mut self, upstream: UpstreamId, state: BreakerState) {
        let (quota, at) = (self.plan.quota(upstream.0 as usize), self.now);
        let Some(boot) = self.process.as_ref().map(|process| process.boot) else { return };
        let what = if state == BreakerState::Open { Turned::Opened } else { Turned::Closed };
        let opened = what == Turned::Opened;
        self.note(Line::Breaker { upstream: upstream.0, opened });
        // What somebody did by hand is known.
        let turns = &mut self.facts.breaker_turns;
        let by_hand = |turn: &BreakerTurn| (turn.quota, turn.at, turn.what) == (quota, at, Turned::ByHand);
        if opened || !turns.iter().rev().any(by_hand) {
            turns.push(BreakerTurn { quota, boot, at, what });
        }
    }

    fn resume_quota(&mut self, quota: usize) {
        let now = self.clocks.now(self.now);
        let Some(process) = &mut self.process else { return };
        if !process.paused.remove(&quota) {
            return;
        }
        let upstream = u32::try_from(quota).expect("plans are small");
        let was_closed = process.dispatcher.upstream_standing(UpstreamId(upstream), now.instant).closed_until.is_some();
        process.dispatcher.resume(now, UpstreamId(upstream), RESUMED);
        for told in self.facts.statements.iter_mut().filter(|told| told.quota == quota) {
            told.until = told.until.min(self.now);
        }
        process.is_dirty = true;
        let boot = process.boot;
        self.facts.breaker_turns.push(BreakerTurn { quota, boot, at: self.now, what: Turned::ByHand });
        let open = self.facts.pauses.iter_mut().filter(|pause| pause.quota == quota && pause.until.is_none());
        for pause in open {
            pause.until = Some(self.now);
        }
        if was_closed {
            let at = self.clocks.steady(self.now);
            self.facts.openings.push(Opening { quota, at, is_stored: false });
        }
        self.note(Line::Resume { upstream });
    }

    /// The process that begins finds paused what its predecessor was told to pause, if anybody was told that it is.
    pub(crate) fn take_over_pauses(&mut self, recovery: &Recovery) -> Check {
        let place = |record: &UpstreamRecord| self.plan.place_of(&record.limit_key).filter(|_| record.is_paused);
        let stored: BTreeSet<usize> = recovery.upstreams.iter().filter_map(place).collect();
        let boot = self.facts.boots.len() - 1;
        let mut held = self.facts.pauses.iter().filter(|pause| pause.until.is_none());
        let forgotten = held.find(|pause| !stored.contains(&pause.quota));
        ensure(forgotten.is_none(), || format!("a start does not know of {forgotten:?}"))?;
        for &quota in &stored {
            if !self.facts.pauses.iter().any(|pause| pause.quota == quota && pause.until.is_none()) {
                let (from, until) = (self.now, None);
                self.facts.pauses.push(Pause { quota, boot, from, until, is_told: true });
            }
        }
        if let Some(process) = &mut self.process {
            process.paused = stored;
        }
        if self.healed {
            self.resume_all();
        }
        Ok(())
    }
}
