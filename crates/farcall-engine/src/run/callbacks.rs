//! Callbacks as calls: the rows they are stored as, made with the end of the call that they are for.
//!
//! What they tell is put together when they are made (`webhooks`, `attempts`); nothing of it is kept twice.

use std::collections::HashMap;

use farcall_core::call::{Priority, Source, State, TenantId, Via};
use farcall_core::dispatcher::{AskedBy, Callback};
use farcall_core::id::CallId;
use farcall_core::time::Now;
use farcall_store::port;
use farcall_store::record::{self, CallRecord};

use super::Run;
use crate::callback::stored::Stored;
use crate::config::CallbackAction;
use crate::document::OwnCallback;
use crate::upstreams::{declared_name, limit_key};

/// What callbacks that run a command are counted by; no upstream can have an empty name.
pub(super) const COMMAND_KEY: &str = "";

/// A webhook that a call asked for, without its secret.
#[derive(Debug, Clone)]
pub(super) struct OwnWebhook {
    url: Box<str>,
    via: Via,
    is_signed: bool,
}

/// Those of the calls in memory that have not ended; stored with the end, so that none of it is read again then.
#[derive(Debug, Default)]
pub(super) struct OwnCallbacks {
    by_call: HashMap<CallId, OwnWebhook>,
}

impl OwnWebhook {
    /// `via` is how the call came in: whoever sent it wants the callback, too.
    pub(super) fn new(own: &OwnCallback, via: Via) -> Self {
        Self { url: own.url.as_str().into(), via, is_signed: own.key.is_some() }
    }
}

impl OwnCallbacks {
    /// False when it was known before.
    pub(super) fn keep(&mut self, call: CallId, webhook: OwnWebhook) -> bool {
        self.by_call.insert(call, webhook).is_none()
    }

    pub(super) fn forget(&mut self, call: CallId) {
        self.by_call.remove(&call);
    }
}

impl Run {
    /// A callback as a call.
    pub(super) fn callback_insert(&self, now: Now, call: CallId, callback: Callback) -> Box<port::Insert> {
        let (stored, webhook) = self.callback_of(callback);
        let record = CallRecord {
            id: call,
            source: Source::Callback,
            via: webhook.as_ref().map_or(Via::User, |webhook| webhook.via),
            method: if webhook.is_some() { "POST".to_owned() } else { String::new() },
            url: webhook.map(|webhook| webhook.url.into()).unwrap_or_default(),
            upstream: self.upstream_name(callback),
            limit_key: self.callback_key(callback),
            tags: Vec::new(),
            priority: Priority::default().level(),
            tenant: None,
            tenant_id: TenantId::default(),
            cost: 1,
            accepted_at: now.timestamp,
            not_before: None,
            deadline: None,
            started_at: None,
            attempts: 0,
            progress: record::Progress::waiting(State::Queued, None),
            cancel_requested: false,
            has_overrides: false,
            callback_of: Some(callback.parent),
            retry_of: None,
            file: None,
            filed: true,
            idempotency: None,
            hop: None,
        };
        let at = self.steady.steady(now.instant);
        Box::new(port::Insert { at, call: record, request: stored.to_bytes(), trace: None })
    }

    /// What it does, and for a webhook where.
    fn callback_of(&self, callback: Callback) -> (Stored, Option<OwnWebhook>) {
        let webhook = match callback.asked_by {
            AskedBy::Call => self.own_callbacks.by_call.get(&callback.parent).cloned(),
            AskedBy::Policy => match self.configured(callback) {
                Some(CallbackAction::Webhook(webhook)) => Some(OwnWebhook {
                    url: webhook.url.as_str().into(),
                    via: Via::User,
                    is_signed: !webhook.secrets.is_empty(),
                }),
                Some(CallbackAction::Command(line)) => {
                    return (Stored::Command { words: line.words.clone() }, None);
                }
                None => None,
            },
        };
        let webhook = webhook.expect("who asks for a callback says what for, and is known until its call has ended");
        let is_signed = webhook.is_signed;
        (Stored::Webhook { asked_by: callback.asked_by, is_signed }, Some(webhook))
    }

    fn configured(&self, callback: Callback) -> Option<&CallbackAction> {
        self.upstreams.get(callback.parent_upstream)?.settings.callback_at(callback.parent_end)
    }

    fn upstream_name(&self, callback: Callback) -> Option<String> {
        declared_name(&self.upstreams.get(callback.upstream)?.reference)
    }

    fn callback_key(&self, callback: Callback) -> String {
        self.upstreams.get(callback.upstream).map_or(COMMAND_KEY, |known| limit_key(&known.reference)).to_owned()
    }
}
