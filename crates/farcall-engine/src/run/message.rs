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
use super::explain::{ReadLane, StoredCall};
use super::load::Found;
use super::seen::Sight;
use super::watchers::CancelAnswer;
use crate::config::Config;
use crate::document::UpstreamRef;
use crate::forward::Offer;
use crate::handle::{ControlError, Explained, Overview, Setting, Submission, UpstreamView};
use crate::journal::FailedCommit;
use crate::metrics::Measured;
use crate::upstreams::{Serves, UpstreamError};

/// A call of which it is asked why it waits.
#[derive(Debug)]
pub(crate) struct StandingAsk {
    pub(crate) call: CallId,
    /// Its place in a lane, if it has one, in case that only the store holds it: where it goes, its state, and from when on.
    pub(crate) place: Option<((UpstreamRef, Serves), State, Steady)>,
}

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// From a handle.
    Submit {
        submissions: Vec<Submission>,
        /// Whoever wants to see the first of them once it is durable.
        viewer: Option<oneshot::Sender<Sight>>,
        reply: oneshot::Sender<Answers>,
    },
    /// A call that somebody waits for.
    Forward(Box<Offer>),
    /// Why calls wait, in their order.
    Standings {
        asked: Vec<StandingAsk>,
        reply: oneshot::Sender<Vec<Option<Standing>>>,
    },
    Cancel {
        call: CallId,
        reply: oneshot::Sender<CancelAnswer>,
    },
    /// Tells when a call has ended that has not yet.
    Watch {
        call: CallId,
        reply: oneshot::Sender<()>,
    },
    Overview {
        reply: oneshot::Sender<Overview>,
    },
    /// How things stand, for the metrics.
    Measure {
        reply: oneshot::Sender<Measured>,
    },
    /// Why a call waits; `stored` is what the store has of it, `read` calls of lanes that an earlier answer named.
    Explain {
        call: CallId,
        stored: Option<StoredCall>,
        read: Vec<ReadLane>,
        reply: oneshot::Sender<Option<Explained>>,
    },
    Upstreams {
        reply: oneshot::Sender<Vec<UpstreamView>>,
    },
    Upstream {
        name: String,
        reply: oneshot::Sender<Option<UpstreamView>>,
    },
    SetUpstream {
        name: String,
        setting: Setting,
        reply: oneshot::Sender<Result<(), ControlError>>,
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
        /// How much the store holds, where that has a limit.
        stored_bytes: Option<u64>,
        found: Result<Vec<EndedRecord>, ReadError>,
    },
    /// From the filer: the files of these calls are in place.
    Filed {
        calls: Vec<CallId>,
    },
}
