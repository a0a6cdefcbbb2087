//! POST `/v1/operations`: begins to cancel or retry all calls that a filter names. GET `/v1/operations/{id}`: how far
//! that is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use farcall_core::id::CallId;
use farcall_engine::document::{Rejection, RejectionKind, check_object};
use farcall_engine::listing::CallFilter;
use farcall_engine::operations::{Action, RUNNING_MAX, Spec, TooMany};
use farcall_engine::steer::RetryAs;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};

use super::accept::{check_media, is_json};
use super::{Caller, Face, filter, json};
use crate::openapi::{Answer, Content, Operation as Described, OperationOrder, Parameter};
use crate::problem::{Code, Problem, Quota, Unit};
use crate::wire::Operation;

pub(super) async fn begin(State(face): State<Arc<Face>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_media(&parts.headers, is_json, "an operation is sent with `Content-Type: application/json`")?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    let spec = understand(&held.bytes, Caller::of(&parts))?;
    let operation = face.handle.begin_operation(spec).map_err(busy)?;
    let operation = Operation::of(&operation);
    let location = HeaderValue::try_from(operation.path()).expect("an id can stand in a path");
    Ok(([(LOCATION, location)], json(StatusCode::ACCEPTED, &operation)).into_response())
}

pub(super) async fn show(State(face): State<Arc<Face>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let unknown = || Problem::new(Code::NotFound, "there is no operation of this id since farcall was started");
    let id: CallId = id.strip_prefix("op_").and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
    let operation = face.handle.operation(id).ok_or_else(unknown)?;
    Ok(json(StatusCode::OK, &Operation::of(&operation)))
}

fn busy(error: TooMany) -> Problem {
    let all = u64::try_from(RUNNING_MAX).unwrap_or(u64::MAX);
    let unit = Unit::ConcurrentRequests;
    Problem::used_up(Quota { name: "operations", unit, all, free: 0, free_in: error.free_in }, error.to_string())
}

fn understand(bytes: &[u8], caller: Caller) -> Result<Spec, Problem> {
    check_object(bytes, "an operation").map_err(|rejection| match rejection.kind {
        RejectionKind::Syntax => Problem::from(rejection),
        _ => Problem::from(rejection).with_code(Code::InvalidOperation),
    })?;
    let malformed = |error: serde_json::Error| {
        let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
        let column = u32::try_from(error.column()).ok();
        let message = format!("the operation is not one JSON object: {error}");
        Problem::from(Rejection { kind: RejectionKind::Syntax, message, key: None, line: Some(line), column })
    };
    let mut document: Map<String, Value> = serde_json::from_slice(bytes).map_err(malformed)?;
    let action = match document.remove("action").as_ref().and_then(Value::as_str) {
        Some("cancel") => Action::Cancel,
        Some("retry") => {
            Action::Retry(RetryAs { via: caller.via, scope: caller.scope, idempotency_key: None, trace: None })
        }
        _ => return Err(wrong("action", "must be \"cancel\" or \"retry\"")),
    };
    let dry_run = match document.remove("dry_run") {
        None => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => return Err(wrong("dry_run", "must be true or false")),
    };
    let filter = match document.remove("where") {
        Some(Value::Object(filter)) if !filter.is_empty() => of_object(&filter)?,
        _ => return Err(wrong("where", "must be an object with one filter of a list at least")),
    };
    match document.keys().next() {
        Some(key) => Err(wrong(key, "is unknown; there are action, where and dry_run")),
        None => Ok(Spec { action, filter, dry_run }),
    }
}

/// The filters of a list, but for what is about its pages; `state` may be an array.
fn of_object(object: &Map<String, Value>) -> Result<CallFilter, Problem> {
    let mut filter = CallFilter::default();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("function", _) => {
                return Err(
                    Problem::new(Code::NotAvailableYet, "functions come with a later version").at_key("function")
                );
            }
            ("state", Value::Array(states)) if !states.is_empty() => {
                for state in states {
                    let word = state.as_str().ok_or_else(|| wrong(key, "must be words"))?;
                    filter::set(&mut filter, key, word)?;
                }
            }
            ("limit" | "cursor", _) => return Err(wrong(key, "does not belong to an operation, which has no pages")),
            (_, Value::String(text)) => filter::set(&mut filter, key, text)?,
            _ if filter::NAMES.contains(&key.as_str()) => return Err(wrong(key, "must be a text")),
            _ => return Err(filter::unknown(key)),
        }
    }
    Ok(filter)
}

fn wrong(key: &str, what: &str) -> Problem {
    Problem::new(Code::InvalidOperation, format!("`{key}` {what}")).at_key(key)
}

pub(super) fn begin_operation() -> Described {
    let example =
        serde_json::json!({ "action": "retry", "where": { "upstream": "shop", "state": ["failed"] }, "dry_run": true });
    Described::post("beginOperation", "Cancel or retry all calls that a filter names")
        .tag("Many calls")
        .about(
            "Without `state`, `cancel` means calls that have not ended, and `retry` those that ended `failed`, `expired`, `unknown` \
             or `poisoned`. An operation ends with farcall: what it did is durable, and the same one again finds what is left.",
        )
        .json_body(Content::json::<OperationOrder>().example("retry", example), &[RejectionKind::Syntax])
        .answer(
            Answer::json::<Operation<'_>>(202, "It has begun")
                .header("Location", "Where it is", true)
                .link("getOperation", "id", "$response.body#/id"),
        )
        .fails(&[Code::InvalidFilter, Code::InvalidOperation, Code::NotAvailableYet])
}

pub(super) fn show_operation() -> Described {
    let id = serde_json::json!({ "type": "string", "pattern": "^op_[0-9a-f-]{36}$" });
    Described::get("getOperation", "How far an operation is")
        .tag("Many calls")
        .parameters([Parameter::new("path", "id", "The id of an operation", id)])
        .answer(Answer::json::<Operation<'_>>(200, "The operation"))
        .fails(&[Code::NotFound])
}
