//! What stands in response and problem files.
//!
//! Pure: records in, bytes out. A rejected file's documents hold no time, so writing them again gives the same bytes.

use farcall_core::id::CallId;
use farcall_store::record::{CallRecord, ResponseRecord};
use serde::Serialize;

use crate::document::Rejection;
use crate::outcome::{self, Answer, duration_ms, rfc3339};

/// How much of a response file tells whose it is.
pub(super) const HEAD_BYTES: usize = 64;
const CALL_HEAD: &str = r#"{"id":""#;
const REJECTION_HEAD: &str = r#"{"state":"rejected","#;

/// Who a response file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    Call(CallId),
    Rejection,
}

/// The response file of a call that has ended, with the answer that was kept for it.
pub fn response(call: &CallRecord, answer: Option<&ResponseRecord>) -> Vec<u8> {
    to_json(&ResponseFile {
        id: call.id.to_string(),
        state: call.progress.state.as_str(),
        status: answer.map(|answer| answer.status),
        answer: answer.map(Answer::of),
        error: call.progress.error.as_ref().map(outcome::Error::of),
        attempts: call.attempts,
        accepted_at: rfc3339(call.accepted_at),
        started_at: call.started_at.map(rfc3339),
        finished_at: call.progress.finished_at.map(rfc3339),
        duration_ms: duration_ms(call),
    })
}

/// The response file of a file that was no valid call.
pub fn rejected_response(rejection: &Rejection) -> Vec<u8> {
    let error = RejectedError {
        kind: "invalid",
        message: &rejection.message,
        key: rejection.key.as_deref(),
        line: rejection.line,
        column: rejection.column,
    };
    to_json(&RejectedFile { state: "rejected", error })
}

/// The problem document (RFC 9457) that lies beside a rejected file.
pub fn problem(rejection: &Rejection) -> Vec<u8> {
    to_json(&outcome::Problem {
        r#type: "about:blank",
        title: rejection.kind.title(),
        status: rejection.kind.status(),
        code: rejection.kind.code(),
        detail: &rejection.message,
        key: rejection.key.as_deref(),
        line: rejection.line,
        column: rejection.column,
        retry_after_ms: None,
    })
}

/// Whose response file begins like this; nothing when farcall did not write it.
pub(super) fn author(head: &[u8]) -> Option<Author> {
    if head.starts_with(REJECTION_HEAD.as_bytes()) {
        return Some(Author::Rejection);
    }
    let after = head.strip_prefix(CALL_HEAD.as_bytes())?;
    let id = after.split(|&byte| byte == b'"').next()?;
    std::str::from_utf8(id).ok()?.parse().ok().map(Author::Call)
}

#[derive(serde::Serialize)]
struct ResponseFile<'a> {
    id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(flatten)]
    answer: Option<Answer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<outcome::Error<'a>>,
    attempts: u32,
    accepted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

#[derive(serde::Serialize)]
struct RejectedFile<'a> {
    state: &'static str,
    error: RejectedError<'a>,
}

#[derive(serde::Serialize)]
struct RejectedError<'a> {
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(value).expect("strings, numbers and maps of strings are JSON");
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests;
