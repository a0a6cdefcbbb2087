//! The engine as everybody else sees it: a cheap handle with methods.
//!
//! Servers, the command line and the inbox submit calls and look at them through this; none of them touches the store
//! or the dispatcher. Reads go to readers of their own and never hold the engine up.

mod explain;
mod upstreams;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use farcall_core::call::{Source, State, Via, WaitReason};
use farcall_core::dispatcher::{Census, Standing};
use farcall_core::id::CallId;
use farcall_core::time::{Instant, Timestamp};
use farcall_store::port::ReadError;
use farcall_store::record::{AttemptRecord, CallRecord, FileIdentity, OutcomeRecord, ResponseRecord};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock;
use crate::config::{Config, Live};
use crate::document::{Document, Rejection};
use crate::forward::Places;
use crate::intake::{Status, Waker};
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::reads::{Own, Reads};
use crate::run::{Guest, Leaving, Message, Sight, StandingAsk, next_reference};
use crate::trace::TraceContext;
use crate::upstreams::UpstreamError;
use crate::watch::News;

pub use explain::{Explained, HedgingView};
pub use upstreams::{ControlError, LimitView, Setting, UpstreamView};

/// Submissions that the engine takes in at one go.
pub const SUBMISSIONS_MAX: usize = 1_000;

/// A call to be accepted.
#[derive(Debug)]
pub struct Submission {
    pub document: Box<Document>,
    /// The document's bytes; stored, and parsed again when an attempt is made.
    pub bytes: Bytes,
    pub source: Source,
    /// In whose name it acts; to which addresses it may go depends on it.
    pub via: Via,
    /// The file it came from.
    pub file: Option<FileIdentity>,
    /// Whose idempotency keys count; empty for the user.
    pub scope: String,
    /// The call that it is made again of.
    pub retry_of: Option<CallId>,
    /// The id it gets, which no call may have had before; nothing for one of the engine's choice.
    pub id: Option<CallId>,
}

/// A call that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub id: CallId,
    /// An earlier call had the same key and content: this is that one.
    pub is_replay: bool,
}

/// Why a call was not accepted. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The key names an earlier call with other content.
    #[error("the idempotency key {key:?} belongs to call {holder}, which has other content")]
    KeyReused { key: String, holder: CallId },
    #[error("the store is full: {free_bytes} bytes are free and {min_free} must stay free")]
    StoreFull { free_bytes: u64, min_free: u64 },
    #[error("the disk is full and the call could not be stored")]
    NoSpace,
    #[error("the store cannot be written")]
    StoreFailed,
    #[error("farcall is stopping and accepts no more calls")]
    Draining,
}

/// Why another configuration was not put in place. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("farcall is stopping")]
    Stopping,
}

/// Everything that is known of one call.
#[derive(Debug, Clone)]
pub struct CallView {
    pub record: CallRecord,
    pub wait_reason: Option<WaitReason>,
    pub next_at: Option<Timestamp>,
    /// The headers of the request as given, names in lower case, secrets masked.
    pub request_headers: Vec<(String, String)>,
    /// Kept when the call has ended with an answer.
    pub response: Option<ResponseRecord>,
    /// The trace it belongs to, when whoever sent it said so; not told of calls in a list.
    pub(crate) trace: Option<TraceContext>,
}

impl CallView {
    /// The store tells the state, but that the time of a scheduled call has come is not written: the engine knows.
    pub(crate) fn stand(&mut self, standing: Option<Standing>) {
        let Some(standing) = standing else { return };
        let progress = &mut self.record.progress;
        if standing.state == State::Queued && progress.state == State::Scheduled {
            progress.state = standing.state;
        }
        self.wait_reason = standing.wait_reason;
        if let Some(at) = standing.next_at {
            self.next_at = Some(clock::now().timestamp_of(at));
        }
    }
}

/// The engine as a whole, consistent in itself: taken after a commit.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub census: Census,
    pub in_flight: u32,
    pub is_draining: bool,
    /// Until when attempts in flight may go on, once it is.
    pub drains_until: Option<Instant>,
    pub store: StoreHealth,
    /// When the store last began not to do well; nothing once it was written again, or has space.
    pub unwell_since: Option<Instant>,
    /// What the store said, while it does not do well.
    pub store_error: Option<String>,
    /// Ended calls whose files are not in place yet.
    pub unfiled: u64,
    /// Attempts made since the start.
    pub attempts: u64,
    /// Stored calls met since the start that do not read back. They are counted as what they are, and never end.
    pub damaged: u64,
}

/// How the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreHealth {
    #[default]
    Ok,
    /// There is no space: calls are refused, and nothing is sent while something cannot be stored.
    Full,
    /// A commit failed, and the store is being opened again; nothing is sent.
    Recovering,
    /// It could not be opened again for a while; nothing is sent. It is still tried.
    Failed,
}

/// One line per upstream, for people who watch.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    pub upstreams: Vec<UpstreamOverview>,
    /// The callbacks of all of them.
    pub callbacks: UpstreamOverview,
    /// Waiting calls by reason.
    pub waiting: Vec<(WaitReason, u64)>,
    /// The earliest moment at which a waiting call may go on.
    pub next_at: Option<Timestamp>,
}

/// What one upstream has done since the start, and what waits for it.
#[derive(Debug, Clone, Default)]
pub struct UpstreamOverview {
    pub name: String,
    /// Ended calls, by end.
    pub ended: Vec<(State, u64)>,
    pub attempts: u64,
    /// Calls that may start and wait for a permit.
    pub waiting: u64,
    pub in_flight: u32,
    pub is_paused: bool,
    /// Sum and maximum of the attempts' latencies.
    pub latency_ms_sum: u64,
    pub latency_ms_max: u64,
}

impl UpstreamOverview {
    /// Counts what another has done as this one's; the name stays.
    pub(crate) fn add(&mut self, other: Self) {
        for (state, count) in other.ended {
            match self.ended.iter_mut().find(|(own, _)| *own == state) {
                Some((_, own)) => *own += count,
                None => self.ended.push((state, count)),
            }
        }
        self.attempts += other.attempts;
        self.waiting += other.waiting;
        self.in_flight += other.in_flight;
        self.is_paused |= other.is_paused;
        self.latency_ms_sum += other.latency_ms_sum;
        self.latency_ms_max = self.latency_ms_max.max(other.latency_ms_max);
    }
}

/// A handle to a running engine.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) news: broadcast::Sender<News>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) config: Live,
    /// Told of every call that has ended.
    pub(crate) ends: broadcast::WeakSender<CallId>,
    /// What the engine had done when it ended.
    pub(crate) last_overview: Arc<OnceLock<Overview>>,
    pub(crate) metrics: Arc<Metrics>,
    /// How the inbox stands, for an engine that watches one.
    pub(crate) inbox: Option<watch::Receiver<Status>>,
    /// For calls that somebody waits for.
    pub(crate) places: Places,
    pub(crate) leaving: Leaving,
    /// Its settings may have changed.
    pub(crate) inbox_waker: Option<Waker>,
}

impl Handle {
    /// The configuration that holds now.
    pub fn config(&self) -> Arc<Config> {
        self.config.now()
    }

    /// The same, to be asked again and again.
    pub(crate) fn live_config(&self) -> Live {
        self.config.clone()
    }

    /// Puts another configuration in the place of the one that holds. Limits go on counting what was sent; attempts in
    /// flight go on as they were launched; upstreams that are gone keep their calls until they come back. What only a
    /// start reads ([`needs_restart`](crate::config::needs_restart)) stays as it was.
    ///
    /// # Errors
    /// When it cannot be used; nothing has changed then.
    pub async fn reload(&self, config: Arc<Config>) -> Result<(), ReloadError> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Reload { config, reply }).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.map_err(|_| ReloadError::Stopping)??;
        if let Some(inbox) = &self.inbox_waker {
            inbox.wake();
        }
        Ok(())
    }

    /// Hands a call to the engine and waits until it is durable.
    ///
    /// # Errors
    /// When the call is not accepted; nothing of it is kept then.
    pub async fn submit(&self, submission: Submission) -> Result<Accepted, SubmitError> {
        self.submit_some(vec![submission]).await.pop().unwrap_or(Err(SubmitError::StoreFailed))
    }

    /// The same, with the call as it was when it became durable; nothing of that for a replay, nor of a call that waits
    /// behind so many others that only the store holds it: [`Handle::call`] reads those.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub async fn submit_seen(&self, submission: Submission) -> Result<(Accepted, Option<CallView>), SubmitError> {
        let own = Own::from(&*submission.document);
        let (viewer, mut sight) = oneshot::channel();
        let accepted = self.hand_over(vec![submission], Some(viewer)).await.pop();
        let accepted = accepted.unwrap_or(Err(SubmitError::StoreFailed))?;
        let seen = sight.try_recv().ok().map(|(record, standing)| self.reads.new_call(record, standing, own));
        Ok((accepted, seen))
    }

    /// Hands many calls to the engine and waits until all that are accepted are durable: for each, in their order, what
    /// [`Handle::submit`] says of it. Each is judged by itself, so some may be accepted and others not.
    ///
    /// Cheaper than one by one; [`SUBMISSIONS_MAX`] at a time are handed over.
    pub async fn submit_many(&self, mut submissions: Vec<Submission>) -> Vec<Result<Accepted, SubmitError>> {
        let mut answers = Vec::with_capacity(submissions.len());
        while submissions.len() > SUBMISSIONS_MAX {
            let rest = submissions.split_off(SUBMISSIONS_MAX);
            answers.extend(self.submit_some(std::mem::replace(&mut submissions, rest)).await);
        }
        answers.extend(self.submit_some(submissions).await);
        answers
    }

    /// Everything known of a call; nothing for an unknown id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn call(&self, id: CallId) -> Result<Option<CallView>, ReadError> {
        let Some(mut view) = self.reads.call_view(id).await? else { return Ok(self.guest(id).await) };
        self.add_standings(std::slice::from_mut(&mut view)).await;
        Ok(Some(view))
    }

    /// A call that somebody waits for, while it has not ended.
    async fn guest(&self, call: CallId) -> Option<CallView> {
        let (reply, guest) = oneshot::channel();
        // An engine that is gone has none.
        let _ = self.messages.send(Message::Guest { call, reply }).await;
        guest.await.ok().flatten().map(|guest| self.view_of(guest))
    }

    /// All such calls, the newest first.
    pub(crate) async fn guests(&self) -> Vec<CallView> {
        let (reply, guests) = oneshot::channel();
        let _ = self.messages.send(Message::Guests { reply }).await;
        guests.await.unwrap_or_default().into_iter().map(|guest| self.view_of(guest)).collect()
    }

    fn view_of(&self, (record, request, standing): Guest) -> CallView {
        let own = Own::of_request(&request.headers, request.trace.clone());
        self.reads.new_call(record, standing, own)
    }

    /// Why calls wait, of the running engine's own knowledge; an engine that is gone has none.
    pub(crate) async fn add_standings(&self, views: &mut [CallView]) {
        let mut waiting: Vec<&mut CallView> =
            views.iter_mut().filter(|view| !view.record.progress.state.is_end()).collect();
        if waiting.is_empty() {
            return;
        }
        let asked = waiting.iter().map(|view| standing_ask(&view.record)).collect();
        let (reply, standings) = oneshot::channel();
        let _ = self.messages.send(Message::Standings { asked, reply }).await;
        for (view, standing) in waiting.iter_mut().zip(standings.await.unwrap_or_default()) {
            view.stand(standing);
        }
    }

    /// The attempts of a call by number; nothing for an unknown id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn attempts(&self, id: CallId) -> Result<Option<Vec<AttemptRecord>>, ReadError> {
        self.reads.attempts(id).await
    }

    /// Every call that ends from now on, once that is durable; nothing when the engine is gone. Whoever takes them
    /// slowly misses some and is told so.
    pub fn ends(&self) -> Option<broadcast::Receiver<CallId>> {
        Some(self.ends.upgrade()?.subscribe())
    }

    /// The states of these calls, in their order; nothing for an unknown id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn states(&self, ids: Vec<CallId>) -> Result<Vec<Option<State>>, ReadError> {
        self.reads.states(ids).await
    }

    /// Calls with their documents and answers, in their order; nothing for an unknown id. After the first only as many
    /// as fit into so many bytes; the others are left out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outcomes(&self, ids: Vec<CallId>, bytes_max: usize) -> Result<Vec<Option<OutcomeRecord>>, ReadError> {
        self.reads.outcomes(ids, bytes_max).await
    }

    /// The latest consistent counts.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Told whenever the counts change.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// How the inbox stands, now and later; nothing for an engine that watches none.
    pub fn inbox(&self) -> Option<watch::Receiver<Status>> {
        self.inbox.clone()
    }

    /// Free bytes where the store lies.
    ///
    /// # Errors
    /// When the file system does not say.
    pub async fn free_bytes(&self) -> Result<u64, ReadError> {
        self.reads.free_bytes().await
    }

    /// What each upstream does; costs time in proportion to the waiting calls. Of an engine that has ended, how it
    /// stood then.
    pub async fn overview(&self) -> Overview {
        let (reply, overview) = oneshot::channel();
        // An engine that is gone answers nothing.
        let _ = self.messages.send(Message::Overview { reply }).await;
        match overview.await {
            Ok(overview) => overview,
            Err(_) => self.last_overview.get().cloned().unwrap_or_default(),
        }
    }

    async fn submit_some(&self, submissions: Vec<Submission>) -> Vec<Result<Accepted, SubmitError>> {
        self.hand_over(submissions, None).await
    }

    async fn hand_over(
        &self,
        submissions: Vec<Submission>,
        viewer: Option<oneshot::Sender<Sight>>,
    ) -> Vec<Result<Accepted, SubmitError>> {
        let count = submissions.len();
        let refused = |error: fn() -> SubmitError| std::iter::repeat_with(|| Err(error())).take(count).collect();
        let (reply, answers) = oneshot::channel();
        if self.messages.send(Message::Submit { submissions, viewer, reply }).await.is_err() {
            return refused(|| SubmitError::Draining);
        }
        answers.await.unwrap_or_else(|_| refused(|| SubmitError::StoreFailed))
    }

    /// Starts nothing more. Attempts in flight have `drain_timeout` to finish; what waits stays.
    pub async fn drain(&self) {
        let _ = self.messages.send(Message::Drain).await;
    }
}

fn standing_ask(record: &CallRecord) -> StandingAsk {
    let progress = &record.progress;
    let place = next_reference(record).zip(progress.ready_at);
    StandingAsk { call: record.id, place: place.map(|(place, ready_at)| (place, progress.state, ready_at)) }
}
