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
        .answer(Answer::of_call::<Call<'_>>(200, "The call").call_links("$response.body#/id"))
        .fails(&[Code::NotFound, Code::StoreFailed])
}
