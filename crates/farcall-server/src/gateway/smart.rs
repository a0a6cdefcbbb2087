//! Requestko's endpoint: one JSON document of an upstream, within a time that the client gives.
//!
//! Its answers and their words are Requestko's; what is wrong with the request otherwise is a problem as everywhere.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farcall_core::call::{Source, Via, WaitReason};
use farcall_core::id::CallId;
use farcall_core::time::Instant;
use farcall_engine::clock;
use farcall_engine::config::Route;
use farcall_engine::forward::{AnswerMode, Forward, ForwardBody, ForwardError, Forwarded};
use farcall_engine::trace::TraceContext;
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;

use super::{Asked, carry, refusal};
use crate::connection::Visitor;
use crate::problem::{Code, Problem};
use crate::routes::{CALL_ID, Face, call_id_value, json as json_answer};

const NO_INTEGER: &str = "You should send integer as query parameter: ?timeout=100";
const TOO_LATE: &str = "Error defined timeout reached";

/// A request of this route.
#[derive(Debug, Clone, Copy)]
struct Wish {
    timeout: Duration,
    since: Instant,
}

pub(super) async fn answer(face: &Face, asked: &Asked, route: &Route, parts: &Parts) -> Response {
    let since = clock::instant();
    if parts.method != Method::GET {
        let detail = format!("{} has the method GET only", parts.uri.path());
        let problem = Problem::new(Code::MethodNotAllowed, detail).into_response();
        return ([(ALLOW, HeaderValue::from_static("GET"))], problem).into_response();
    }
    let Some(timeout) = timeout(parts.uri.query().unwrap_or_default()) else {
        return json_answer(StatusCode::BAD_REQUEST, &json!({ "detail": NO_INTEGER }));
    };
    let wish = Wish { timeout, since };
    if timeout.is_zero() {
        return wish.too_late();
    }
    let attending = parts.extensions.get::<Visitor>().map(|visitor| visitor.attention.pay());
    let forward = Forward {
        source: Source::Route,
        upstream: asked.upstream.clone(),
        method: Method::GET,
        target: asked.target.clone(),
        headers: HeaderMap::new(),
        body: ForwardBody::Empty,
        timeout: Some(timeout),
        overrides: asked.overrides(),
        answer: AnswerMode::Whole,
        trace: TraceContext::of_request(&parts.headers),
        via: parts.extensions.get().copied().unwrap_or(Via::Tcp),
    };
    let response = match face.handle.forward(forward).await {
        Ok(forwarded) => wish.answered(forwarded, route).await,
        Err(error) => wish.failed(error),
    };
    drop(attending);
    response
}

/// Why this answer is no success, if it is none.
fn mistake(status: StatusCode, headers: &HeaderMap, body: &Bytes, route: &Route) -> Option<String> {
    let success = route.success.as_ref()?;
    if !success.statuses.contains(status.as_u16()) {
        return Some(format!("The upstream answered with status {}", status.as_u16()));
    }
    if let Some(wanted) = success.content_type.as_deref().filter(|wanted| !is_of_type(headers, wanted)) {
        return Some(format!("The upstream's answer is not of the type {wanted}"));
    }
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(body);
    parsed.err().map(|error| format!("The upstream's answer is no JSON: {error}"))
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}

/// The last `timeout` of a query, as Requestko's framework reads it.
fn timeout(query: &str) -> Option<Duration> {
    let given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "timeout");
    carry::milliseconds(&given.last()?.1)
}

impl Wish {
    /// An answer came: the document, or what is no success.
    async fn answered(self, forwarded: Forwarded, route: &Route) -> Response {
        let Forwarded { id, attempts, status, headers, body, .. } = forwarded;
        let Ok(body) = body.collect().await else {
            return with_id(id, all_failed("The upstream's answer broke off", attempts));
        };
        let body = body.to_bytes();
        match mistake(status, &headers, &body, route) {
            None => {
                let mut response = Response::new(body.into());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                with_id(id, response)
            }
            Some(mistake) => with_id(id, all_failed(&mistake, attempts)),
        }
    }

    fn failed(self, error: ForwardError) -> Response {
        match error {
            ForwardError::Expired { id, .. } => with_id(id, self.too_late()),
            ForwardError::Failed { id, message, attempts, .. } => with_id(id, all_failed(&message, attempts)),
            ForwardError::Refused { reason, .. } if reason != WaitReason::BreakerOpen => self.too_late(),
            error => refusal::answer(error),
        }
    }

    fn too_late(self) -> Response {
        let spent = clock::instant().since(self.since);
        let body =
            json!({ "detail": TOO_LATE, "timeout": self.timeout.as_secs_f64(), "time_spent": spent.as_secs_f64() });
        json_answer(StatusCode::GATEWAY_TIMEOUT, &body)
    }
}

fn all_failed(detail: &str, attempts: u32) -> Response {
    json_answer(StatusCode::BAD_GATEWAY, &json!({ "detail": detail, "attempts": attempts }))
}

fn with_id(id: CallId, mut response: Response) -> Response {
    response.headers_mut().insert(CALL_ID, call_id_value(id));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_the_last_of_its_name_in_digits() {
        let check = |query: &str, expected: Option<u64>| {
            assert_eq!(timeout(query), expected.map(Duration::from_millis), "{query}");
        };
        check("timeout=100", Some(100));
        check("timeout=0", Some(0));
        check("a=b&timeout=007&c", Some(7));
        check("timeout=%31%30", Some(10));
        check("timeout=x&timeout=5", Some(5));
        check("timeout=18446744073709551616", Some(u64::MAX));
        check(&format!("timeout={}", "9".repeat(5_000)), Some(u64::MAX));
        for wrong in ["", "timeout", "timeout=", "timeout=-1", "timeout=+1", "timeout=1.0", "timeout=1e3", "timeout= 1"]
        {
            check(wrong, None);
        }
        for wrong in ["timeout=%20", "timeout=1_000", "timeout=\u{661}", "Timeout=1", "timeout=5&timeout=x", "time=5"] {
            check(wrong, None);
        }
    }
}
