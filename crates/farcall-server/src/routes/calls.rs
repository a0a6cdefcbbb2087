//! POST `/v1/calls`: accepts one call and answers when it is durable.
//!
//! A call that cannot be accepted leaves nothing behind. The list of calls comes with a later version.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use farcall_core::call::{Source, Via};
use farcall_engine::document::{self, Document, IDEMPOTENCY_KEY_BYTES_MAX, Routing};
use farcall_engine::{Accepted, Submission};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{CALL_ID, Face, call_id_value, json, later};
use crate::access::Scope;
use crate::problem::{Code, Problem};
use crate::wire::{AcceptedId, Call};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub(super) fn methods() -> MethodRouter<Arc<Face>> {
    get(later::not_available_yet).post(accept)
}

async fn accept(State(face): State<Arc<Face>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_preferences(&parts.headers)?;
    check_media(&parts.headers)?;
    let key = key_in_header(&parts.headers)?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    let document = understand(&face, &held.bytes, key)?;
    let accepted = face
        .handle
        .submit(Submission {
            document: Box::new(document),
            bytes: held.bytes.clone(),
            source: Source::Api,
            // Without a word of whoever let it in, the one that may do less.
            via: parts.extensions.get().copied().unwrap_or(Via::Tcp),
            file: None,
            scope: parts.extensions.get::<Scope>().cloned().unwrap_or_default().0,
            id: None,
        })
        .await?;
    Ok(answer(&face, accepted).await)
}

/// The call is durable now: whatever happens here, the answer is 202.
async fn answer(face: &Face, accepted: Accepted) -> Response {
    let id = accepted.id;
    let content = match face.handle.call(id).await {
        Ok(Some(view)) => json(StatusCode::ACCEPTED, &Call::of(&view)),
        Ok(None) => json(StatusCode::ACCEPTED, &AcceptedId::of(id)),
        Err(error) => {
            tracing::error!(error = %error, call = %id, "an accepted call could not be read back");
            json(StatusCode::ACCEPTED, &AcceptedId::of(id))
        }
    };
    let location = HeaderValue::try_from(format!("/v1/calls/{id}")).expect("an id can stand in a path");
    let mut response = ([(CALL_ID, call_id_value(id)), (LOCATION, location)], content).into_response();
    if accepted.is_replay {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// `Prefer: wait` will be served one day, so it is refused until then; what we shall never know is ignored (RFC 7240).
fn check_preferences(headers: &HeaderMap) -> Result<(), Problem> {
    let preferences = headers.get_all("prefer").iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    let names = preferences.map(|preference| {
        let end = preference.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(preference.len());
        preference[..end].trim_ascii()
    });
    if names.into_iter().any(|name| name.eq_ignore_ascii_case(b"wait")) {
        let detail = "`Prefer: wait` is not available yet in this version; poll the call's Location";
        return Err(Problem::new(Code::NotAvailableYet, detail).at_key("prefer"));
    }
    Ok(())
}

/// JSON, or nothing said. What a form of another site can send without being asked for permission is refused.
fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let is_identity = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        let detail = "send the call as it is, without a content coding";
        return Err(Problem::new(Code::UnsupportedContentCoding, detail).at_key("content-encoding"));
    }
    if !headers.get_all(CONTENT_TYPE).iter().all(is_json) {
        let detail = "a call is sent as application/json";
        return Err(Problem::new(Code::UnsupportedMediaType, detail).at_key("content-type"));
    }
    Ok(())
}

fn is_json(content_type: &HeaderValue) -> bool {
    let media_type = content_type.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    let media_type = media_type.trim_ascii().to_ascii_lowercase();
    media_type == b"application/json" || (media_type.contains(&b'/') && media_type.ends_with(b"+json"))
}

fn key_in_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
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

/// The document, with the header's key as its own.
fn understand(face: &Face, bytes: &Bytes, key: Option<String>) -> Result<Document, Problem> {
    let mut document = document::parse(bytes, &Routing::from(&*face.handle.config()))?;
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

fn invalid_key(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidIdempotencyKey, detail).at_key("idempotency_key")
}
