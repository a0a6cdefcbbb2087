//! From a call's document to the request that is sent, at the time of sending.
//!
//! Secrets are resolved here and nowhere else; what comes out is never stored or logged. The order of precedence: what
//! we add, then the upstream's headers, then the call's own.

use std::path::Path;

use bytes::Bytes;
use farcall_core::id::CallId;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::config::Upstream;
use crate::document::{Body, Document};
use crate::execute::HttpRequest;
use crate::secret::SecretError;

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Never with the value.
    #[error("the value of header {name:?} cannot be sent in a header")]
    HeaderValue { name: String },
}

/// What we call ourselves, unless the call says otherwise.
const AGENT: &str = concat!("farcall/", env!("CARGO_PKG_VERSION"));

/// The request of one attempt; the same on every attempt but for secrets that changed meanwhile.
///
/// # Errors
/// When a secret cannot be resolved: nothing must be sent then.
pub(crate) fn build(
    call: CallId,
    document: &Document,
    upstream: &Upstream,
    directory: &Path,
) -> Result<HttpRequest, RequestError> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let (body, is_json) = match &document.body {
        Body::None => (Bytes::new(), false),
        Body::Json(body) => (body.clone(), true),
        Body::Raw(body) => (body.clone(), false),
    };
    if is_json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some((name, value)) = idempotency(call, document, upstream) {
        headers.insert(name, value);
    }
    for (name, template) in &upstream.headers {
        let secret = template.resolve(directory)?;
        let unusable = || RequestError::HeaderValue { name: name.clone() };
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| unusable())?;
        value.set_sensitive(template.has_references());
        headers.insert(HeaderName::try_from(name.as_str()).map_err(|_| unusable())?, value);
    }
    for (name, value) in &document.headers {
        headers.insert(name.clone(), value.clone());
    }
    Ok(HttpRequest {
        method: document.method.clone(),
        url: document.url.clone(),
        headers,
        body,
        content_type: document.success.content_type.clone().unwrap_or_else(|| upstream.success.content_type.clone()),
        max_response: document.max_response.unwrap_or(upstream.max_response),
    })
}

/// The same key over retries and restarts, for methods that change something.
fn idempotency(call: CallId, document: &Document, upstream: &Upstream) -> Option<(HeaderName, HeaderValue)> {
    let changes = matches!(document.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
    if !changes || upstream.idempotency_header.is_empty() {
        return None;
    }
    let name = HeaderName::try_from(upstream.idempotency_header.as_str()).ok()?;
    let value = HeaderValue::try_from(call.to_string()).ok()?;
    Some((name, value))
}
