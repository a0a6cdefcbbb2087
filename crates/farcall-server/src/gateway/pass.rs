//! Passing a request on, and its answer back: the proxy, and routes of its style.
//!
//! An answer goes out as it came, whatever its status; only a call without one is told of as a problem.

use axum::body::Body;
use axum::response::Response;
use farcall_core::call::{Source, Via};
use farcall_engine::clock;
use farcall_engine::config::{Config, Upstream};
use farcall_engine::forward::{AnswerMode, Forward, Forwarded};
use farcall_engine::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body as _;

use super::fields::{self, Asker};
use super::{Asked, Passed, carry, refusal};
use crate::attended::Attending;
use crate::connection::Visitor;
use crate::problem::{Code, Problem};
use crate::routes::{CALL_ID, Face, call_id_value};

/// What of the request matters for its answer.
#[derive(Debug, Clone, Copy)]
struct WayBack {
    /// The length in the head is that of a body that does not come.
    is_to_head: bool,
    is_a_page: bool,
}

pub(super) async fn answer(
    face: &Face,
    config: &Config,
    asked: Asked,
    parts: Parts,
    body: Body,
) -> Result<Response, Problem> {
    let since = clock::instant();
    let upstream = config.upstreams.get(&asked.upstream).ok_or_else(refusal::unknown_upstream)?;
    check_method(&parts.method, upstream)?;
    let timeout = carry::timeout(&parts.headers)?;
    let mut headers = fields::of_request(&parts.headers, parts.version, &config.server.tokens)?;
    let visitor = parts.extensions.get::<Visitor>().cloned().unwrap_or_default();
    if upstream.forwarded {
        fields::tell_who_asked(&mut headers, Asker { address: visitor.address, host: parts.headers.get(HOST) });
    }
    let trace = TraceContext::of_request(&parts.headers);
    if trace.is_some() {
        // The attempts go on with it in their own words.
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(Problem::new(Code::UpstreamTimeout, "no time was given, so nothing was sent"));
    }
    let body = carry::of_request(face, &parts.headers, body).await?;
    let attending = visitor.attention.pay();
    let via = parts.extensions.get().copied().unwrap_or(Via::Tcp);
    let waited = clock::instant().since(since);
    let way_back = WayBack {
        is_to_head: parts.method == Method::HEAD,
        is_a_page: via == Via::Tcp && config.server.tokens.is_empty() && is_a_page(&parts.headers),
    };
    let forward = Forward {
        source: if asked.route.is_some() { Source::Route } else { Source::Proxy },
        overrides: asked.overrides(),
        upstream: asked.upstream,
        method: parts.method,
        target: asked.target,
        headers,
        body,
        timeout: timeout.map(|timeout| timeout.saturating_sub(waited)),
        answer: AnswerMode::Streamed,
        trace,
        via,
    };
    let forwarded = face.handle.forward(forward).await;
    Ok(forwarded.map_or_else(refusal::answer, |forwarded| passed(forwarded, attending, &way_back)))
}

/// CONNECT asks for no answer, and TRACE for what was sent: the upstream's own headers are nobody's to see.
fn check_method(method: &Method, upstream: &Upstream) -> Result<(), Problem> {
    let shows_secrets = *method == Method::TRACE && !upstream.headers.is_empty();
    if *method != Method::CONNECT && !shows_secrets {
        return Ok(());
    }
    Err(Problem::new(Code::MethodNotAllowed, format!("{method} is not passed on to this upstream")))
}

fn passed(forwarded: Forwarded, attending: Attending, way_back: &WayBack) -> Response {
    let Forwarded { id, status, headers, body, .. } = forwarded;
    let mut headers = fields::of_answer(&headers);
    if !way_back.is_to_head && body.size_hint().exact() == Some(0) {
        // That of a 304 is another answer's, and hyper holds a length against the body.
        headers.remove(CONTENT_LENGTH);
    }
    headers.insert(CALL_ID, call_id_value(id));
    if way_back.is_a_page {
        // Another's page is shown at farcall's own address, and must not act as one of farcall's.
        headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    }
    let mut response = Response::new(carry::of_answer(body, headers.contains_key(TRAILER), attending));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.extensions_mut().insert(Passed);
    response
}

/// Whether a browser asks, to show what comes.
fn is_a_page(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-dest") {
        Some(destination) => destination != "empty",
        None => headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().windows(9).any(|some| some == b"text/html")),
    }
}
