//! From a call's document to the request that is sent, at the time of sending.
//!
//! Secrets are resolved here and nowhere else; what comes out is never stored or logged. The order of precedence: what
//! we add, then the upstream's headers, then the call's own.

pub(crate) mod forward;
pub(crate) mod hop;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::Via;
use farcall_core::id::{AttemptId, CallId};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use url::Url;

use crate::config::Upstream;
use crate::document::{Body, Document};
use crate::execute::{Coding, HttpRequest};
use crate::proxy::{Proxy, ProxyError};
use crate::secret::SecretError;
use crate::trace::{TRACEPARENT, TRACESTATE, TraceContext};

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
/// Most of the headers that a request has beside the call's own, those of the transport too.
const HEADERS_OF_OURS: usize = 8;
/// By its name when nobody has given it another.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

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
    let mut headers = with_host(&document.url, document.headers.len());
    add_headers(attempt, &trace_of(document, attempt.call), &document.method, upstream, directory, &mut headers)?;
    if is_json {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    add_own(document, &mut headers);
    Ok(HttpRequest {
        method: document.method.clone(),
        url: document.url.clone(),
        headers,
        body,
        coding: Coding::Removed,
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
    trace: &TraceContext,
    method: &http::Method,
    upstream: &Upstream,
    directory: &Path,
) -> Result<HeaderMap, RequestError> {
    let mut headers = HeaderMap::with_capacity(HEADERS_OF_OURS);
    add_headers(attempt, trace, method, upstream, directory, &mut headers)?;
    Ok(headers)
}

fn add_headers(
    attempt: AttemptId,
    trace: &TraceContext,
    method: &http::Method,
    upstream: &Upstream,
    directory: &Path,
    headers: &mut HeaderMap,
) -> Result<(), RequestError> {
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some((name, value)) = idempotency(attempt.call, method, upstream) {
        headers.insert(name, value);
    }
    if upstream.base_url.is_some() {
        trace.add_to(headers, attempt);
    }
    upstream_headers(upstream, directory, headers)
}

/// The trace that a call belongs to, or its own.
fn trace_of(document: &Document, call: CallId) -> Cow<'_, TraceContext> {
    document.trace.as_deref().map_or_else(|| Cow::Owned(TraceContext::of_call(call)), Cow::Borrowed)
}

/// The call's own headers, over all others. One that brings a trace of its own has no other's state.
fn add_own(document: &Document, headers: &mut HeaderMap) {
    if document.headers.iter().any(|(name, _)| *name == TRACEPARENT) {
        headers.remove(TRACESTATE);
    }
    for (name, value) in &document.headers {
        headers.insert(name.clone(), value.clone());
    }
}

/// Room for the headers of a request of which so many are the call's own, the host in front. The transport adds one that
/// is missing, but has to put all the others together again for that.
fn with_host(url: &Url, own: usize) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS_OF_OURS + own);
    // As the url crate writes it: a port only when it is not the scheme's own (RFC 9110, section 7.2).
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
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

/// The same key over retries and restarts, for methods that change something.
fn idempotency(call: CallId, method: &http::Method, upstream: &Upstream) -> Option<(HeaderName, HeaderValue)> {
    let changes = matches!(method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
    if !changes || upstream.idempotency_header.is_empty() {
        return None;
    }
    let given = upstream.idempotency_header.as_str();
    let is_default = given.eq_ignore_ascii_case(IDEMPOTENCY_KEY.as_str());
    let name = if is_default { IDEMPOTENCY_KEY } else { HeaderName::try_from(given).ok()? };
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
    fn the_host_stands_in_front_with_its_port_unless_that_is_the_schemes_own() {
        for (url, expected) in [
            ("http://127.0.0.1:8080/a", "127.0.0.1:8080"),
            ("https://a.test:443/", "a.test"),
            ("https://a.test:80?q", "a.test:80"),
            ("http://[::1]:9/", "[::1]:9"),
        ] {
            let request = built(&format!(r#"{{"url": "{url}", "headers": {{"X-A": "1"}}}}"#), &Upstream::default());
            let (name, value) = request.headers.iter().next().expect("a header");
            assert_eq!((name, value.to_str().ok()), (&HOST, Some(expected)), "{url}");
        }
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
    fn a_call_that_brings_a_trace_in_its_own_headers_is_sent_as_it_says() {
        let upstream = Upstream { base_url: Some("http://a.test".parse().expect("a URL")), ..Upstream::default() };
        let mut given = HeaderMap::new();
        let parent = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        given.insert(TRACEPARENT, parent);
        given.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        let sent = |headers: &str| {
            let text = format!(r#"{{"url": "http://a.test/", "headers": {{{headers}}}}}"#);
            let mut document = parse(&text.into(), &Routing::from(&Config::default())).expect("a valid document");
            document.trace = TraceContext::of_request(&given).map(Arc::new);
            let request = build(attempt(1), &document, Via::User, &upstream, Path::new("/")).expect("a request");
            ["traceparent", "tracestate"].map(|name| request.headers.get(name).cloned())
        };
        let [parent, state] = sent("");
        let parent = parent.expect("a trace").to_str().expect("ASCII").to_owned();
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !parent.contains("00f067aa0ba902b7"));
        assert_eq!(state, Some(HeaderValue::from_static("a=1")));
        assert_eq!(sent(r#""Traceparent": "mine""#), [Some(HeaderValue::from_static("mine")), None]);
    }
}
