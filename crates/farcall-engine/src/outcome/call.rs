//! A whole call as it is told: where it stands, what it was, and its answer when it has one.
//!
//! The one form of it for the API and for webhooks, so that both can be read by the same program.

use farcall_core::call::{Source, State, WaitReason};

use super::{Answer, Error, Fields, duration_ms, rfc3339};
use crate::handle::CallView;
use crate::schema::{MethodName, Priority, Time, Word};

/// A call as the API and webhooks tell it.
///
/// Every key is always there and null without a value, but for those of an answer that a call does not have (yet).
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Call<'a> {
    #[schemars(with = "crate::schema::CallIdText")]
    id: String,
    #[schemars(with = "Word<State>")]
    state: &'static str,
    /// Where it came in.
    #[schemars(with = "Word<Source>")]
    source: &'static str,
    /// The name of a configured upstream; null of any other.
    upstream: Option<&'a str>,
    /// The function that it runs.
    function: Option<&'a str>,
    #[schemars(with = "Option<MethodName>")]
    method: Option<&'a str>,
    url: Option<&'a str>,
    tags: &'a [String],
    #[schemars(with = "Priority")]
    priority: u8,
    tenant: Option<&'a str>,
    #[schemars(with = "Time")]
    accepted_at: String,
    /// When its first attempt began.
    #[schemars(with = "Option<Time>")]
    started_at: Option<String>,
    #[schemars(with = "Option<Time>")]
    finished_at: Option<String>,
    /// From the start of the first attempt to the end.
    duration_ms: Option<u64>,
    /// Attempts made.
    attempts: u32,
    /// Why it does not run, while it waits.
    #[schemars(with = "Option<Word<WaitReason>>")]
    wait_reason: Option<&'static str>,
    /// When it may go on, while it waits and where that is known.
    #[schemars(with = "Option<Time>")]
    next_at: Option<String>,
    /// The status of its last answer.
    status: Option<u16>,
    /// What went wrong.
    error: Option<Error<'a>>,
    /// The call that this one makes again.
    #[schemars(with = "Option<crate::schema::CallIdText>")]
    retry_of: Option<String>,
    /// It is to be cancelled; what is out may have arrived.
    cancel_requested: bool,
    /// The headers that the call gave itself; what may be a secret reads `***`.
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
