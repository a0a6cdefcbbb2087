//! POST `/v1/calls`: accepts one call and answers when it is durable, or has ended. GET `/v1/calls`: lists calls.
//!
//! A call that cannot be accepted leaves nothing behind.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use farcall_core::call::Source;
use farcall_engine::Submission;
use farcall_engine::document::{DocumentSchema, RejectionKind};
use http::{StatusCode, Uri};
use serde_json::json;

use super::accept::{answer, check_media, is_json, key_in_header, understand, wait_preferred};
use super::{Caller, Face, filter, json as answered};
use crate::openapi::{Answer, Content, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Calls;

pub(super) fn methods() -> MethodRouter<Arc<Face>> {
    get(list).post(accept)
}

async fn accept(State(face): State<Arc<Face>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_media(&parts.headers, is_json, "a call is sent with `Content-Type: application/json`")?;
    key_in_header(&parts.headers)?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    let document = understand(&face, &held.bytes, &parts.headers)?;
    let Caller { via, scope } = Caller::of(&parts);
    let submission = Submission {
        document: Box::new(document),
        bytes: held.bytes.clone(),
        source: Source::Api,
        via,
        file: None,
        scope,
        retry_of: None,
        id: None,
    };
    let (accepted, seen) = face.handle.submit_seen(submission).await?;
    // Nothing of the body is needed while the client waits.
    drop(held);
    Ok(answer(&face, (accepted, seen), wait_preferred(&parts.headers)).await)
}

async fn list(State(face): State<Arc<Face>>, uri: Uri) -> Result<Response, Problem> {
    let asked = filter::of_query(uri.query().unwrap_or_default())?;
    if asked.matches_none {
        return Ok(answered(StatusCode::OK, &Calls::none()));
    }
    let page = face.handle.list(&asked.filter, asked.cursor, asked.limit).await;
    let page = page.map_err(|error| Problem::unreadable(&error))?;
    Ok(answered(StatusCode::OK, &Calls::of(&page)))
}

pub(super) fn accept_operation() -> Operation {
    let example = json!({
        "url": "https://api.example.com/v1/orders", "body": { "order_id": 123 }, "idempotency_key": "order-123", "retry": 3,
    });
    let document = Content::json::<DocumentSchema>().example("order", example);
    Operation::post("createCall", "Make a call")
        .tag("Calls")
        .about(
            "202 says that the call is durable: it will be made, and ends once, whatever happens to farcall. Without an answer \
             send it again under the same `Idempotency-Key`.",
        )
        .json_body(document, &[RejectionKind::Syntax, RejectionKind::Invalid, RejectionKind::NotAvailableYet])
        .accepts_a_call()
}

pub(super) fn list_operation() -> Operation {
    Operation::get("listCalls", "List calls, newest first")
        .tag("Calls")
        .about("A page may be short, even empty, and still have another after it: follow `next_cursor` while `has_more` is true.")
        .parameters(Parameter::of_lists())
        .answer(Answer::json::<Calls<'_>>(200, "A page of calls"))
        .fails(&[Code::InvalidFilter, Code::StoreFailed])
}
