//! From a call's document to the request that is sent, at the time of sending.
//!
//! Secrets are resolved here and nowhere else; what comes out is never stored or logged. The order of precedence: what
//! we add, then the upstream's headers, then the call's own.

pub(crate) mod hop;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::Via;
use farcall_core::id::{AttemptId, CallId};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::config::Upstream;
use crate::document::{Body, Document};
use crate::execute::HttpRequest;
use crate::proxy::{Proxy, ProxyError};
use crate::secret::SecretError;

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the proxy cannot be used: {0}")]
    Proxy(#[from] ProxyError),
    /// Never with the value.
    #[error("the value of header {name:?} cannot be sent in a header")]
    HeaderValue { name: String },
}

/// What we call ourselves, unless the call says otherwise.
const AGENT: &str = concat!("farcall/", env!("CARGO_PKG_VERSION"));

/// The request of one attempt; the same on every attempt but for `traceparent`, and for secrets that changed meanwhile.
///
/// # Errors
/// When a secret cannot be resolved: nothing must be sent then.
pub(crate) fn build(
    attempt: AttemptId,
    document: &Document,
    via: Via,
    upstream: &Upstream,
    directory: &Path,
) -> Result<HttpRequest, RequestError> {
    let (body, is_json) = body(document);
    let mut headers = headers(attempt, &document.method, upstream, directory)?;
    if is_json {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
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
        addresses: upstream.addresses_for(via),
        proxy: proxy(upstream, directory)?,
    })
}

/// What every request of an upstream carries: what we add, then the upstream's own.
///
/// # Errors
/// When a secret cannot be resolved.
pub(crate) fn headers(
    attempt: AttemptId,
    method: &http::Method,
    upstream: &Upstream,
    directory: &Path,
) -> Result<HeaderMap, RequestError> {
    let mut headers = agent();
    headers.extend(idempotency(attempt.call, method, upstream));
    if upstream.base_url.is_some() {
        headers.insert("traceparent", traceparent(attempt));
    }
    upstream_headers(upstream, directory, &mut headers)?;
    Ok(headers)
}

fn agent() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers
}

/// The upstream's own headers, over those that are there.
fn upstream_headers(upstream: &Upstream, directory: &Path, headers: &mut HeaderMap) -> Result<(), RequestError> {
    for (name, template) in &upstream.headers {
        let secret = template.resolve(directory)?;
        let unusable = || RequestError::HeaderValue { name: name.clone() };
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| unusable())?;
        value.set_sensitive(template.has_references());
        headers.insert(HeaderName::try_from(name.as_str()).map_err(|_| unusable())?, value);
    }
    Ok(())
}

/// The body of a call, and whether it is JSON.
fn body(document: &Document) -> (Bytes, bool) {
    match &document.body {
        Body::None => (Bytes::new(), false),
        Body::Json(body) => (body.clone(), true),
        Body::Raw(body) => (body.clone(), false),
    }
}

/// Through whom a request of this upstream goes.
pub(crate) fn proxy(upstream: &Upstream, directory: &Path) -> Result<Option<Arc<Proxy>>, RequestError> {
    let Some(template) = &upstream.proxy else { return Ok(None) };
    Ok(Some(Arc::new(Proxy::parse(template.resolve(directory)?.expose())?)))
}

/// W3C Trace Context, level 1: one trace per call, one parent per attempt, not sampled by us.
fn traceparent(attempt: AttemptId) -> HeaderValue {
    let trace = attempt.call.bits();
    // Any number but 0 that differs between the attempts of a call; the low half of its id is chance.
    let parent = (trace as u64).wrapping_add(u64::from(attempt.number)).max(1);
    HeaderValue::try_from(format!("00-{trace:032x}-{parent:016x}-00")).expect("hexadecimal digits and hyphens")
}

/// The same key over retries and restarts, for methods that change something.
fn idempotency(call: CallId, method: &http::Method, upstream: &Upstream) -> Option<(HeaderName, HeaderValue)> {
    let changes = matches!(method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
    if !changes || upstream.idempotency_header.is_empty() {
        return None;
    }
    let name = HeaderName::try_from(upstream.idempotency_header.as_str()).ok()?;
    let value = HeaderValue::try_from(call.to_string()).ok()?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use farcall_core::time::Timestamp;

    use super::*;
    use crate::config::Config;
    use crate::document::{Routing, parse};
    use crate::secret::Template;

    fn attempt(number: u32) -> AttemptId {
        AttemptId { call: CallId::new(Timestamp::from_micros(1_700_000_000_000_000), 7), number }
    }

    fn built(text: &str, upstream: &Upstream) -> HttpRequest {
        let config = Config::default();
        let document = parse(&text.as_bytes().to_vec().into(), &Routing::from(&config)).expect("a valid document");
        build(attempt(1), &document, Via::User, upstream, Path::new("/")).expect("a request")
    }

    #[test]
    fn the_calls_headers_win_over_the_upstreams_and_those_over_ours() {
        let template = |text: &str| Template::parse(text).expect("a valid template");
        let headers = vec![("user-agent".to_owned(), template("shop/1")), ("x-key".to_owned(), template("theirs"))];
        let upstream = Upstream { headers, ..Upstream::default() };
        let request =
            built(r#"{"url": "http://127.0.0.1/a", "headers": {"X-Key": "own"}, "body": {"n":  1}}"#, &upstream);
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((header("user-agent"), header("x-key")), (Some("shop/1"), Some("own")));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("idempotency-key"), Some(attempt(1).call.to_string().as_str()));
        assert_eq!(header("traceparent"), None, "undeclared upstreams get none");
        assert_eq!(&request.body[..], br#"{"n":  1}"#);
    }

    #[test]
    fn safe_methods_and_an_empty_name_send_no_idempotency_key() {
        let sends = |text, upstream: &Upstream| built(text, upstream).headers.contains_key("idempotency-key");
        let unnamed = Upstream { idempotency_header: String::new(), ..Upstream::default() };
        assert!(!sends(r#"{"url": "http://127.0.0.1/a"}"#, &Upstream::default()));
        assert!(!sends(r#"{"url": "http://127.0.0.1/a", "method": "DELETE"}"#, &unnamed));
        assert!(sends(r#"{"url": "http://127.0.0.1/a", "method": "DELETE"}"#, &Upstream::default()));
    }

    #[test]
    fn attempts_of_a_call_share_a_trace() {
        let text = |number| traceparent(attempt(number)).to_str().expect("ASCII").to_owned();
        let (first, second) = (text(1), text(2));
        assert_eq!(first[..36], second[..36]);
        assert_ne!(first, second);
        assert!(first.starts_with("00-") && first.len() == 55, "{first}");
    }
}
