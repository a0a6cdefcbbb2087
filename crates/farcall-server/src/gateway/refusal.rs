//! Calls without an answer: what their clients are told.
//!
//! A call that was made is named in the head of the problem.

use axum::response::{IntoResponse, Response};
use farcall_core::call::{ErrorKind, WaitReason};
use farcall_engine::forward::ForwardError;

use crate::problem::{Code, Problem};
use crate::routes::{CALL_ID, call_id_value};

pub(super) fn unknown_upstream() -> Problem {
    Problem::new(Code::NotFound, "there is no configured upstream of this name")
}

/// What a call ended in, as an answer.
pub(super) fn answer(error: ForwardError) -> Response {
    let id = match &error {
        ForwardError::Expired { id, .. } | ForwardError::Cancelled { id, .. } | ForwardError::Failed { id, .. } => {
            Some(*id)
        }
        ForwardError::UnknownUpstream { .. }
        | ForwardError::Rejected(_)
        | ForwardError::Overloaded { .. }
        | ForwardError::Refused { .. }
        | ForwardError::Draining => None,
    };
    let mut response = problem(error).into_response();
    if let Some(id) = id {
        response.headers_mut().insert(CALL_ID, call_id_value(id));
    }
    response
}

/// Why a call was not taken on, and nothing of it sent.
fn turned_away(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::BreakerOpen => "the upstream fails, and is left alone for a while (breaker_open)",
        WaitReason::Cooldown => "the upstream asks everybody to keep away for longer than this may take (cooldown)",
        WaitReason::NotBefore => "it is not to start before its time is over (not_before)",
        WaitReason::RateLimit
        | WaitReason::Backoff
        | WaitReason::Concurrency
        | WaitReason::Paused
        | WaitReason::Fairness => "the limits of the upstream allow no attempt before its time is over (rate_limit)",
    }
}

fn problem(error: ForwardError) -> Problem {
    match error {
        ForwardError::UnknownUpstream { .. } => unknown_upstream(),
        ForwardError::Rejected(message) => Problem::new(Code::MalformedRequest, message),
        ForwardError::Draining => Problem::new(Code::Draining, "farcall is stopping and passes nothing on any more"),
        ForwardError::Overloaded { retry_after } => {
            Problem::new(Code::Busy, "too many requests wait for answers already").retrying_in(retry_after)
        }
        ForwardError::Refused { reason, retry_after } => {
            Problem::new(Code::Busy, turned_away(reason)).retrying_in(retry_after)
        }
        ForwardError::Expired { attempts, .. } => {
            Problem::new(Code::UpstreamTimeout, format!("the time was over after {attempts} attempts"))
        }
        ForwardError::Cancelled { .. } => Problem::new(Code::UpstreamFailed, "the call was cancelled through the API"),
        ForwardError::Failed { kind: ErrorKind::Timeout, message, .. } => Problem::new(Code::UpstreamTimeout, message),
        ForwardError::Failed { kind: ErrorKind::Internal, message, .. } => Problem::new(Code::Internal, message),
        ForwardError::Failed { kind, message, .. } => Problem::new(Code::UpstreamFailed, format!("{kind}: {message}")),
    }
}
