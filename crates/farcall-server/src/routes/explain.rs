//! GET `/v1/calls/{id}/explain`: why a call waits, until when, what goes before it, and when it will start.
//!
//! Also of calls that run or have ended: then it says that nothing holds them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::{CALL_ID, CallInPath, Face, call_id_value, json, unknown_call};
use crate::problem::Problem;
use crate::wire::Explanation;

pub(super) async fn show(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let found = face.handle.explain(id).await.map_err(|error| Problem::unreadable(&error))?;
    let (view, explained) = found.ok_or_else(unknown_call)?;
    let explanation = Explanation::of(&view, explained.as_ref());
    Ok(([(CALL_ID, call_id_value(id))], json(StatusCode::OK, &explanation)).into_response())
}
