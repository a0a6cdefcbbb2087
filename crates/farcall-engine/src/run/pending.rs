//! What the loop keeps between a decision and its commit, and of the attempts that are out.
//!
//! Only bookkeeping, and all of it is empty when nothing is under way.

use std::collections::{HashMap, HashSet};

use farcall_core::id::{AttemptId, CallId};
use farcall_store::port::Insert;
use tokio_util::sync::CancellationToken;

use super::batches::{Batches, Place};
use crate::execute::Report;
use crate::handle::{Accepted, SubmitError};

/// Everything that is on its way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Inserts whose write has not been made yet.
    pub(super) inserts: HashMap<CallId, Box<Insert>>,
    /// Calls that are not durable yet, and those who wait for that.
    pub(super) unacknowledged: HashMap<CallId, Unacknowledged>,
    /// Those who wait, by the batch they submitted.
    pub(super) batches: Batches,
    /// Their idempotency scopes and keys.
    pub(super) keys: HashMap<(String, String), (CallId, [u8; 32])>,
    /// Reports whose settlement has not been written yet.
    pub(super) reports: HashMap<AttemptId, Box<Report>>,
    /// Attempts that are out, and how to cut them off.
    pub(super) running: HashMap<AttemptId, CancellationToken>,
    /// Cut off before they were launched.
    pub(super) cut_early: HashSet<AttemptId>,
}

/// A call that is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    /// Its idempotency scope and key.
    pub(super) key: Option<(String, String)>,
    pub(super) waiting: Vec<(Place, Accepted)>,
}

impl Pending {
    /// The call is durable: whoever waits for that is told.
    pub(super) fn acknowledge(&mut self, call: CallId) {
        let Some(call) = self.unacknowledged.remove(&call) else { return };
        if let Some(key) = call.key {
            self.keys.remove(&key);
        }
        for (place, accepted) in call.waiting {
            self.batches.answer(place, Ok(accepted));
        }
    }

    /// No call will become durable any more: whoever waits for that is told so.
    pub(super) fn refuse_all(&mut self) {
        for (_, call) in self.unacknowledged.drain() {
            for (place, _) in call.waiting {
                self.batches.answer(place, Err(SubmitError::StoreFailed));
            }
        }
    }
}
