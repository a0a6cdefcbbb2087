//! Upstreams through the handle: how they stand, and what can be set there while they are at work.
//!
//! What a setting means, and when it holds, is the loop's matter (`run/control`).

use std::sync::Arc;
use std::time::Duration;

use farcall_core::breaker::BreakerState;
use farcall_core::call::WaitReason;
use farcall_core::dispatcher::UpstreamStanding;
use farcall_core::limit::Admission;
use farcall_core::policy::LimitSpec;
use farcall_core::time::{Instant, Now, Timestamp};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Handle;
use crate::config::{PatchDocument, Upstream};
use crate::document::{Rejection, UpstreamRef};
use crate::run::Message;
use crate::upstreams::{Known, UpstreamError, limit_key};

/// How long it is waited until something is stored and holds, before nobody can say whether it ever will be.
const STORED_WITHIN: Duration = Duration::from_secs(15);

/// One upstream: its policy, and how it stands at this moment.
#[derive(Debug, Clone)]
pub struct UpstreamView {
    /// Its name, or its origin when it is not declared.
    pub name: String,
    pub is_declared: bool,
    /// The configuration has it no longer: its calls wait until it is back.
    pub is_missing: bool,
    /// What holds, patches and defaults included.
    pub settings: Arc<Upstream>,
    /// The keys that are patched.
    pub patched: Vec<String>,
    /// Somebody paused it.
    pub is_paused: bool,
    /// It asked everybody to keep away until then.
    pub closed_until: Option<Timestamp>,
    /// By what it said of its quota so many more attempts may start until then, beside those that are out.
    pub told: Option<(u64, Timestamp)>,
    /// How its breaker stands, where it has one, and until when nothing starts while it is open.
    pub breaker: Option<(BreakerState, Option<Timestamp>)>,
    /// Calls that wait for it.
    pub waiting: u64,
    /// Attempts of its calls that are out, and how many may be.
    pub in_flight: u32,
    pub concurrency: u32,
    /// Why its next call does not start, if one waits, and until when that is known to last.
    pub wait_reason: Option<WaitReason>,
    pub next_at: Option<Timestamp>,
    pub limits: Vec<LimitView>,
    /// With `smooth`: how far apart attempts are, and when the next may be.
    pub spacing: Option<(Duration, Timestamp)>,
}

/// One limit, and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitView {
    pub spec: LimitSpec,
    /// Slots in use: more than there are for a while after their number was lowered.
    pub used: u32,
    /// When a slot is free next; nothing when one is, or when that rests on attempts that are out.
    pub next_free_at: Option<Timestamp>,
}

/// What can be set at an upstream that is at work.
#[derive(Debug, Clone)]
pub enum Setting {
    /// Starts nothing there, also after a restart.
    Pause,
    /// Starts again, also what the upstream itself asked to wait, or what its breaker kept back.
    Resume,
    Patch(PatchDocument),
}

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no upstream of this name")]
    Unknown,
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Unusable(#[from] UpstreamError),
    /// It holds in this process, and is stored once the store works again.
    #[error("the change holds now and is not stored yet")]
    NotStored,
    #[error("farcall is stopping")]
    Stopping,
}

impl UpstreamView {
    /// Where nothing is patched and nobody paused it.
    pub(crate) fn new(known: &Known, standing: &UpstreamStanding, now: Now) -> Self {
        let time = |at: Instant| now.timestamp_of(at);
        Self {
            name: limit_key(&known.reference).to_owned(),
            is_declared: matches!(*known.reference, UpstreamRef::Declared(_)),
            is_missing: standing.is_withdrawn,
            settings: Arc::clone(&known.settings),
            patched: Vec::new(),
            is_paused: false,
            closed_until: standing.closed_until.map(time),
            told: standing.told.map(|(remaining, until)| (remaining, time(until))),
            breaker: standing.breaker.map(|breaker| (breaker.state, breaker.open_until.map(time))),
            waiting: standing.waiting,
            in_flight: standing.in_flight,
            concurrency: standing.concurrency,
            wait_reason: standing.blocked,
            next_at: standing.blocked_until.map(time),
            limits: standing.limits.iter().map(|usage| LimitView::new(usage, now)).collect(),
            spacing: standing.spacing.map(|spacing| (spacing.interval, time(spacing.next()))),
        }
    }
}

impl LimitView {
    fn new(usage: &farcall_core::limit::Usage, now: Now) -> Self {
        let next_free_at = match usage.next {
            Admission::NotBefore(at) => Some(now.timestamp_of(at)),
            Admission::Ready | Admission::Full => None,
        };
        Self { spec: usage.spec, used: usage.used, next_free_at }
    }
}

impl Handle {
    /// Every upstream: declared ones by name, then those that calls have brought in, by origin. Of an engine that is gone
    /// none.
    pub async fn upstreams(&self) -> Vec<UpstreamView> {
        let (reply, views) = oneshot::channel();
        let _ = self.messages.send(Message::Upstreams { reply }).await;
        views.await.unwrap_or_default()
    }

    /// The upstream of this name, or of this origin when it is not declared.
    pub async fn upstream(&self, name: &str) -> Option<UpstreamView> {
        let (reply, view) = oneshot::channel();
        let _ = self.messages.send(Message::Upstream { name: name.to_owned(), reply }).await;
        view.await.ok().flatten()
    }

    /// Sets something at an upstream; it holds and is durable when this answers. A limit that is lowered holds for all
    /// that arrives from then on, what was sent before counted.
    ///
    /// # Errors
    /// When nothing was set; with [`ControlError::NotStored`] it is, but not durably yet.
    pub async fn set_upstream(&self, name: &str, setting: Setting) -> Result<UpstreamView, ControlError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::SetUpstream { name: name.to_owned(), setting, reply };
        self.messages.send(message).await.map_err(|_| ControlError::Stopping)?;
        let answer = timeout(STORED_WITHIN, answer).await.map_err(|_| ControlError::NotStored)?;
        answer.map_err(|_| ControlError::Stopping)??;
        self.upstream(name).await.ok_or(ControlError::Stopping)
    }
}
