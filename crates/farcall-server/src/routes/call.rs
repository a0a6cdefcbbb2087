//! GET `/v1/calls/{id}`: one call, with its outcome once it has ended.
//!
//! What is stored is shown; why a call waits is asked of the running engine.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json, unknown_call};
use crate::openapi::{Answer, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Call;

pub(super) async fn show(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let view = face.handle.call(id).await.map_err(|error| Problem::unreadable(&error))?.ok_or_else(unknown_call)?;
    Ok(([(CALL_ID, call_id_value(id))], json(StatusCode::OK, &Call::of(&view))).into_response())
}

pub(super) fn operation() -> Operation {
    Operation::get("getCall", "One call")
        .tag("Calls")
        .about("Once it has ended, with its answer's `headers` and `body` or `body_base64`, as in a response file.")
        .parameters([Parameter::call_id()])
        .answer(Answer::of_call::<Call<'_>>(200, "The call").call_links("$response.body#/id").example("ended", ended()))
        .fails(&[Code::NotFound, Code::StoreFailed])
}

fn ended() -> serde_json::Value {
    serde_json::json!({
        "id": "call_01a1fed7-58bf-7e26-9a92-cc7f2a3b485e", "state": "succeeded", "source": "api", "upstream": "etsy",
        "function": null, "method": "POST", "url": "https://openapi.etsy.com/orders", "tags": ["nightly"], "priority": 3,
        "tenant": null, "accepted_at": "2026-11-20T09:00:00.000Z", "started_at": "2026-11-20T09:00:00.004Z",
        "finished_at": "2026-11-20T09:00:00.016Z", "duration_ms": 12, "attempts": 1, "wait_reason": null, "next_at": null,
        "status": 200, "error": null, "retry_of": null, "cancel_requested": false,
        "request_headers": { "x-api": "111222", "authorization": "***" },
        "headers": { "content-type": "application/json" }, "body": { "ok": true },
    })
}
