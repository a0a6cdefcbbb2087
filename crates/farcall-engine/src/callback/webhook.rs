//! The request of a webhook: the outcome as JSON, with the headers of Standard Webhooks.
//!
//! The id is the callback's own and stays the same over all tries; the timestamp is that of the try.

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::id::AttemptId;
use farcall_core::time::Timestamp;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::signature::SigningKey;
use crate::config::{Addresses, Upstream};
use crate::execute::{Coding, HttpRequest};
use crate::handle::CallView;
use crate::outcome;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// One try of a webhook.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) attempt: AttemptId,
    pub(crate) at: Timestamp,
    pub(crate) url: Url,
    /// More than one while a secret is replaced; none leaves the signature out.
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) body: Bytes,
    pub(crate) addresses: Addresses,
    pub(crate) proxy: Option<Arc<crate::proxy::Proxy>>,
}

/// What a webhook tells of the call that ended: what the API answers for it, but for the request's headers.
pub(crate) fn body(ended: &CallView) -> Bytes {
    serde_json::to_vec(&outcome::Call::told_to_others(ended))
        .expect("strings, numbers and maps of strings are JSON")
        .into()
}

/// The request, on top of the headers that every call to this upstream has.
pub(crate) fn request(delivery: Delivery, mut headers: HeaderMap, upstream: &Upstream) -> HttpRequest {
    let Delivery { attempt, at, url, keys, body, addresses, proxy } = delivery;
    let id = attempt.call.to_string();
    let unix_seconds = at.as_micros().div_euclid(1_000_000);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&id, unix_seconds, &body)).collect();
    headers.remove(&SIGNATURE);
    if !signatures.is_empty() {
        headers.insert(SIGNATURE, HeaderValue::try_from(signatures.join(" ")).expect("base64 and spaces"));
    }
    headers.insert(ID, HeaderValue::try_from(id).expect("an id is ASCII"));
    headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
    HttpRequest {
        method: http::Method::POST,
        url,
        headers,
        body,
        coding: Coding::Removed,
        content_type: None,
        max_response: upstream.max_response,
        addresses,
        proxy,
    }
}
