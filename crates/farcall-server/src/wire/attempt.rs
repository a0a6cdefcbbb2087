//! The attempts of a call as the API lists them.
//!
//! Every key is always there; what is not known yet is null.

use farcall_engine::AttemptRecord;
use farcall_engine::outcome::{Error, rfc3339};

#[derive(Debug, serde::Serialize)]
pub(crate) struct Attempts<'a> {
    data: Vec<Attempt<'a>>,
}

#[derive(Debug, serde::Serialize)]
struct Attempt<'a> {
    number: u32,
    kind: &'static str,
    outcome: &'static str,
    status: Option<u16>,
    started_at: String,
    ended_at: Option<String>,
    error: Option<Error<'a>>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn of(attempts: &'a [AttemptRecord]) -> Self {
        Self { data: attempts.iter().map(Attempt::of).collect() }
    }
}

impl<'a> Attempt<'a> {
    fn of(attempt: &'a AttemptRecord) -> Self {
        Self {
            number: attempt.number,
            kind: attempt.kind.as_str(),
            outcome: attempt.outcome.as_str(),
            status: attempt.status,
            started_at: rfc3339(attempt.started_at),
            ended_at: attempt.ended_at.map(rfc3339),
            error: attempt.error.as_ref().map(Error::of),
        }
    }
}
