//! GET `/v1/calls/{id}/explain`: why a call waits, until when, what goes before it, and when it will start.
//!
//! Also of calls that run or have ended: then it says that nothing holds them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json, unknown_call};
use crate::openapi::{Answer, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Explanation;

pub(super) async fn show(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let found = face.handle.explain(id).await.map_err(|error| Problem::unreadable(&error))?;
    let (view, explained) = found.ok_or_else(unknown_call)?;
    let explanation = Explanation::of(&view, explained.as_ref());
    Ok(([(CALL_ID, call_id_value(id))], json(StatusCode::OK, &explanation)).into_response())
}

pub(super) fn operation() -> Operation {
    Operation::get("explainCall", "Why a call waits")
        .tag("Calls")
        .about("Which gate holds it and until when, what goes before it, and when it will start.")
        .parameters([Parameter::call_id()])
        .answer(Answer::of_call::<Explanation>(200, "What holds it; for calls that run or have ended nothing does").example(
            "limited",
            serde_json::json!({
                "id": "call_01a1fed7-58bf-7e26-9a92-cc7f2a3b485e", "state": "queued", "upstream": "etsy",
                "wait_reason": "rate_limit", "next_at": "2026-11-20T09:00:00.250Z",
                "explanation": "The limit 10/1s of etsy is used up until 2026-11-20T09:00:00.250Z. 12 calls go before it.",
                "gate": { "reason": "rate_limit", "quota": null, "spacing": null, "limits": [{
                    "limit": "10/1s", "window_ms": 1000, "capacity": 10, "used": 10, "next_free_at": "2026-11-20T09:00:00.250Z",
                }] },
                "position": 13, "position_is_exact": true, "estimated_start_at": "2026-11-20T09:00:01.351Z", "held_by": null,
                "hedging": null,
            }),
        ))
        .fails(&[Code::NotFound, Code::StoreFailed])
}
