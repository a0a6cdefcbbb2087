//! Calls that somebody waits for: handed over and answered in one step, and gone with whoever waited.
//!
//! They go through the same dispatcher as all others, under the same limits; nothing of them is stored. What a request may
//! be is read here, before the loop hears of it; what is decided of it stands in the core, how it is made in `run`.

mod body;
mod places;
mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Overrides, Source, Via, WaitReason};
use farcall_core::hedge::Hedging;
use farcall_core::id::CallId;
use farcall_core::retry::{RetryPolicy, StatusSet};
use farcall_core::time::Instant;
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;

pub use body::{BodyError, ForwardBody, ForwardedBody, RequestBody};
pub(crate) use places::{Place, Places};
pub(crate) use target::Target;

use crate::clock;
use crate::handle::Handle;
use crate::run::{Leaving, Message};
use crate::trace::TraceContext;

/// A request that somebody waits with for its answer.
#[derive(Debug)]
pub struct Forward {
    /// Where it came in: the proxy, a route, or the library.
    pub source: Source,
    /// The declared upstream that it goes to, by name.
    pub upstream: String,
    pub method: http::Method,
    /// Path and query below the upstream's `base_url`, as the client wrote them.
    pub target: String,
    /// The client's, without those of the connection, the host, and farcall's own. The upstream's `headers` go before
    /// them.
    pub headers: HeaderMap,
    pub body: ForwardBody,
    /// How long all of it may take, from now on: waiting for a permit, connecting, retries and hedges. Without one the
    /// upstream's `deadline` holds.
    pub timeout: Option<Duration>,
    pub overrides: ForwardOverrides,
    pub answer: AnswerMode,
    /// The trace it belongs to; unless the client's headers carry one themselves.
    pub trace: Option<TraceContext>,
    /// In whose name it acts.
    pub via: Via,
}

/// What a request sets for itself, over its upstream's policy.
#[derive(Debug, Clone, Default)]
pub struct ForwardOverrides {
    pub success: ForwardSuccess,
    pub hedge: Option<Hedging>,
    pub retry: Option<RetryPolicy>,
}

/// What counts as success, where that is not as the upstream has it.
#[derive(Debug, Clone, Default)]
pub struct ForwardSuccess {
    pub statuses: Option<StatusSet>,
    /// A media type without parameters, in lower case.
    pub content_type: Option<String>,
    /// The body must be JSON. Of streamed answers nobody knows that.
    pub parses_as_json: bool,
}

/// What whoever waits is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerMode {
    /// The answer as the upstream sent it, its coding untouched.
    Streamed,
    /// The complete answer, its coding removed, of at most `max_response` bytes; success is judged on the whole of it.
    Whole,
}

/// An answer.
#[derive(Debug)]
pub struct Forwarded {
    pub id: CallId,
    /// How many attempts were made up to now.
    pub attempts: u32,
    pub status: StatusCode,
    /// As the upstream sent them, those of its connection included; without `content-encoding` and `content-length` when
    /// the body was decoded.
    pub headers: HeaderMap,
    pub body: ForwardedBody,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("no upstream is called {name:?}")]
    UnknownUpstream { name: String },
    /// It is no request that can be sent to this upstream. Nothing was sent.
    #[error("{0}")]
    Rejected(String),
    /// Too many wait for answers already. Nothing was sent.
    #[error("too many requests wait for answers")]
    Overloaded { retry_after: Duration },
    /// It could not have started in time, or its upstream is left alone because it fails. Nothing was sent.
    #[error("the call cannot start in time: {reason}")]
    Refused { reason: WaitReason, retry_after: Duration },
    #[error("farcall is stopping")]
    Draining,
    /// Its deadline passed.
    #[error("the deadline passed")]
    Expired { id: CallId, attempts: u32 },
    /// It was cancelled through the API.
    #[error("the call was cancelled")]
    Cancelled { id: CallId, attempts: u32 },
    /// No attempt brought an answer.
    #[error("{message}")]
    Failed { id: CallId, kind: ErrorKind, message: String, attempts: u32 },
}

/// What the loop is handed.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) id: CallId,
    pub(crate) source: Source,
    pub(crate) deadline: Option<Instant>,
    pub(crate) overrides: Option<Box<Overrides>>,
    pub(crate) request: Arc<Request>,
    pub(crate) reply: oneshot::Sender<Result<Forwarded, ForwardError>>,
    pub(crate) place: Place,
}

/// What the attempts of a call are made of.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) upstream: String,
    pub(crate) method: http::Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<String>,
    pub(crate) parses_as_json: bool,
    pub(crate) answer: AnswerMode,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) via: Via,
}

/// Somebody waits; when this is dropped, nobody does any more.
struct Waiting {
    call: CallId,
    leaving: Leaving,
    /// There was an answer, or there will be none: nobody need be told.
    is_over: bool,
}

impl Handle {
    /// Makes a call that somebody waits for: nothing of it is stored. Dropping the future, or the answer's body, cancels
    /// the call, and closes the upstream's connection.
    ///
    /// The last answer of the upstream is given as it is, whatever its status, when no better one came.
    ///
    /// # Errors
    /// When there is no answer. Unless the error has an id, nothing was sent.
    pub async fn forward(&self, forward: Forward) -> Result<Forwarded, ForwardError> {
        let now = clock::now();
        let place = self.places.take(now.instant).map_err(|retry_after| ForwardError::Overloaded { retry_after })?;
        let id = CallId::new(now.timestamp, fastrand::u128(..));
        let (timeout, source) = (forward.timeout, forward.source);
        let (request, overrides) = self.understand(forward).await?;
        let (reply, answer) = oneshot::channel();
        let deadline = timeout.map(|timeout| now.instant + timeout);
        let offer = Offer { id, source, deadline, overrides, request: Arc::new(request), reply, place };
        let mut waiting = Waiting { call: id, leaving: self.leaving.clone(), is_over: false };
        self.messages.send(Message::Forward(Box::new(offer))).await.map_err(|_| ForwardError::Draining)?;
        let answered = answer.await.unwrap_or(Err(ForwardError::Draining));
        waiting.is_over = true;
        answered
    }

    /// What is sent, and what of its upstream's policy it changes.
    async fn understand(&self, forward: Forward) -> Result<(Request, Option<Box<Overrides>>), ForwardError> {
        let Forward { upstream, method, target, headers, body, overrides, answer, trace, via, .. } = forward;
        let config = self.config();
        let Some(settings) = config.upstreams.get(&upstream) else {
            return Err(ForwardError::UnknownUpstream { name: upstream });
        };
        let base = settings.base_url.as_ref().expect("a declared upstream has a base_url");
        let target = target::below(base, &target).map_err(|what| ForwardError::Rejected(what.into()))?;
        let body = body.collect().await?;
        let ForwardOverrides { success: ForwardSuccess { statuses, content_type, parses_as_json }, hedge, retry } =
            overrides;
        let content_type = content_type.or_else(|| settings.success.content_type.clone());
        let overrides = Overrides { success_statuses: statuses, hedge, retry, ..Overrides::default() };
        let overrides = (overrides != Overrides::default()).then(|| Box::new(overrides));
        let request =
            Request { upstream, method, target, headers, body, content_type, parses_as_json, answer, trace, via };
        Ok((request, overrides))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            self.leaving.abandon(self.call);
        }
    }
}
