//! POST `/v1/upstreams/{name}/permits`: lends a permit when the limits allow an attempt. POST `…/permits/{id}/release`: takes
//! it back, with what became of the request.
//!
//! Whoever hangs up while waiting gives the place in the queue back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use farcall_core::call::Priority;
use farcall_core::id::CallId;
use farcall_engine::document::{Rejection, RejectionKind};
use farcall_engine::permit::{PermitError, PermitWish, Release};
use farcall_engine::quantity::duration;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, error};

use super::accept::{check_media, is_json, wait_preferred};
use super::upstream::{UpstreamInPath, unknown_upstream};
use super::{Face, json};
use crate::openapi::{Answer, Content, Operation, Parameter, PermitOrder, ReleaseOrder};
use crate::problem::{Code, Problem};
use crate::wire::{Permit, Released};

/// For how long a permit is lent when nobody says.
const LEASE: Duration = Duration::from_secs(30);
/// The longest lease. Its slots are held until it ends.
const LEASE_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    cost: Option<u32>,
    priority: Option<u8>,
    lease: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Told {
    sent: Option<bool>,
    status: Option<u16>,
    headers: std::collections::BTreeMap<String, String>,
}

pub(super) async fn lend(
    State(face): State<Arc<Face>>,
    UpstreamInPath(name): UpstreamInPath,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_media(&parts.headers, is_json, "a wish is sent with `Content-Type: application/json`")?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    let wish = understand(name, &held.bytes)?;
    drop(held);
    let lending = face.handle.permit(wish);
    let lent = match wait_preferred(&parts.headers) {
        None => lending.await,
        Some(wait) => tokio::time::timeout(wait, lending).await.map_err(|_| none_in_time(wait))?,
    };
    let permit = Permit::of(&lent.map_err(|error| face.advised(refused(&error)))?);
    let location = HeaderValue::try_from(permit.path()).expect("the name of an upstream and an id can stand in a path");
    Ok(([(LOCATION, location)], json(StatusCode::CREATED, &permit)).into_response())
}

pub(super) async fn release(
    State(face): State<Arc<Face>>,
    Path((name, id)): Path<(String, String)>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let unknown =
        || Problem::new(Code::NotFound, "no such permit is lent: it expired and counts as sent, or was given back");
    let id: CallId = id.strip_prefix("permit_").and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
    let (parts, body) = request.into_parts();
    check_media(&parts.headers, is_json, "a release is sent with `Content-Type: application/json`")?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    let release = told(&held.bytes)?;
    let is_sent = !release.unsent;
    match face.handle.release(&name, id, release).await {
        true => Ok(json(StatusCode::OK, &Released::of(id, is_sent))),
        false => Err(unknown()),
    }
}

fn understand(upstream: String, bytes: &[u8]) -> Result<PermitWish, Problem> {
    let wish: Wish = parse(bytes)?;
    let cost = NonZeroU32::new(wish.cost.unwrap_or(1)).ok_or_else(|| wrong("cost", "must be 1 or more"))?;
    let priority = wish.priority.map_or(Some(Priority::default()), Priority::new);
    let priority = priority.ok_or_else(|| wrong("priority", "must be 1 to 5"))?;
    let lease = match wish.lease {
        None => LEASE,
        Some(lease) => length(&lease).filter(|lease| !lease.is_zero() && *lease <= LEASE_MAX).ok_or_else(|| {
            wrong("lease", "must be a time above zero of at most an hour: seconds, or a text such as \"1m30s\"")
        })?,
    };
    Ok(PermitWish { upstream, cost, priority, lease })
}

fn told(bytes: &[u8]) -> Result<Release, Problem> {
    let Told { sent, status, headers } = parse(bytes)?;
    if status.is_some_and(|status| !(100..600).contains(&status)) {
        return Err(wrong("status", "must be 100 to 599"));
    }
    let mut map = HeaderMap::new();
    for (name, value) in &headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            return Err(wrong("headers", "must be names and values of an answer's headers"));
        };
        map.append(name, value);
    }
    Ok(Release { unsent: sent == Some(false), status, headers: map })
}

/// An object; nothing at all is an empty one.
fn parse<T: Default + for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        error::Category::Data => Problem::new(Code::InvalidPermit, error.to_string()),
        error::Category::Io | error::Category::Syntax | error::Category::Eof => {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
            let column = u32::try_from(error.column()).ok();
            let message = format!("the body is not one JSON object: {error}");
            Problem::from(Rejection { kind: RejectionKind::Syntax, message, key: None, line: Some(line), column })
        }
    })
}

fn length(value: &Value) -> Option<Duration> {
    match value {
        Value::Number(seconds) => duration::from_seconds(seconds.as_f64()?).ok(),
        Value::String(text) => duration::from_text(text).ok(),
        _ => None,
    }
}

fn wrong(key: &str, what: &str) -> Problem {
    Problem::new(Code::InvalidPermit, format!("`{key}` {what}")).at_key(key)
}

fn none_in_time(wait: Duration) -> Problem {
    Problem::new(Code::Busy, format!("the limits allowed no attempt within {} s", wait.as_secs()))
}

fn refused(error: &PermitError) -> Problem {
    match error {
        PermitError::UnknownUpstream { .. } => unknown_upstream(),
        PermitError::Draining => Problem::new(Code::Draining, error.to_string()),
        PermitError::Overloaded { .. } | PermitError::Ended => Problem::new(Code::Busy, error.to_string()),
    }
}

pub(super) fn lend_operation() -> Operation {
    Operation::post("lendPermit", "Borrow a permit to make a request yourself")
        .tag("Upstreams")
        .about(
            "It is answered as soon as every limit of the upstream allows an attempt, `concurrency` included, or after `Prefer: \
             wait=SECONDS`. From then on the request counts as farcall's own would. Give the permit back when the answer is \
             there; one that is left to expire counts as sent.",
        )
        .parameters([Parameter::upstream(), Parameter::prefer_wait_for_permit()])
        .json_body(
            Content::json::<PermitOrder>().example("quick", serde_json::json!({ "cost": 1, "lease": "10s" })),
            &[RejectionKind::Syntax],
        )
        .without_a_body_too()
        .answer(
            Answer::json::<Permit>(201, "The permit that is lent")
                .header("Location", "Where it is given back: this, and `/release`", true)
                .link("releasePermit", "id", "$response.body#/id"),
        )
        .fails(&[Code::NotFound, Code::InvalidPermit, Code::Busy, Code::Draining])
}

pub(super) fn release_operation() -> Operation {
    let id = serde_json::json!({ "type": "string", "pattern": "^permit_[0-9a-f-]{36}$" });
    let told = serde_json::json!({ "status": 429, "headers": { "retry-after": "30", "x-ratelimit-remaining": "0" } });
    Operation::post("releasePermit", "Give a permit back")
        .tag("Upstreams")
        .about(
            "With `sent: false` its slots are free at once. With the answer's status and headers, `Retry-After` and what it says of \
             a quota hold for everyone, as if the request had been farcall's own.",
        )
        .parameters([Parameter::upstream(), Parameter::new("path", "id", "The id of a permit", id)])
        .json_body(Content::json::<ReleaseOrder>().example("turned_away", told), &[RejectionKind::Syntax])
        .without_a_body_too()
        .answer(Answer::json::<Released>(200, "It is given back"))
        .fails(&[Code::NotFound, Code::InvalidPermit])
}
