//! A whole call as it is told: where it stands, what it was, and its answer when it has one.
//!
//! The one form of it for the API and for webhooks, so that both can be read by the same program.

use farcall_core::call::{State, WaitReason};

use super::{Answer, Error, Fields, duration_ms, rfc3339};
use crate::handle::CallView;

/// A call as the API and webhooks tell it.
///
/// Every key is always there and null without a value, but for those of an answer that a call does not have (yet).
#[derive(Debug, serde::Serialize)]
pub struct Call<'a> {
    id: String,
    state: &'static str,
    source: &'static str,
    upstream: Option<&'a str>,
    function: Option<&'a str>,
    method: Option<&'a str>,
    url: Option<&'a str>,
    tags: &'a [String],
    priority: u8,
    tenant: Option<&'a str>,
    accepted_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    duration_ms: Option<u64>,
    attempts: u32,
    wait_reason: Option<&'static str>,
    next_at: Option<String>,
    status: Option<u16>,
    error: Option<Error<'a>>,
    retry_of: Option<String>,
    cancel_requested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_headers: Option<Fields<'a>>,
    #[serde(flatten)]
    answer: Option<Answer<'a>>,
}

impl<'a> Call<'a> {
    /// As the API shows it.
    pub fn of(view: &'a CallView) -> Self {
        let record = &view.record;
        let state = record.progress.state;
        let waits = !state.is_end() && state != State::Running;
        let answer = view.response.as_ref().filter(|_| state.is_end());
        Self {
            id: record.id.to_string(),
            state: state.as_str(),
            source: record.source.as_str(),
            upstream: record.upstream.as_deref(),
            function: None,
            method: some_text(&record.method),
            url: some_text(&record.url),
            tags: &record.tags,
            priority: record.priority,
            tenant: record.tenant.as_deref(),
            accepted_at: rfc3339(record.accepted_at),
            started_at: record.started_at.map(rfc3339),
            finished_at: record.progress.finished_at.map(rfc3339),
            duration_ms: duration_ms(record),
            attempts: record.attempts,
            wait_reason: view.wait_reason.filter(|_| waits).map(WaitReason::as_str),
            next_at: view.next_at.filter(|_| waits).map(rfc3339),
            status: answer.map(|answer| answer.status).or(record.progress.status),
            error: record.progress.error.as_ref().map(Error::of),
            retry_of: record.retry_of.map(|id| id.to_string()),
            cancel_requested: record.cancel_requested,
            request_headers: Some(Fields(&view.request_headers)),
            answer: answer.map(Answer::of),
        }
    }

    /// As those are told who have no part in the call but that they hear how it ended: the headers of the request are
    /// not for them.
    pub fn told_to_others(view: &'a CallView) -> Self {
        Self { request_headers: None, ..Self::of(view) }
    }
}

/// A process has no method and no URL.
fn some_text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
