//! Why a call waits, through the handle: what holds it, who goes before it, when it will start.
//!
//! What the loop cannot know without the store is read here, between two questions.

use std::time::Duration;

use farcall_core::call::{State, WaitReason};
use farcall_core::dispatcher::{HedgeStanding, Held};
use farcall_core::hedge::HeldBack;
use farcall_core::id::CallId;
use farcall_core::time::{Now, Timestamp};
use farcall_store::port::{LaneRange, ReadError, WaitingAsk};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{CallView, Handle, UpstreamView};
use crate::run::{Message, ReadLane, StoredCall};

/// Lanes that are read for one question.
const LANES_MAX: usize = 64;
/// How often the loop is asked again with what was read.
const ROUNDS_MAX: usize = 4;

/// How often, and after how long, the store is looked at again while it is behind the engine.
const COMMITS_MAX: usize = 50;
const COMMIT_WAIT: Duration = Duration::from_millis(2);

/// What is known of why a call waits.
#[derive(Debug, Clone)]
pub struct Explained {
    pub state: State,
    pub wait_reason: Option<WaitReason>,
    /// Until when at least, where that is known.
    pub next_at: Option<Timestamp>,
    pub is_cancel_requested: bool,
    /// Calls that go before it, and whether there are just so many or these at least; nothing when it waits for no turn.
    pub ahead: Option<(usize, bool)>,
    /// When it starts, if nothing changes.
    pub starts_at: Option<Timestamp>,
    /// What holds up every call.
    pub held: Option<Held>,
    /// Attempts of the upstream's calls that are out, and how many may be.
    pub concurrency: (u32, u32),
    /// Where it goes; nothing for a callback that runs a command.
    pub upstream: Option<UpstreamView>,
    /// What is to be read to know more.
    pub(crate) missing: Vec<LaneRange>,
    /// How its attempts are hedged, while it runs and they may be.
    pub hedging: Option<HedgingView>,
}

/// How a call that runs is hedged.
#[derive(Debug, Clone, Copy)]
pub struct HedgingView {
    /// Attempts that were added to the present try, of those that may be.
    pub made: u32,
    pub extra: u32,
    /// When it is looked at next whether one is added.
    pub next_at: Option<Timestamp>,
    /// Why none was added when it was looked at.
    pub held_back: Option<HeldBack>,
}

impl HedgingView {
    pub(crate) fn new(standing: HedgeStanding, now: Now) -> Self {
        let HedgeStanding { made, extra, next_at, held_back } = standing;
        Self { made, extra, next_at: next_at.map(|at| now.timestamp_of(at)), held_back }
    }
}

impl Handle {
    /// A call, and why it waits; of one that has ended, or while the engine is gone, the call alone. Nothing for an
    /// unknown id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn explain(&self, id: CallId) -> Result<Option<(CallView, Option<Explained>)>, ReadError> {
        let Some(mut view) = self.call(id).await? else { return Ok(None) };
        if view.record.progress.state.is_end() {
            return Ok(Some((view, None)));
        }
        let mut read: Vec<ReadLane> = Vec::new();
        let mut explained = None;
        for _ in 0..ROUNDS_MAX {
            let (reply, answer) = oneshot::channel();
            let stored = StoredCall::of(&view.record);
            let message = Message::Explain { call: id, stored, read: read.clone(), reply };
            // An engine that is gone explains nothing.
            let _ = self.messages.send(message).await;
            explained = answer.await.ok().flatten();
            let Some(answer) = &explained else { break };
            let is_new = |range: &&LaneRange| !read.iter().any(|read| read.range.lane == range.lane);
            let wanted: Vec<LaneRange> =
                answer.missing.iter().filter(is_new).take(LANES_MAX.saturating_sub(read.len())).cloned().collect();
            if wanted.is_empty() {
                break;
            }
            read.extend(self.read_lanes(wanted).await?);
        }
        // What the engine has decided is on its way to the store: what is told of both is to be of one moment.
        let is_ahead = |view: &CallView| {
            let retries = explained.as_ref().is_some_and(|explained| explained.state == State::Retrying);
            retries && view.record.progress.state == State::Running
        };
        for _ in 0..COMMITS_MAX {
            if !is_ahead(&view) {
                break;
            }
            sleep(COMMIT_WAIT).await;
            let Some(stored) = self.reads.call_view(id).await? else { return Ok(None) };
            view.record = stored.record;
        }
        Ok(Some((view, explained)))
    }

    async fn read_lanes(&self, ranges: Vec<LaneRange>) -> Result<Vec<ReadLane>, ReadError> {
        let found = self.reads.with(move |reader| {
            let found = reader.waiting(WaitingAsk { lanes: &ranges, expiring: 0 })?.found.lanes;
            Ok(ranges.into_iter().zip(found).map(|(range, calls)| ReadLane { range, calls }).collect())
        });
        found.await
    }
}
