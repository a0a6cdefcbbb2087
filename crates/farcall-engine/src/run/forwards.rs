//! Calls that somebody waits for: offered, made, and answered. Nothing of them is stored.
//!
//! What the dispatcher decides of them it tells with each turn; here it is counted, told to those who follow, and the
//! answer handed to whoever waits. What they came as is in `forward`.

use std::sync::Arc;

use farcall_core::call::{CallSpec, Durability, ErrorKind, Method, Priority, State, TenantId, UpstreamId};
use farcall_core::dispatcher::{AttemptEnd, Effect, Event, Progress, Refusal, Write};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::id_map::IdMap;
use farcall_core::time::Now;
use farcall_store::record::ResponseRecord;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::oneshot;

use super::attempts::{Attempt, Way, unsent};
use super::news::{News, Told};
use super::{Run, writes};
use crate::clock;
use crate::document::UpstreamRef;
use crate::execute::Report;
use crate::forward::{AnswerMode, ForwardError, Forwarded, ForwardedBody, Offer, Place, Request};
use crate::request;
use crate::upstreams::Serves;

/// Everybody who waits for an answer.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    calls: IdMap<CallId, Waiting>,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    request: Arc<Request>,
    reply: oneshot::Sender<Result<Forwarded, ForwardError>>,
    attempts: u32,
    /// The last answer that was complete, given when no better one comes.
    answer: Option<ResponseRecord>,
    _place: Place,
}

/// How those who wait say that they do not any more.
#[derive(Debug, Clone)]
pub(crate) struct Leaving(pub(super) Arc<News>);

impl Leaving {
    /// Nobody waits for this call any more.
    pub(crate) fn abandon(&self, call: CallId) {
        self.0.tell(Told::Abandoned { call });
    }
}

impl Forwards {
    /// What an attempt of this call is made of.
    pub(super) fn request(&self, call: CallId) -> Option<Arc<Request>> {
        self.calls.get(&call).map(|waiting| Arc::clone(&waiting.request))
    }

    /// Tells those that are turned away: nothing of their calls was sent.
    pub(super) fn refuse(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let &Effect::Refused { call, refusal: Refusal { reason, retry_after } } = effect
                && let Some(waiting) = self.calls.remove(&call)
            {
                drop(waiting.reply.send(Err(ForwardError::Refused { reason, retry_after })));
            }
        }
    }

    /// Nobody is answered any more.
    pub(super) fn clear(&mut self) {
        for (_, waiting) in self.calls.drain() {
            drop(waiting.reply.send(Err(ForwardError::Draining)));
        }
    }
}

impl Run {
    /// Takes a call in that somebody waits for.
    pub(super) fn forward(&mut self, offer: Offer) {
        // Whoever has gone told so before anybody knew of the call.
        if offer.reply.is_closed() {
            return;
        }
        let Offer { id, source, deadline, overrides, request, reply, place } = offer;
        if self.drains_until.is_some() {
            return drop(reply.send(Err(ForwardError::Draining)));
        }
        let reference = UpstreamRef::Declared(request.upstream.clone());
        let Some(upstream) = self.upstreams.find(&reference, Serves::Calls) else {
            return drop(reply.send(Err(ForwardError::UnknownUpstream { name: request.upstream.clone() })));
        };
        let now = clock::now();
        let settings = self.upstreams.get(upstream).map(|known| &known.settings);
        let by_policy = settings.and_then(|settings| settings.deadline).map(|limit| now.instant + limit);
        let spec = CallSpec {
            id,
            upstream,
            source,
            durability: Durability::Ephemeral,
            method: Method::of(request.method.as_str()),
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: std::num::NonZeroU32::MIN,
            accepted_at: now.timestamp,
            not_before: None,
            deadline: deadline.or(by_policy),
            overrides,
            has_file: false,
            callback: None,
            callback_of: None,
        };
        let waiting = Waiting { request, reply, attempts: 0, answer: None, _place: place };
        self.forwards.calls.insert(id, waiting);
        self.counts.metrics().accepted(source);
        self.dispatcher.handle(now, Event::Offered(Box::new(spec)));
    }

    /// Takes in what was decided of calls that somebody waits for.
    pub(super) fn take_unstored(&mut self, unstored: &[Write], now: Now) {
        for write in unstored {
            self.counts.note_unstored(write, &self.upstreams);
            match *write {
                Write::Settle { call, upstream, attempt, progress } => {
                    self.settle_unstored(now, (call, upstream), attempt, progress);
                }
                Write::Start { attempt, .. } => {
                    if let Some(waiting) = self.forwards.calls.get_mut(&attempt.call) {
                        waiting.attempts = attempt.number;
                    }
                }
                Write::Insert { .. }
                | Write::Close { .. }
                | Write::Release { .. }
                | Write::Filed { .. }
                | Write::Prune { .. }
                | Write::FreeKey { .. }
                | Write::Mark { .. }
                | Write::Upstream { .. }
                | Write::Open { .. } => {}
            }
        }
    }

    fn settle_unstored(
        &mut self,
        now: Now,
        (call, upstream): (CallId, UpstreamId),
        attempt: Option<AttemptEnd>,
        progress: Option<Progress>,
    ) {
        let _ = now;
        let report = attempt.and_then(|end| self.pending.reports.remove(&AttemptId { call, number: end.number }));
        let mut message = None;
        if let Some(report) = report
            && let Some(waiting) = self.forwards.calls.get_mut(&call)
        {
            let Report { result, aborted, response, message: said, .. } = *report;
            message = said;
            if result.error.is_none() && !aborted && response.is_some() {
                waiting.answer = response;
            }
        }
        let Some(progress) = progress.filter(|progress| progress.state.is_end()) else { return };
        self.stats.note_end(upstream, progress.state);
        self.watchers.ended(call);
        let Some(waiting) = self.forwards.calls.remove(&call) else { return };
        let Waiting { attempts, answer, reply, .. } = waiting;
        let answered = match (progress.state, answer) {
            (State::Expired, _) => Err(ForwardError::Expired { id: call, attempts }),
            (State::Cancelled, _) if self.drains_until.is_some() => Err(ForwardError::Draining),
            (State::Cancelled, _) => Err(ForwardError::Cancelled { id: call, attempts }),
            (_, Some(answer)) => Ok(forwarded(call, attempts, answer)),
            (_, None) if self.drains_until.is_some() => Err(ForwardError::Draining),
            (_, None) => {
                let kind = progress.error.unwrap_or(ErrorKind::Internal);
                let message = writes::error_message(kind, message.as_deref());
                Err(ForwardError::Failed { id: call, kind, message, attempts })
            }
        };
        drop(reply.send(answered));
    }
}

impl Attempt {
    /// Makes an attempt of a call that somebody waits for.
    pub(super) async fn forward(&self, request: &Request, way: &Way) -> Report {
        let prepared = request::forward::build(self.id, request, &way.settings, &self.around.directory);
        let mut report = match prepared {
            Ok(prepared) => self.send(prepared, way).await,
            Err(error) => return unsent(ErrorKind::Secret, error.to_string()),
        };
        let is_judged = request.parses_as_json && request.answer == AnswerMode::Whole && report.result.content_ok;
        if let Some(response) = report.response.as_ref().filter(|_| is_judged && report.result.error.is_none()) {
            report.result.content_ok = serde_json::from_slice::<serde::de::IgnoredAny>(&response.body).is_ok();
        }
        report
    }
}

fn forwarded(id: CallId, attempts: u32, answer: ResponseRecord) -> Forwarded {
    let ResponseRecord { status, headers: given, body, decoded } = answer;
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { continue };
        if !(decoded && (name == CONTENT_ENCODING || name == CONTENT_LENGTH)) {
            headers.append(name, value);
        }
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Forwarded { id, attempts, status, headers, body: ForwardedBody::whole(body) }
}
