//! Taking a call in: from a submission to a record, a spec for the dispatcher, and an answer once it is durable.
//!
//! Nothing is acknowledged before its commit, and an idempotency key names one call from the moment it is offered.

use std::sync::Arc;

use farcall_core::call::{CallSpec, Durability, Method, Overrides, State, TenantId, UpstreamId};
use farcall_core::dispatcher::Event;
use farcall_core::id::CallId;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{CallsAsk, Insert};
use farcall_store::record::{CallRecord, IdempotencyRecord, Progress};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::batches::Answers;
use super::callbacks::OwnWebhook;
use super::documents::Kept;
use super::pending::Unacknowledged;
use super::seen::{Sight, Viewer};
use super::{CancelAnswer, Message, Run};
use crate::clock;
use crate::document::{Document, Rejection, RejectionKind, When};
use crate::handle::{Accepted, Submission, SubmitError};
use crate::upstreams::{Making, UpstreamError, Upstreams, declared_name, limit_key};

impl Run {
    /// Offers each call by itself; what one comes to does not touch the others.
    pub(super) fn submit(
        &mut self,
        submissions: Vec<Submission>,
        mut viewer: Option<oneshot::Sender<Sight>>,
        reply: oneshot::Sender<Answers>,
    ) {
        let places = self.pending.batches.open(submissions.len(), reply);
        for (submission, place) in submissions.into_iter().zip(places) {
            let offered = self.offer(submission);
            let waits = offered.as_ref().ok().and_then(|accepted| self.pending.unacknowledged.get_mut(&accepted.id));
            match (offered, waits) {
                (Ok(accepted), Some(call)) => {
                    // Who submits a call again is answered like everybody who asks for it.
                    call.viewer = viewer.take().filter(|_| !accepted.is_replay).map(Viewer::new).or(call.viewer.take());
                    call.wait(place, accepted);
                }
                (answer, _) => self.pending.batches.answer(place, answer),
            }
        }
    }

    /// Offers a call to the dispatcher; it is accepted only when the commit of its insert says so.
    fn offer(&mut self, submission: Submission) -> Result<Accepted, SubmitError> {
        if self.drains_until.is_some() {
            return Err(SubmitError::Draining);
        }
        let now = clock::now();
        let key = self.idempotency(&submission);
        if let Some(key) = &key
            && let Some(accepted) = self.replay(key)?
        {
            return Ok(accepted);
        }
        if self.storage.is_broken() {
            return Err(SubmitError::StoreFailed);
        }
        self.check_space(now)?;
        let upstream = self.upstream_of(&submission.document, now)?;
        self.check_cost(upstream, &submission.document)?;
        let id = submission.id.unwrap_or_else(|| CallId::new(now.timestamp, self.rng.u128(..)));
        let callback = self.callback_to(&submission.document, now)?;
        let spec = CallSpec { callback, ..self.spec(id, upstream, &submission, now) };
        let record = new_record(&spec, &submission, self.steady, key.clone());
        let trace = submission.document.trace.as_ref().map(ToString::to_string);
        let insert = Insert { at: self.steady.steady(now.instant), call: record, request: submission.bytes, trace };
        let key = key.map(|key| {
            let name = (key.scope, key.key);
            self.pending.keys.insert(name.clone(), (id, key.digest));
            name
        });
        if let Some(file) = &submission.file {
            self.filing.claim(&file.name, id);
        }
        if let Some(callback) = &submission.document.callback {
            self.own_callbacks.keep(id, OwnWebhook::new(callback, submission.via));
        }
        let kept = Kept { document: *submission.document, via: submission.via };
        let text_bytes = insert.request.len();
        self.pending.inserts.insert(id, Box::new(insert));
        let file = submission.file.map(|file| file.name);
        self.pending.unacknowledged.insert(id, Unacknowledged::new(key, file));
        self.dispatcher.handle(now, Event::Offered(Box::new(spec)));
        if self.dispatcher.is_loaded(id) {
            self.documents.keep(id, Arc::new(kept), text_bytes);
        }
        Ok(Accepted { id, is_replay: false })
    }

    /// A call could not be stored: nothing of it is kept, and it may come again.
    pub(super) fn refuse(&mut self, call: CallId) {
        self.documents.forget(call);
        self.own_callbacks.forget(call);
        self.watchers.tell(call, CancelAnswer::Missed);
        if let Some(name) = self.pending.refuse(call, || self.storage.refusal()) {
            self.filing.withdraw(&name, call);
        }
    }

    fn idempotency(&self, submission: &Submission) -> Option<IdempotencyRecord> {
        let key = submission.document.idempotency_key.clone()?;
        let digest = Sha256::digest(&submission.bytes).into();
        Some(IdempotencyRecord { scope: submission.scope.clone(), key, digest })
    }

    /// The call that holds this key already, if its content is the same.
    fn replay(&mut self, key: &IdempotencyRecord) -> Result<Option<Accepted>, SubmitError> {
        let pending = self.pending.keys.get(&(key.scope.clone(), key.key.clone())).copied();
        let holder = match pending {
            Some(holder) => Some(holder),
            None => {
                let asked = CallsAsk::Keyed { scope: &key.scope, key: &key.key };
                let record = self.reader.calls(asked).map_err(|_| SubmitError::StoreFailed)?.pop();
                record.and_then(|record| Some((record.id, record.idempotency?.digest)))
            }
        };
        match holder {
            None => Ok(None),
            Some((id, digest)) if digest == key.digest => Ok(Some(Accepted { id, is_replay: true })),
            Some((holder, _)) => Err(SubmitError::KeyReused { key: key.key.clone(), holder }),
        }
    }

    /// Refuses while too little space is free. Asking costs a system call, so not for every call of a batch.
    fn check_space(&mut self, now: Now) -> Result<(), SubmitError> {
        const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
        if self.free_bytes.is_none_or(|(_, at)| now.instant.since(at) >= LOOK_EVERY) {
            let free = self.reader.free_bytes().map_err(|_| SubmitError::StoreFailed)?;
            self.free_bytes = Some((free, now.instant));
            self.is_unpublished |= self.space_announcer.note(now.instant, free, self.config.store.min_free);
        }
        let min_free = self.config.store.min_free;
        match self.free_bytes {
            Some((free_bytes, _)) if free_bytes < min_free => Err(SubmitError::StoreFull { free_bytes, min_free }),
            _ => Ok(()),
        }
    }

    /// A call that takes more slots than a window has could never start.
    fn check_cost(&self, upstream: UpstreamId, document: &Document) -> Result<(), SubmitError> {
        let limits = self.upstreams.get(upstream).map_or(&[][..], |known| &known.settings.policy.limits);
        let Some(spec) = limits.iter().find(|spec| spec.count < document.cost) else { return Ok(()) };
        let message = format!(
            "a cost of {} never fits the upstream's limit of {} in {:?}",
            document.cost, spec.count, spec.window
        );
        let key = Some("cost".to_owned());
        Err(Rejection { kind: RejectionKind::Invalid, message, key, line: None, column: None }.into())
    }

    fn upstream_of(&mut self, document: &Document, now: Now) -> Result<UpstreamId, SubmitError> {
        self.with_upstreams(now, |upstreams, making| upstreams.resolve(&document.upstream, making))
    }

    /// Where the call's own callback goes.
    fn callback_to(&mut self, document: &Document, now: Now) -> Result<Option<UpstreamId>, SubmitError> {
        let Some(callback) = &document.callback else { return Ok(None) };
        self.with_upstreams(now, |upstreams, making| upstreams.webhooks_to(&callback.upstream, making)).map(Some)
    }

    fn with_upstreams<T>(
        &mut self,
        now: Now,
        make: impl FnOnce(&mut Upstreams, &mut Making<'_>) -> Result<T, UpstreamError>,
    ) -> Result<T, SubmitError> {
        let mut making = Making { dispatcher: &mut self.dispatcher, reader: self.reader.as_mut(), now };
        make(&mut self.upstreams, &mut making).map_err(|error| {
            tracing::error!(error = %error, "cannot use an upstream");
            SubmitError::StoreFailed
        })
    }

    fn spec(&mut self, id: CallId, upstream: UpstreamId, submission: &Submission, now: Now) -> CallSpec {
        let document = &submission.document;
        let known = self.upstreams.get(upstream).expect("a resolved upstream is known");
        // A time by the wall clock is what that shows now: no later jump of it makes the call expire or stay for ever.
        let time = |when: When| match when {
            When::At(at) => now.instant_of(at),
            When::After(wait) => now.instant + wait,
        };
        let deadline = document.schedule.deadline.map(time);
        let overrides = overrides(document);
        CallSpec {
            id,
            upstream,
            source: submission.source,
            durability: Durability::Durable,
            method: Method::of(document.method.as_str()),
            priority: document.priority,
            tenant: tenant_id(document.tenant.as_deref()),
            cost: document.cost,
            accepted_at: now.timestamp,
            not_before: document.schedule.not_before.map(time),
            deadline: deadline.or_else(|| known.settings.deadline.map(|limit| now.instant + limit)),
            overrides: overrides.map(Box::new),
            has_file: submission.file.is_some(),
            callback: None,
            callback_of: None,
        }
    }
}

/// Hears nobody any more, and tells whoever submitted too late why: that nothing of the call was kept.
pub(super) fn refuse_all(messages: &mut mpsc::Receiver<Message>, error: impl Fn() -> SubmitError) {
    messages.close();
    while let Ok(message) = messages.try_recv() {
        if let Message::Submit { submissions, reply, .. } = message {
            drop(reply.send(submissions.iter().map(|_| Err(error())).collect()));
        }
    }
}

/// The document's own settings, over its upstream's; nothing when it has none.
pub(super) fn overrides(document: &Document) -> Option<Overrides> {
    let success_statuses = document.success.statuses.clone();
    let overrides = Overrides { success_statuses, ..document.overrides.clone() };
    (overrides != Overrides::default()).then_some(overrides)
}

fn new_record(
    spec: &CallSpec,
    submission: &Submission,
    steady: SteadyClock,
    idempotency: Option<IdempotencyRecord>,
) -> CallRecord {
    let document = &submission.document;
    CallRecord {
        id: spec.id,
        source: spec.source,
        via: submission.via,
        upstream: declared_name(&document.upstream),
        limit_key: limit_key(&document.upstream).to_owned(),
        method: document.method.as_str().to_owned(),
        url: document.url.as_str().to_owned(),
        tags: document.tags.clone(),
        priority: spec.priority.level(),
        tenant: document.tenant.clone(),
        tenant_id: spec.tenant,
        cost: spec.cost.get(),
        accepted_at: spec.accepted_at,
        not_before: spec.not_before.map(|at| steady.steady(at)),
        deadline: spec.deadline.map(|at| steady.steady(at)),
        started_at: None,
        attempts: 0,
        progress: Progress::waiting(State::Queued, None),
        cancel_requested: false,
        has_overrides: spec.overrides.is_some() || spec.callback.is_some(),
        callback_of: None,
        retry_of: submission.retry_of,
        filed: submission.file.is_none(),
        file: submission.file.clone(),
        idempotency,
        hop: None,
    }
}

/// What a tenant is known by: the first bytes of a digest of its name, so that nobody can choose another's.
fn tenant_id(name: Option<&str>) -> TenantId {
    let Some(name) = name else { return TenantId::default() };
    let digest = Sha256::digest(name.as_bytes());
    let first = digest.first_chunk().expect("a digest is longer than a number");
    TenantId(u64::from_be_bytes(*first).max(1))
}

impl From<SubmitError> for Rejection {
    /// As a file's response tells it.
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Rejected(rejection) => rejection,
            other => Self {
                kind: RejectionKind::Invalid,
                message: other.to_string(),
                key: matches!(other, SubmitError::KeyReused { .. }).then(|| "idempotency_key".to_owned()),
                line: None,
                column: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::call::{Source, Via};

    use super::*;
    use crate::config::Config;
    use crate::document::{Routing, parse};

    #[test]
    fn a_call_that_comes_while_the_loop_ends_is_refused_and_not_left_in_doubt() {
        let bytes = bytes::Bytes::from_static(br#"{"url": "http://127.0.0.1/"}"#);
        let document = Box::new(parse(&bytes, &Routing::from(&Config::default())).expect("a valid call"));
        let (source, via, scope) = (Source::Api, Via::Tcp, String::new());
        let submission = Submission { document, bytes, source, via, file: None, scope, retry_of: None, id: None };
        let (sender, mut messages) = mpsc::channel(1);
        let (reply, mut answer) = oneshot::channel();
        sender.try_send(Message::Submit { submissions: vec![submission], viewer: None, reply }).expect("room for one");
        refuse_all(&mut messages, || SubmitError::Draining);
        let answers = answer.try_recv().expect("an answer");
        assert!(matches!(answers[..], [Err(SubmitError::Draining)]));
        assert!(sender.is_closed());
    }
}
