//! GET `/v1/calls/{id}`: one call, with its outcome once it has ended.
//!
//! What is stored is shown; why a call waits is asked of the running engine.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json, unknown_call};
use crate::problem::Problem;
use crate::wire::Call;

pub(super) async fn show(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let view = face.handle.call(id).await.map_err(|error| Problem::unreadable(&error))?.ok_or_else(unknown_call)?;
    Ok(([(CALL_ID, call_id_value(id))], json(StatusCode::OK, &Call::of(&view))).into_response())
}
