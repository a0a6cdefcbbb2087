//! Pausing what goes to one other side, and opening it again: by hand, and durable.
//!
//! A pause holds for all that share the quota. It holds in memory at once and is told when it is stored; when that fails
//! it still holds, and is stored as soon as the store works again. What is out goes on.

use super::entry::Place;
use super::{Dispatcher, Effect, Write};
use crate::call::{QuotaId, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::time::{Instant, Now};

impl Dispatcher {
    /// Starts nothing at an upstream from now on, nor at those that share its quota. `Effect::UpstreamStored` tells under
    /// this ticket when that is durable.
    pub fn pause(&mut self, id: UpstreamId, ticket: u64) {
        self.restore_pause(id);
        self.note_upstream(id, ticket);
    }

    /// Starts again what was kept back by a pause, by an open breaker, because the upstream asked everybody to keep away, or
    /// because it said that little of its quota remains. The calls that
    /// it told so themselves go on too, as far as they are in memory. `Effect::UpstreamStored` tells under this ticket
    /// when that is durable.
    pub fn resume(&mut self, now: Now, id: UpstreamId, ticket: u64) {
        let charged = self.upstream(id).quota;
        let quota = self.quota(charged);
        quota.is_paused = false;
        quota.limits.forget_told();
        quota.stored_closing = None;
        if quota.closed_until.take().is_some_and(|until| until > now.instant) {
            self.writes.push(Write::Open { upstream: id });
            self.wake_throttled(now, charged);
        }
        self.close_breaker(charged);
        self.note_upstream(id, ticket);
        self.wake(charged);
    }

    /// An earlier process was told to start nothing there.
    pub fn restore_pause(&mut self, id: UpstreamId) {
        let charged = self.upstream(id).quota;
        self.quota(charged).is_paused = true;
        // Whoever asks why its calls wait is told this.
        self.wake(charged);
    }

    /// What is set at an upstream has changed and is to be stored. `Effect::UpstreamStored` tells under this ticket when
    /// it is.
    pub fn note_upstream(&mut self, id: UpstreamId, ticket: u64) {
        self.writes.push(Write::Upstream { upstream: id });
        self.effects_after.push(Effect::UpstreamStored { ticket });
    }

    /// Calls that a quota told to come back later come back now, in the order in which they would have.
    fn wake_throttled(&mut self, now: Now, charged: QuotaId) {
        let waits = |upstream: UpstreamId| self.upstreams[upstream.0 as usize].quota == charged;
        let told_to_wait = |place| place == Place::Asleep { reason: WaitReason::Cooldown };
        let told = self.calls.iter().filter(|(_, entry)| told_to_wait(entry.place) && waits(entry.upstream()));
        let mut told: Vec<(Instant, CallId)> = told.map(|(&call, entry)| (entry.ready_at, call)).collect();
        told.sort_unstable();
        for (_, call) in told {
            self.leave_lane(call);
            let ready_at = self.end_of_line(now);
            self.record(self.durability_of(call), Write::Release { call, ready_at });
            self.stand(call, ready_at, None);
        }
    }
}
