//! What the loop is told, by whom.
//!
//! Handles, the journal and the filer send messages and own nothing of the loop. What attempts tell is in `news`.

use std::sync::Arc;

use farcall_core::call::State;
use farcall_core::dispatcher::{Seq, StaleAsk, Standing};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::port::ReadError;
use farcall_store::record::EndedRecord;
use tokio::sync::oneshot;

use super::batches::Answers;
use super::load::Found;
use crate::config::Config;
use crate::document::UpstreamRef;
use crate::handle::{Overview, Submission};
use crate::journal::FailedCommit;
use crate::upstreams::{Serves, UpstreamError};

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// From a handle.
    Submit {
        submissions: Vec<Submission>,
        reply: oneshot::Sender<Answers>,
    },
    Standing {
        call: CallId,
        reply: oneshot::Sender<Option<Standing>>,
    },
    /// Why a call waits that only the store holds.
    StoredStanding {
        place: (UpstreamRef, Serves),
        state: State,
        ready_at: Steady,
        reply: oneshot::Sender<Option<Standing>>,
    },
    Overview {
        reply: oneshot::Sender<Overview>,
    },
    Reload {
        config: Arc<Config>,
        reply: oneshot::Sender<Result<(), UpstreamError>>,
    },
    Drain,
    /// From the journal: every turn up to this one is durable.
    Committed {
        seq: Seq,
    },
    CommitFailed(Box<FailedCommit>),
    /// Nothing certain is known of the last commit, and the store is being opened again.
    StoreBroken {
        error: String,
    },
    /// From the task that reads waiting calls.
    Loaded(Result<Found, ReadError>),
    /// From the task that looks for calls that ended long ago.
    StaleFound {
        ask: StaleAsk,
        found: Result<Vec<EndedRecord>, ReadError>,
    },
    /// From the filer: the files of these calls are in place.
    Filed {
        calls: Vec<CallId>,
    },
}
