//! GET `/v1/calls/{id}/response`: the bytes of the answer that is kept, under its own content type.
//!
//! They are another's: no browser shall run anything of them here.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

use super::{CALL_ID, CallInPath, Face, call_id_value, unknown_call};
use crate::openapi::{Answer, Content, Operation, Parameter};
use crate::problem::{Code, Problem};

pub(super) async fn show(State(face): State<Arc<Face>>, CallInPath(id): CallInPath) -> Result<Response, Problem> {
    let view = face.handle.call(id).await.map_err(|error| Problem::unreadable(&error))?.ok_or_else(unknown_call)?;
    let state = view.record.progress.state;
    let Some(answer) = view.response else {
        let problem = if state.is_end() {
            Problem::new(Code::NotFound, "the call ended without an answer")
        } else {
            Problem::new(Code::NotEnded, format!("the call is {state}; its answer comes with its end"))
        };
        return Err(problem);
    };
    let content_type = answer.headers.iter().find(|(name, _)| name == "content-type");
    let content_type = content_type.and_then(|(_, value)| HeaderValue::from_bytes(value).ok());
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    let headers = [(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, policy), (CALL_ID, call_id_value(id))];
    Ok((StatusCode::OK, headers, answer.body).into_response())
}

pub(super) fn operation() -> Operation {
    let bytes = Content::new("*/*", |_| serde_json::json!({}));
    Operation::get("getResponse", "The bytes of a call's answer")
        .tag("Calls")
        .about("Decoded, under the content type that the other side gave them.")
        .parameters([Parameter::call_id()])
        .answer(Answer::new(200, "The answer", bytes).header("farcall-call-id", "The id of the call", true))
        .fails(&[Code::NotFound, Code::NotEnded, Code::StoreFailed])
}
