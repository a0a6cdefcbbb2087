//! What all ways of accepting calls have in common: what may be sent, and how an accepted call is answered.
//!
//! What becomes of a call is the engine's business.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_engine::document::{self, Document, IDEMPOTENCY_KEY_BYTES_MAX, Routing};
use farcall_engine::trace::TraceContext;
use farcall_engine::{Accepted, CallView};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::timeout;

use super::{CALL_ID, Face, call_id_value, json};
use crate::problem::{Code, Problem};
use crate::wire::{AcceptedId, Call};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The longest that anybody waits for an outcome by `Prefer: wait`.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// `Prefer: wait`: how long the client wants to wait for the outcome. What we do not understand is ignored (RFC 7240).
pub(super) fn wait_preferred(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse::<u64>().ok()).flatten()
    });
    wait.map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX))
}

/// One of these media types, or nothing said; what a form of another site can send without being asked for permission
/// is refused. Never compressed.
pub(super) fn check_media(headers: &HeaderMap, is_known: fn(&str) -> bool, expected: &str) -> Result<(), Problem> {
    let is_identity = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        let detail = "send the body as it is, without a content coding";
        return Err(Problem::new(Code::UnsupportedContentCoding, detail).at_key("content-encoding"));
    }
    let is_of_type = |content_type: &HeaderValue| {
        let media_type = content_type.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        let media_type = String::from_utf8_lossy(media_type.trim_ascii()).to_ascii_lowercase();
        is_known(&media_type)
    };
    if !headers.get_all(CONTENT_TYPE).iter().all(is_of_type) {
        return Err(Problem::new(Code::UnsupportedMediaType, expected).at_key("content-type"));
    }
    Ok(())
}

/// `application/json` and its kin.
pub(super) fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.contains('/') && media_type.ends_with("+json"))
}

/// The key in the header, if there is one.
pub(super) fn key_in_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid_key("the request has more than one Idempotency-Key"));
    }
    let key = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        let detail = format!(
            "Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of UTF-8 without control characters"
        );
        return Err(invalid_key(detail));
    }
    Ok(Some(key.to_owned()))
}

/// The document, with what the headers say: their key as its own, and the trace it belongs to.
pub(super) fn understand(face: &Face, bytes: &Bytes, headers: &HeaderMap) -> Result<Document, Problem> {
    let key = key_in_header(headers)?;
    let mut document = document::parse(bytes, &Routing::from(&*face.handle.config()))?;
    document.trace = trace(headers);
    match (&document.idempotency_key, key) {
        (Some(own), Some(key)) if *own != key => {
            Err(invalid_key("`idempotency_key` and the Idempotency-Key header differ"))
        }
        (None, Some(key)) => {
            document.idempotency_key = Some(key);
            Ok(document)
        }
        _ => Ok(document),
    }
}

/// The trace that a request belongs to.
pub(super) fn trace(headers: &HeaderMap) -> Option<Arc<TraceContext>> {
    TraceContext::of_request(headers).map(Arc::new)
}

pub(super) fn invalid_key(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidIdempotencyKey, detail).at_key("idempotency_key")
}

/// The call is durable now: whatever happens here, the answer is 202, or 200 with the outcome when that comes in time.
/// `seen` is what it looked like then, where that is known.
pub(super) async fn answer(
    face: &Face,
    (accepted, seen): (Accepted, Option<CallView>),
    wait: Option<Duration>,
) -> Response {
    let id = accepted.id;
    let view = match (wait, seen) {
        (Some(wait), _) => within(face, id, wait).await,
        (None, Some(seen)) => Some(seen),
        (None, None) => read_back(face, id).await,
    };
    let has_ended = view.as_ref().is_some_and(|view| view.record.progress.state.is_end());
    let status = if wait.is_some() && has_ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let content = match &view {
        Some(view) => json(status, &Call::of(view)),
        None => json(status, &AcceptedId::of(id)),
    };
    let location = HeaderValue::try_from(format!("/v1/calls/{id}")).expect("an id can stand in a path");
    let mut response = ([(CALL_ID, call_id_value(id)), (LOCATION, location)], content).into_response();
    let headers = response.headers_mut();
    if accepted.is_replay {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(wait) = wait {
        let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs())).expect("digits can stand in a header");
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// The call once it has ended, or as it is after so long, or when farcall stops.
async fn within(face: &Face, id: CallId, wait: Duration) -> Option<CallView> {
    let mut end = face.handle.end_of(id).await;
    let view = read_back(face, id).await;
    if view.as_ref().is_some_and(|view| view.record.progress.state.is_end()) {
        return view;
    }
    let mut snapshots = face.handle.snapshots();
    let has_ended = async {
        tokio::select! {
            has_ended = end.wait() => has_ended,
            _ = snapshots.wait_for(|snapshot| snapshot.is_draining) => false,
        }
    };
    match timeout(wait, has_ended).await {
        Ok(true) => read_back(face, id).await,
        Ok(false) | Err(_) => view,
    }
}

async fn read_back(face: &Face, id: CallId) -> Option<CallView> {
    match face.handle.call(id).await {
        Ok(view) => view,
        Err(error) => {
            tracing::error!(error = %error, call = %id, "an accepted call could not be read back");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_understood_or_ignored() {
        let check = |values: &[&'static str], expected: Option<u64>| {
            let headers = values
                .iter()
                .map(|value| (http::header::HeaderName::from_static("prefer"), HeaderValue::from_static(value)));
            assert_eq!(wait_preferred(&headers.collect()), expected.map(Duration::from_secs), "{values:?}");
        };
        check(&[], None);
        check(&["wait=10"], Some(10));
        check(&["respond-async, WAIT = 5; x=y"], Some(5));
        check(&["respond-async", "wait=\"7\""], Some(7));
        check(&["wait=99999999"], Some(600));
        check(&["wait"], None);
        check(&["wait=soon"], None);
        check(&["wait=-1"], None);
    }
}
