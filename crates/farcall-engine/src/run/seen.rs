//! What a call looks like at the moment at which it becomes durable, for whoever submitted it: told from memory, so that
//! accepting a call needs no read.
//!
//! The record is the one that is stored; a later look at the store shows the same call.

use farcall_core::call::State;
use farcall_core::dispatcher::Standing;
use farcall_core::id::CallId;
use farcall_store::port::{Insert, Start};
use farcall_store::record::CallRecord;
use tokio::sync::oneshot;

use super::Run;

/// A call as it was when it became durable, and why it waits.
pub(crate) type Sight = (CallRecord, Standing);

/// Whoever wants to see a call once it is durable.
#[derive(Debug)]
pub(super) struct Viewer {
    /// As it is stored; nothing before that is decided.
    record: Option<CallRecord>,
    reply: oneshot::Sender<Sight>,
}

impl Viewer {
    pub(super) const fn new(reply: oneshot::Sender<Sight>) -> Self {
        Self { record: None, reply }
    }

    /// The call is durable. Of one that only the store knows nothing is told.
    fn show(self, standing: Option<Standing>) {
        let (Some(record), Some(standing)) = (self.record, standing) else { return };
        let _ = self.reply.send((record, standing));
    }
}

impl Run {
    /// The call is inserted like this.
    pub(super) fn see_insert(&mut self, insert: &Insert) {
        if let Some(viewer) = self.viewer(insert.call.id) {
            viewer.record = Some(insert.call.clone());
        }
    }

    /// Its attempt is started with it.
    pub(super) fn see_start(&mut self, start: &Start) {
        if let Some(record) = self.viewer(start.call).and_then(|viewer| viewer.record.as_mut()) {
            record.progress.state = State::Running;
            record.progress.ready_at = None;
            record.started_at = record.started_at.or(Some(start.started_at));
            record.attempts = start.number;
        }
    }

    /// The call is durable, and whoever wants to see it does, before they hear of that.
    pub(super) fn show(&mut self, call: CallId) {
        let viewer = self.pending.unacknowledged.get_mut(&call).and_then(|call| call.viewer.take());
        if let Some(viewer) = viewer {
            viewer.show(self.dispatcher.standing(call));
        }
    }

    fn viewer(&mut self, call: CallId) -> Option<&mut Viewer> {
        self.pending.unacknowledged.get_mut(&call)?.viewer.as_mut()
    }
}
