//! The attempts of a call as the API lists them.
//!
//! Every key is always there; what is not known yet is null.

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_engine::AttemptRecord;
use farcall_engine::outcome::{Error, rfc3339};
use farcall_engine::schema::{Time, Word};

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Attempts<'a> {
    data: Vec<Attempt<'a>>,
}

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
struct Attempt<'a> {
    /// From 1.
    number: u32,
    #[schemars(with = "Word<AttemptKind>")]
    kind: &'static str,
    #[schemars(with = "Word<AttemptOutcome>")]
    outcome: &'static str,
    /// The status of its answer.
    status: Option<u16>,
    #[schemars(with = "Time")]
    started_at: String,
    #[schemars(with = "Option<Time>")]
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
