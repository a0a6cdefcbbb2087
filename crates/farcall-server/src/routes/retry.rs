//! POST `/v1/calls/{id}/retry`: makes a call that has ended again, as a new call with the same document.
//!
//! An `Idempotency-Key` makes the retry itself safe to repeat; that of the old call stays with the old call.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use farcall_engine::document::RejectionKind;
use farcall_engine::steer::RetryAs;

use super::accept::{answer, key_in_header, trace, wait_preferred};
use super::{CallInPath, Caller, Face};
use crate::openapi::{Operation, Parameter};
use crate::problem::{Code, Problem};

pub(super) async fn retry(State(face): State<Arc<Face>>, request: Request<Body>) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let CallInPath(id) = CallInPath::from_request_parts(&mut parts, &()).await?;
    let idempotency_key = key_in_header(&parts.headers)?;
    let Caller { via, scope } = Caller::of(&parts);
    let accepted = face.handle.retry(id, RetryAs { via, scope, idempotency_key, trace: trace(&parts.headers) }).await?;
    Ok(answer(&face, (accepted, None), wait_preferred(&parts.headers)).await)
}

pub(super) fn operation() -> Operation {
    Operation::post("retryCall", "Make a call that has ended again")
        .tag("Calls")
        .about("As a new call with the same document and `retry_of`; the old one keeps its end.")
        .parameters([Parameter::call_id()])
        .accepts_a_call()
        .fails(&[Code::NotFound, Code::NotEnded, Code::NotRetryable])
        // The document may contradict the present configuration.
        .mistakes(&[RejectionKind::Invalid])
}
