//! The request as it goes out: target, framing headers, body.
//!
//! The caller's headers go as they are, in their order, except those of connection and framing, which belong to the
//! connection in use. Added are `host`, `accept-encoding` (unless the caller has its own) and `content-length`.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farcall_core::call::ErrorKind;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use url::{Host, Url};

use super::super::{Coding, HttpRequest};
use super::classify::Failure;
use super::decode;
use super::meter::{Carrying, Meter};
use crate::proxy::Proxy;

/// Fields of one connection (RFC 9110, section 7.6.1) and of framing: never the caller's.
const OURS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// The way a connection takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) origin: Origin,
    pub(super) proxy: Option<Arc<Proxy>>,
}

/// A request that can be put on any connection of its route.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) route: Route,
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A body in one piece that tells the meter when it is taken.
#[derive(Debug)]
pub(super) struct Payload {
    rest: Bytes,
    meter: Arc<Meter>,
}

impl Outgoing {
    /// # Errors
    /// `invalid` for what cannot be sent as HTTP/1.1 to an origin.
    pub(super) fn prepare(request: HttpRequest) -> Result<Self, Failure> {
        let invalid = |message: &str| Failure::new(ErrorKind::Invalid, message);
        if request.method == Method::CONNECT {
            return Err(invalid("CONNECT asks for a tunnel, not for an answer"));
        }
        let origin = Origin::of(&request.url).ok_or_else(|| invalid("the URL is not http or https, or has no host"))?;
        let route = Route { origin, proxy: request.proxy.clone() };
        let target = request.url[route.target_from()..url::Position::AfterQuery]
            .parse()
            .map_err(|_| invalid("the URL has a path or query that HTTP cannot carry"))?;
        let HttpRequest { method, mut headers, body, coding, .. } = request;
        if !is_begun(&headers) {
            headers = begun(&headers, &route).ok_or_else(|| invalid("the URL's host cannot be sent as a header"))?;
        }
        complete(&mut headers, &route, &method, (body.len(), coding));
        Ok(Self { route, method, target, headers, body })
    }

    pub(super) fn carrying(&self) -> Carrying {
        if self.body.is_empty() { Carrying::HeadOnly } else { Carrying::HeadAndBody }
    }

    /// The request for one connection.
    pub(super) fn request(&self, meter: &Arc<Meter>) -> Request<Payload> {
        let mut request = Request::new(Payload { rest: self.body.clone(), meter: Arc::clone(meter) });
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        let interim = Arc::clone(meter);
        hyper::ext::on_informational(&mut request, move |_| interim.interim_answer());
        request
    }
}

impl Route {
    /// The proxy that reads the requests themselves; through a tunnel it does not.
    pub(super) fn reader(&self) -> Option<&Proxy> {
        self.proxy.as_deref().filter(|_| !self.origin.secure)
    }

    /// Where the target of a request begins in its URL: for a proxy it is all of it (RFC 9112, section 3.2.2).
    fn target_from(&self) -> url::Position {
        if self.reader().is_some() { url::Position::BeforeScheme } else { url::Position::BeforePath }
    }
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self { secure, host: url.host()?.to_owned(), port: url.port_or_known_default()? })
    }

    fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }
}

/// Whether the host stands in front, and none of them is ours to give.
fn is_begun(given: &HeaderMap) -> bool {
    given.keys().next() == Some(&header::HOST) && !given.keys().any(|name| OURS.contains(name))
}

/// The caller's headers in their order, behind the host unless they have one.
fn begun(given: &HeaderMap, route: &Route) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(given.len() + 4);
    if !given.contains_key(header::HOST) {
        headers.insert(header::HOST, host(&route.origin)?);
    }
    for (name, value) in given {
        if !OURS.contains(name) {
            headers.append(name, value.clone());
        }
    }
    Some(headers)
}

/// Adds what is missing.
fn complete(headers: &mut HeaderMap, route: &Route, method: &Method, (body_bytes, coding): (usize, Coding)) {
    if let Some(authorization) = route.reader().and_then(|proxy| proxy.authorization.clone()) {
        headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    if coding == Coding::Removed && !headers.contains_key(header::ACCEPT_ENCODING) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(decode::CODINGS));
    }
    // RFC 9110, section 8.6: methods that expect content say so even when there is none.
    let expects_content = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if expects_content || body_bytes > 0 {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body_bytes));
    }
}

fn host(origin: &Origin) -> Option<HeaderValue> {
    let text = if origin.port == origin.default_port() { origin.host.to_string() } else { origin.to_string() };
    HeaderValue::try_from(text).ok()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        this.meter.body_taken();
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Addresses;

    fn prepare(method: Method, url: &str, headers: &[(&'static str, &str)], body: &'static str) -> Outgoing {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header value")))
            .collect();
        let request = HttpRequest { headers, body: Bytes::from_static(body.as_bytes()), ..request(method, url) };
        Outgoing::prepare(request).expect("a request that can be sent")
    }

    fn request(method: Method, url: &str) -> HttpRequest {
        HttpRequest {
            method,
            url: url.parse().expect("a URL"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            coding: Coding::Removed,
            content_type: None,
            max_response: 0,
            addresses: Addresses::Any,
            proxy: None,
        }
    }

    fn lines(outgoing: &Outgoing) -> Vec<String> {
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        outgoing.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
    }

    #[test]
    fn the_callers_headers_keep_their_order_between_host_and_length() {
        let sent = prepare(Method::PUT, "http://a.test/", &[("x-b", "1"), ("x-a", "2")], "hi");
        assert_eq!(
            lines(&sent),
            ["host: a.test", "x-b: 1", "x-a: 2", "accept-encoding: gzip, br, zstd", "content-length: 2"]
        );
    }

    #[test]
    fn the_host_has_its_port_unless_it_is_the_schemes_own() {
        for (url, expected) in [
            ("http://a.test:8080/", "host: a.test:8080"),
            ("https://a.test:443/", "host: a.test"),
            ("https://a.test:80/", "host: a.test:80"),
            ("http://[::1]:9/", "host: [::1]:9"),
        ] {
            assert_eq!(lines(&prepare(Method::GET, url, &[], ""))[0], expected, "{url}");
        }
    }

    #[test]
    fn a_host_that_is_given_stays_and_so_does_the_order_of_all() {
        let given = [("host", "b.test"), ("x-b", "1"), ("accept-encoding", "br")];
        let sent = prepare(Method::POST, "http://a.test/", &given, "hi");
        assert_eq!(lines(&sent), ["host: b.test", "x-b: 1", "accept-encoding: br", "content-length: 2"]);
        let sent = prepare(Method::GET, "http://a.test/", &[("host", "b.test"), ("te", "x"), ("x-b", "1")], "");
        assert_eq!(lines(&sent), ["host: b.test", "x-b: 1", "accept-encoding: gzip, br, zstd"]);
    }

    #[test]
    fn framing_is_never_the_callers() {
        let given = [("content-length", "9"), ("transfer-encoding", "chunked"), ("connection", "close"), ("te", "x")];
        let sent = prepare(Method::GET, "http://a.test/", &given, "");
        assert_eq!(lines(&sent), ["host: a.test", "accept-encoding: gzip, br, zstd"]);
    }

    #[test]
    fn methods_with_content_say_that_there_is_none() {
        for (method, expected) in [(Method::POST, true), (Method::PATCH, true), (Method::GET, false)] {
            let sent = lines(&prepare(method.clone(), "http://a.test/", &[], ""));
            assert_eq!(sent.contains(&"content-length: 0".to_owned()), expected, "{method}");
        }
    }

    #[test]
    fn an_own_accept_encoding_stays() {
        let sent = prepare(Method::GET, "http://a.test/", &[("accept-encoding", "identity")], "");
        assert_eq!(lines(&sent), ["host: a.test", "accept-encoding: identity"]);
    }

    #[test]
    fn the_target_is_path_and_query_without_fragment() {
        let sent = prepare(Method::GET, "http://a.test/p%20q/{x}|y?a=b'c&d=^#f", &[], "");
        assert_eq!(sent.target.to_string(), "/p%20q/%7Bx%7D|y?a=b%27c&d=^");
    }

    #[test]
    fn what_is_no_request_is_invalid() {
        for (method, url) in
            [(Method::CONNECT, "http://a.test/"), (Method::GET, "ftp://a.test/"), (Method::GET, "data:x")]
        {
            let failure = Outgoing::prepare(request(method, url)).expect_err("not sendable");
            assert_eq!(failure.kind, ErrorKind::Invalid);
        }
    }
}
