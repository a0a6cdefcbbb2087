//! What people do to a running engine: they cancel calls, pause upstreams and resume them. And what it does by itself: it
//! forgets upstreams.
//!
//! A process that stalls, or is not there, hears nothing of it; a pause does not outlive its process.

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Event;

use crate::checker::{Check, violation};
use crate::engine::Added;
use crate::facts::Pause;
use crate::log::Line;
use crate::recovery;
use crate::world::World;

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
        }
        self.look_at(Event::Cancel { call });
    }

    pub(crate) fn pause(&mut self, place: usize) {
        let upstream = self.plan.faults.pauses[place].upstream;
        let healed = self.healed;
        let Some(process) = self.process.as_mut().filter(|process| process.stalled_until.is_none() && !healed) else {
            return;
        };
        process.dispatcher.pause(UpstreamId(upstream));
        process.paused.insert(upstream);
        let (boot, from) = (process.boot, self.now);
        self.facts.pauses.push(Pause { upstream, boot, from, until: None });
        self.note(Line::Pause { upstream });
    }

    pub(crate) fn resume(&mut self, place: usize) {
        let upstream = self.plan.faults.pauses[place].upstream;
        self.resume_upstream(upstream);
    }

    /// Whatever was paused may go on.
    pub(crate) fn resume_all(&mut self) {
        let paused: Vec<u32> = self.process.iter().flat_map(|process| process.paused.iter().copied()).collect();
        for upstream in paused {
            self.resume_upstream(upstream);
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
            // Short windows are taken as full, as after a restart.
            let windows = self.policies[place].limits.iter().map(|limit| limit.window);
            process.added.extend(windows.map(|window| Added { place, window, at: self.now }));
        }
        Ok(())
    }

    fn resume_upstream(&mut self, upstream: u32) {
        let Some(process) = &mut self.process else { return };
        if !process.paused.remove(&upstream) {
            return;
        }
        process.dispatcher.resume(UpstreamId(upstream));
        process.is_dirty = true;
        let open = self.facts.pauses.iter_mut().filter(|pause| pause.upstream == upstream && pause.until.is_none());
        for pause in open {
            pause.until = Some(self.now);
        }
        self.note(Line::Resume { upstream });
    }
}
