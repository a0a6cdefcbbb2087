//! POST `/v1/calls/{id}/cancel`: 200 when no byte of the call will be sent any more, 202 when bytes may be out.
//!
//! The answer is durable; a call that had ended before is none to cancel.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use farcall_engine::steer::Cancelled;
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json};
use crate::openapi::{Answer, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Call;

pub(super) async fn cancel(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let (status, view) = match face.handle.cancel(id).await? {
        Cancelled::Ended(view) => (StatusCode::OK, view),
        Cancelled::Requested(view) => (StatusCode::ACCEPTED, view),
    };
    Ok(([(CALL_ID, call_id_value(id))], json(status, &Call::of(&view))).into_response())
}

pub(super) fn operation() -> Operation {
    Operation::post("cancelCall", "Cancel a call")
        .tag("Calls")
        .parameters([Parameter::call_id()])
        .answer(Answer::of_call::<Call<'_>>(200, "It has ended `cancelled`: no byte of it will be sent any more"))
        .answer(Answer::of_call::<Call<'_>>(202, "Bytes may be out: it ends as its last attempt does"))
        .fails(&[Code::NotFound, Code::AlreadyEnded, Code::Busy, Code::Draining, Code::StoreFailed])
}
