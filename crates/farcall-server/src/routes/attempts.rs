//! GET `/v1/calls/{id}/attempts`: every try of a call, by number.
//!
//! Of a durable call an attempt is listed before its first byte leaves.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json, unknown_call};
use crate::openapi::{Answer, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Attempts;

pub(super) async fn list(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let attempts = face.handle.attempts(id).await.map_err(|error| Problem::unreadable(&error))?;
    let attempts = attempts.ok_or_else(unknown_call)?;
    Ok(([(CALL_ID, call_id_value(id))], json(StatusCode::OK, &Attempts::of(&attempts))).into_response())
}

pub(super) fn operation() -> Operation {
    Operation::get("listAttempts", "Every request that was made or begun for a call")
        .tag("Calls")
        .parameters([Parameter::call_id()])
        .answer(Answer::of_call::<Attempts<'_>>(200, "Its attempts, by number"))
        .fails(&[Code::NotFound, Code::StoreFailed])
}
