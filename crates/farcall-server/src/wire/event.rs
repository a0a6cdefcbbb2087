//! Something that has happened to a call, or to a breaker, as the stream of all events tells it.
//!
//! Short: whoever needs more of the call asks for it.

use farcall_core::breaker::BreakerState;
use farcall_core::call::{ErrorKind, State};
use farcall_engine::outcome::rfc3339;
use farcall_engine::schema::{CallIdText, Time, Word};
use farcall_engine::watch::{self, Happened};

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct CallEvent<'a> {
    #[schemars(with = "CallIdText")]
    id: String,
    upstream: Option<&'a str>,
    #[schemars(with = "Time")]
    at: String,
    /// From then on.
    #[schemars(with = "Word<State>")]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Word<ErrorKind>>")]
    error_kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    next_at: Option<String>,
}

/// The breaker of an upstream has opened or closed.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct BreakerEvent<'a> {
    upstream: &'a str,
    #[schemars(with = "Time")]
    at: String,
    #[schemars(with = "Word<BreakerState>")]
    state: &'static str,
    /// When a probe may go, if it has opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    until: Option<String>,
}

impl<'a> BreakerEvent<'a> {
    pub(crate) fn of(event: &'a watch::BreakerEvent) -> Self {
        let (state, until) = (event.state.as_str(), event.until.map(rfc3339));
        Self { upstream: &event.upstream, at: rfc3339(event.at), state, until }
    }
}

impl<'a> CallEvent<'a> {
    pub(crate) fn of(event: &'a watch::CallEvent) -> Self {
        let (mut attempt, mut status, mut error_kind, mut next_at) = (None, None, None, None);
        match event.what {
            Happened::Accepted { .. } => {}
            Happened::Started { attempt: number } => attempt = Some(number),
            Happened::Waits { status: answered, next_at: at, .. } => (status, next_at) = (answered, at),
            Happened::Ended { status: answered, error, .. } => (status, error_kind) = (answered, error),
        }
        Self {
            id: event.call.to_string(),
            upstream: event.upstream.as_deref(),
            at: rfc3339(event.at),
            state: State::as_str(event.what.state()),
            attempt,
            status,
            error_kind: error_kind.map(ErrorKind::as_str),
            next_at: next_at.map(rfc3339),
        }
    }
}
