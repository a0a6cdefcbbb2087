//! What the loop keeps between a decision and its commit, and of the attempts that are out.
//!
//! Only bookkeeping, and all of it is empty when nothing is under way.

use std::collections::HashMap;
use std::sync::Arc;

use farcall_core::id::{AttemptId, CallId};
use farcall_core::id_map::IdMap;
use farcall_store::port::{Insert, Settle, Write};
use tokio_util::sync::CancellationToken;

use super::batches::{Batches, Place};
use super::departure::Departure;
use super::loading::Unread;
use super::seen::Viewer;
use crate::execute::Report;
use crate::handle::{Accepted, SubmitError};
use crate::redirect::Asked;

/// An attempt that is being made.
#[derive(Debug)]
pub(super) struct Running {
    /// Cuts it off.
    pub(super) abort: CancellationToken,
    /// When its request left, of an upstream without limits.
    pub(super) departure: Arc<Departure>,
}

/// Everything that is on its way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Inserts whose write has not been made yet.
    pub(super) inserts: IdMap<CallId, Box<Insert>>,
    /// Calls that are not durable yet, and those who wait for that.
    pub(super) unacknowledged: IdMap<CallId, Unacknowledged>,
    /// Those who wait, by the batch they submitted.
    pub(super) batches: Batches,
    /// Their idempotency scopes and keys.
    pub(super) keys: HashMap<(String, String), (CallId, [u8; 32])>,
    /// Reports whose settlement has not been written yet.
    pub(super) reports: IdMap<AttemptId, Box<Report>>,
    /// The requests that answers asked for, of the same attempts.
    pub(super) redirects: IdMap<AttemptId, Box<Asked>>,
    /// Settlements that could not be stored, by call and attempt; they will be written as they are.
    pub(super) kept: IdMap<(CallId, Option<u32>), Box<Settle>>,
    /// Attempts that are out, and how to cut them off.
    pub(super) running: IdMap<AttemptId, Running>,
    /// Attempts that begin when their documents have been read.
    pub(super) unread: Vec<Unread>,
}

/// A call that is not durable yet.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    /// Its idempotency scope and key.
    pub(super) key: Option<(String, String)>,
    /// It came from a file of this name.
    pub(super) file: Option<Vec<u8>>,
    /// Whoever wants to see it.
    pub(super) viewer: Option<Viewer>,
    /// Nearly always one alone.
    first: Option<(Place, Accepted)>,
    more: Vec<(Place, Accepted)>,
}

impl Unacknowledged {
    pub(super) fn new(key: Option<(String, String)>, file: Option<Vec<u8>>) -> Self {
        Self { key, file, viewer: None, first: None, more: Vec::new() }
    }

    pub(super) fn wait(&mut self, place: Place, accepted: Accepted) {
        match self.first {
            None => self.first = Some((place, accepted)),
            Some(_) => self.more.push((place, accepted)),
        }
    }

    /// Those who wait, in the order they came; nobody waits then.
    fn waiting(&mut self) -> impl Iterator<Item = (Place, Accepted)> + use<> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.more))
    }
}

impl Pending {
    /// The call is durable: whoever waits for that is told.
    pub(super) fn acknowledge(&mut self, call: CallId) {
        let Some(mut call) = self.unacknowledged.remove(&call) else { return };
        if let Some(key) = call.key.take() {
            self.keys.remove(&key);
        }
        for (place, accepted) in call.waiting() {
            self.batches.answer(place, Ok(accepted));
        }
    }

    /// These writes were not stored. What is written again will be the same.
    pub(super) fn keep(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Insert(insert) => drop(self.inserts.insert(insert.call.id, insert)),
                Write::Settle(settle) => {
                    let number = settle.attempt.as_ref().map(|end| end.number);
                    self.kept.insert((settle.call, number), settle);
                }
                Write::Start(_)
                | Write::Close { .. }
                | Write::Release { .. }
                | Write::Filed(_)
                | Write::Mark { .. }
                | Write::Prune(_)
                | Write::FreeKey(_)
                | Write::Upstream(_)
                | Write::Open { .. } => {}
            }
        }
    }

    /// The call will not become durable: nothing of it is kept, and whoever waits is told why. The file it came from.
    pub(super) fn refuse(&mut self, call: CallId, error: impl Fn() -> SubmitError) -> Option<Vec<u8>> {
        self.inserts.remove(&call);
        self.kept.remove(&(call, None));
        let mut refused = self.unacknowledged.remove(&call)?;
        if let Some(key) = refused.key.take() {
            self.keys.remove(&key);
        }
        for (place, _) in refused.waiting() {
            self.batches.answer(place, Err(error()));
        }
        refused.file
    }

    /// Whoever waits for a call that came from no file is told that nobody knows what became of it.
    pub(super) fn refuse_clients(&mut self) {
        for call in self.unacknowledged.values_mut().filter(|call| call.file.is_none()) {
            for (place, _) in call.waiting() {
                self.batches.answer(place, Err(SubmitError::StoreFailed));
            }
        }
    }

    /// No call will become durable any more: whoever waits for that is told so.
    pub(super) fn refuse_all(&mut self) {
        for (_, mut call) in self.unacknowledged.drain() {
            for (place, _) in call.waiting() {
                self.batches.answer(place, Err(SubmitError::StoreFailed));
            }
        }
    }
}
