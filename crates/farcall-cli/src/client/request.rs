//! A request to a server: its method, its path with everything in it encoded, its content.
//!
//! It can be sent more than once, to whichever server.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::form_urlencoded;

use super::{Content, Target};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const USER: HeaderValue = HeaderValue::from_static(concat!("farcall/", env!("CARGO_PKG_VERSION")));
/// Whoever comes through the socket is not asked for a host; there has to be one (RFC 9112, section 3.2).
const SOCKET_HOST: &str = "localhost";
/// What a segment of a path may hold as it is: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    /// Encoded, with its query.
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// How long the server is asked to take, beside what any answer may take.
    pub(super) patience: Duration,
}

impl Request {
    /// GET of a path whose segments are anything.
    pub(crate) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// POST without a body.
    pub(crate) fn post(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    pub(crate) fn new(method: Method, segments: &[&str]) -> Self {
        let mut target = String::new();
        for segment in segments {
            target.push('/');
            target.extend(utf8_percent_encode(segment, SEGMENT));
        }
        Self { method, target, headers: Vec::new(), body: Bytes::new(), patience: Duration::ZERO }
    }

    /// With these parameters, in this order.
    pub(crate) fn query<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        if !query.is_empty() {
            self.target.push('?');
            self.target.push_str(&query);
        }
        self
    }

    /// With a JSON document.
    pub(crate) fn json(mut self, document: &Value) -> Self {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        self.body = Bytes::from(document.to_string());
        self
    }

    /// With a document on each line.
    pub(crate) fn lines(mut self, lines: Bytes) -> Self {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")));
        self.body = lines;
        self
    }

    /// With a JSON document as it was written.
    pub(crate) fn document(mut self, document: Bytes) -> Self {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        self.body = document;
        self
    }

    /// With an idempotency key of its own: sent twice it does once what it asks for.
    pub(crate) fn once(mut self) -> Self {
        let key = HeaderValue::try_from(format!("once-{:032x}", fastrand::u128(..)));
        self.headers.push((IDEMPOTENCY_KEY, key.expect("digits can stand in a header")));
        self
    }

    /// Whether it may be sent again when nobody knows whether it arrived.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method == Method::GET || self.has_key()
    }

    pub(super) fn has_key(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == IDEMPOTENCY_KEY)
    }

    /// The server is asked to answer only when there is an outcome, or after so long (RFC 7240, section 4.3).
    pub(crate) fn waiting(mut self, time: Duration) -> Self {
        let wait = HeaderValue::try_from(format!("wait={}", time.as_secs())).expect("digits can stand in a header");
        self.headers.push((HeaderName::from_static("prefer"), wait));
        self.patience = time;
        self
    }

    /// The path without its query, as it is shown.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// As it is sent to this server.
    pub(super) fn message(&self, server: &Target) -> http::Request<Content> {
        let (prefix, host, authorization) = match server {
            Target::Socket { .. } => ("", SOCKET_HOST.to_owned(), None),
            Target::Url(remote) => (remote.prefix.as_str(), remote.authority(), remote.authorization.clone()),
        };
        let mut message = http::Request::new(Full::new(self.body.clone()));
        *message.method_mut() = self.method.clone();
        let uri = format!("{prefix}{}", self.target);
        *message.uri_mut() = uri.parse().expect("encoded segments and a URL's path are a path");
        let headers = message.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(host).expect("a URL's host can stand in a header"));
        headers.insert(USER_AGENT, USER);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if self.method != Method::GET {
            // Also of nothing: who gets a method that may have content wants to know (RFC 9110, section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        headers.extend(self.headers.iter().cloned());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_segment_or_a_parameter_gets_out_of_it() {
        let request = Request::get(&["v1", "upstreams", "../a/b?c#d é"]).query([("tag", "a&b=c"), ("limit", "1")]);
        assert_eq!(request.target, "/v1/upstreams/..%2Fa%2Fb%3Fc%23d%20%C3%A9?tag=a%26b%3Dc&limit=1");
        assert_eq!(request.path(), "/v1/upstreams/..%2Fa%2Fb%3Fc%23d%20%C3%A9");
    }

    #[test]
    fn without_parameters_there_is_no_query() {
        assert_eq!(Request::get(&["healthz"]).query([]).target, "/healthz");
    }
}
