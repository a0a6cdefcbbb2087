//! What a webhook sends, put together when it is sent: the outcome as the store has it, signed with the present secret.
//!
//! A secret is looked up where it was given: in the configuration, or in the document of the call that ended. A webhook
//! that was to be signed is never sent unsigned, and never signed with the secret of another receiver.

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Via};
use farcall_core::dispatcher::AskedBy;
use farcall_core::id::CallId;
use farcall_store::record::CallRecord;
use url::Url;

use super::attempts::{Attempt, unsent};
use crate::callback::SigningKey;
use crate::callback::stored::Stored;
use crate::callback::webhook::{self, Delivery};
use crate::clock;
use crate::config::{Addresses, CallbackAction, Upstream};
use crate::document::{self, Routing};
use crate::execute::{HttpRequest, Report};
use crate::request;
use crate::trace::TraceContext;

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error("{what}")]
    Stored { what: String },
    #[error("the callback's secret {what}")]
    Secret { what: String },
}

impl Attempt {
    pub(super) async fn prepare_webhook(&self, settings: &Upstream) -> Result<HttpRequest, Box<Report>> {
        self.webhook(settings).await.map_err(|error| {
            let kind = match error {
                WebhookError::Stored { .. } => ErrorKind::Internal,
                WebhookError::Secret { .. } => ErrorKind::Secret,
            };
            Box::new(unsent(kind, error.to_string()))
        })
    }

    async fn webhook(&self, settings: &Upstream) -> Result<HttpRequest, WebhookError> {
        let (record, request) = found(self.around.reads.call_and_request(self.id.call).await, "the callback")?;
        let Some(Stored::Webhook { asked_by, is_signed }) = Stored::from_bytes(&request.document) else {
            return Err(WebhookError::Stored { what: "the callback's document is none".to_owned() });
        };
        let url = Url::parse(&record.url).map_err(|error| WebhookError::Stored { what: error.to_string() })?;
        let parent = record.callback_of.unwrap_or(self.id.call);
        let ended = found(self.around.reads.call_view(parent).await, "the call it is for")?;
        let keys = match asked_by {
            _ if !is_signed => Vec::new(),
            AskedBy::Policy => self.configured_keys(&ended.record, &url)?,
            AskedBy::Call => vec![self.own_key(parent).await?],
        };
        let addresses = addresses(asked_by, record.via, settings);
        // It belongs to what it tells of.
        let trace = ended.trace.clone().unwrap_or_else(|| TraceContext::of_call(parent));
        let headers = request::headers(self.id, &trace, &http::Method::POST, settings, &self.around.directory)
            .map_err(|error| WebhookError::Secret { what: error.to_string() })?;
        let proxy = request::proxy(settings, &self.around.directory)
            .map_err(|error| WebhookError::Secret { what: error.to_string() })?;
        let (at, body) = (clock::now().timestamp, Bytes::new());
        let delivery = Delivery { attempt: self.id, at, url, keys, body, addresses, proxy };
        let settings = Arc::new(settings.clone());
        // Outcomes may be large, and what is as large takes its time to be written and signed.
        let request = tokio::task::spawn_blocking(move || {
            let body = webhook::body(&ended);
            webhook::request(Delivery { body, ..delivery }, headers, &settings)
        });
        request.await.map_err(|error| WebhookError::Stored { what: error.to_string() })
    }

    /// The secrets of a receiver as the configuration has them now.
    fn configured_keys(&self, ended: &CallRecord, url: &Url) -> Result<Vec<SigningKey>, WebhookError> {
        let gone = || WebhookError::Secret { what: "is no longer in the configuration".to_owned() };
        let upstream = match &ended.upstream {
            Some(name) => self.around.config.upstreams.get(name).ok_or_else(gone)?,
            None => &self.around.config.undeclared,
        };
        let Some(CallbackAction::Webhook(webhook)) = upstream.callback_at(ended.progress.state) else {
            return Err(gone());
        };
        if webhook.url != *url || webhook.secrets.is_empty() {
            return Err(gone());
        }
        let key = |template: &crate::secret::Template| {
            let secret = template.resolve(&self.around.directory).map_err(|error| error.to_string())?;
            SigningKey::from_text(secret.expose()).map_err(|error| error.to_string())
        };
        webhook.secrets.iter().map(|template| key(template).map_err(|what| WebhookError::Secret { what })).collect()
    }

    /// The secret that the call which ended gave.
    async fn own_key(&self, parent: CallId) -> Result<SigningKey, WebhookError> {
        let (_, stored) = found(self.around.reads.call_and_request(parent).await, "the call it is for")?;
        let own = document::callback_of(&stored.document, &Routing::from(self.around.config.as_ref()));
        own.and_then(|own| own.key).ok_or_else(|| WebhookError::Secret { what: "is gone".to_owned() })
    }
}

/// Where it may go. A URL that came over the network reaches only what everybody can reach, unless the configuration
/// says so for its upstream.
fn addresses(asked_by: AskedBy, via: Via, settings: &Upstream) -> Addresses {
    match (asked_by, via) {
        (AskedBy::Call, Via::Tcp) => settings.addresses.unwrap_or(Addresses::Public),
        (AskedBy::Call, Via::User) | (AskedBy::Policy, _) => settings.addresses_for(Via::User),
    }
}

fn found<T>(read: Result<Option<T>, farcall_store::port::ReadError>, what: &str) -> Result<T, WebhookError> {
    match read {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(WebhookError::Stored { what: format!("{what} is gone") }),
        Err(error) => Err(WebhookError::Stored { what: error.to_string() }),
    }
}
