//! Calls that somebody waits for: offered, made, and answered. Nothing of them is stored.
//!
//! What the dispatcher decides of them it tells with each turn; here it is counted, told to those who follow, and the
//! answer handed to whoever waits. What they came as is in `forward`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::attempt::AttemptResult;
use farcall_core::call::{CallSpec, Durability, ErrorKind, Method, Priority, Source, State, TenantId, UpstreamId};
use farcall_core::dispatcher::{AttemptEnd, Effect, Event, Progress, Refusal, Write};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::id_map::IdMap;
use farcall_core::time::{Now, Timestamp};
use farcall_store::record::ResponseRecord;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::oneshot;

use super::attempts::{Attempt, Way, unsent};
use super::news::{News, Told};
use super::unstored::Known;
use super::{Run, writes};
use crate::clock;
use crate::document::UpstreamRef;
use crate::execute::flow::{Flow, Outlet};
use crate::execute::{HttpRequest, Report};
use crate::forward::{AnswerMode, ForwardError, Forwarded, ForwardedBody, Offer, Place, Request};
use crate::request;
use crate::upstreams::Serves;

/// Everybody who waits for an answer.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    calls: IdMap<CallId, Waiting>,
    /// Attempts that wait to hear what becomes of their answers.
    heads: IdMap<AttemptId, oneshot::Sender<Ruling>>,
}

/// What becomes of an answer whose head is here.
#[derive(Debug)]
pub(super) enum Ruling {
    /// It is given to whoever waits.
    Relay(Recipient),
    /// It is taken in as a whole.
    Withhold,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Recipient {
    reply: oneshot::Sender<Result<Forwarded, ForwardError>>,
    leaving: Leaving,
}

/// The way of an attempt's answer to whoever waits.
struct ToRecipient {
    attempt: AttemptId,
    news: Arc<News>,
    patience: Duration,
    recipient: Option<Recipient>,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    request: Arc<Request>,
    source: Source,
    accepted_at: Timestamp,
    started_at: Option<Timestamp>,
    /// Nothing once an answer is given on.
    reply: Option<oneshot::Sender<Result<Forwarded, ForwardError>>>,
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

    pub(super) fn known(&self, call: CallId) -> Option<Known> {
        let Waiting { request, source, accepted_at, started_at, attempts, .. } = self.calls.get(&call)?;
        Some((Arc::clone(request), *source, *accepted_at, *started_at, *attempts))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = CallId> {
        self.calls.keys().copied()
    }

    /// Tells those that are turned away: nothing of their calls was sent.
    pub(super) fn refuse(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let &Effect::Refused { call, refusal: Refusal { reason, retry_after } } = effect
                && let Some(waiting) = self.calls.remove(&call)
            {
                // Nothing was given on of what was never sent.
                let Some(reply) = waiting.reply else { continue };
                drop(reply.send(Err(ForwardError::Refused { reason, retry_after })));
            }
        }
    }

    /// Nobody is answered any more.
    pub(super) fn clear(&mut self) {
        for (_, waiting) in self.calls.drain() {
            if let Some(reply) = waiting.reply {
                drop(reply.send(Err(ForwardError::Draining)));
            }
        }
    }

    /// This answer goes to whoever waits.
    pub(super) fn relay(&mut self, attempt: AttemptId, news: &Arc<News>) {
        let Some(head) = self.heads.remove(&attempt) else { return };
        let Some(reply) = self.calls.get_mut(&attempt.call).and_then(|waiting| waiting.reply.take()) else { return };
        // An attempt that was cut off meanwhile gives nothing on; whoever waits is told by that.
        drop(head.send(Ruling::Relay(Recipient { reply, leaving: Leaving(Arc::clone(news)) })));
    }

    /// This answer is taken in as a whole.
    pub(super) fn withhold(&mut self, attempt: AttemptId) {
        if let Some(head) = self.heads.remove(&attempt) {
            drop(head.send(Ruling::Withhold));
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
        let accepted_at = now.timestamp;
        let waiting = Waiting {
            request,
            source,
            accepted_at,
            started_at: None,
            reply: Some(reply),
            attempts: 0,
            answer: None,
            _place: place,
        };
        self.forwards.calls.insert(id, waiting);
        self.counts.metrics().accepted(source);
        self.dispatcher.handle(now, Event::Offered(Box::new(spec)));
    }

    /// Takes in what was decided of calls that somebody waits for.
    pub(super) fn take_unstored(&mut self, unstored: &[Write], now: Now) {
        for write in unstored {
            self.counts.note_unstored(write, &self.upstreams);
            self.follow_unstored(write, now);
            match *write {
                Write::Settle { call, upstream, progress, .. } if self.permits.holds(call) => {
                    if let Some(progress) = progress.filter(|progress| progress.state.is_end()) {
                        self.stats.note_end(upstream, progress.state);
                        self.watchers.ended(call);
                        self.permits.ended(call, self.drains_until.is_some());
                    }
                }
                Write::Settle { call, upstream, attempt, progress } => {
                    self.settle_unstored((call, upstream), attempt, progress);
                }
                Write::Start { attempt, at, .. } => {
                    if let Some(waiting) = self.forwards.calls.get_mut(&attempt.call) {
                        waiting.attempts = attempt.number;
                        waiting.started_at.get_or_insert(at.timestamp);
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
                | Write::Open { .. }
                | Write::Grant { .. }
                | Write::GrantEnd { .. }
                | Write::GrantsLeft { .. } => {}
            }
        }
    }

    fn settle_unstored(
        &mut self,
        (call, upstream): (CallId, UpstreamId),
        attempt: Option<AttemptEnd>,
        progress: Option<Progress>,
    ) {
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
        if let Some(reply) = reply {
            drop(reply.send(answered));
        }
    }

    /// The head of an answer is here: the dispatcher says whether it is the one.
    pub(super) fn answered(
        &mut self,
        now: Now,
        attempt: AttemptId,
        result: AttemptResult,
        ruling: oneshot::Sender<Ruling>,
    ) {
        self.forwards.heads.insert(attempt, ruling);
        self.dispatcher.handle(now, Event::Answered { attempt, result });
    }
}

impl Outlet for ToRecipient {
    fn ask(&mut self, result: AttemptResult) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            let (ruling, ruled) = oneshot::channel();
            self.news.tell(Told::Answered { attempt: self.attempt, result, ruling });
            if let Ok(Ruling::Relay(recipient)) = ruled.await {
                self.recipient = Some(recipient);
            }
            self.recipient.is_some()
        })
    }

    fn begin(&mut self, status: StatusCode, headers: HeaderMap, body: Flow) {
        let Some(Recipient { reply, leaving }) = self.recipient.take() else { return };
        let AttemptId { call: id, number: attempts } = self.attempt;
        let body = ForwardedBody::flowing(body, id, leaving);
        // Whoever has gone takes the call along: the body is dropped.
        drop(reply.send(Ok(Forwarded { id, attempts, status, headers, body })));
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl Attempt {
    /// Makes an attempt of a call that somebody waits for.
    pub(super) async fn forward(&self, request: &Request, way: &Way) -> Report {
        let prepared = request::forward::build(self.id, request, &way.settings, &self.around.directory);
        let mut report = match prepared {
            Ok(prepared) if request.answer == AnswerMode::Streamed => self.relay(prepared, way).await,
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

impl Attempt {
    async fn relay(&self, request: HttpRequest, way: &Way) -> Report {
        let (attempt, news) = (self.id, Arc::clone(&self.around.news));
        let patience = way.settings.policy.timeout;
        let mut outlet = ToRecipient { attempt, news, patience, recipient: None };
        let milestones = Some(self.milestones(way));
        way.transport.relay(request, milestones, self.abort.clone(), &mut outlet).await
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
