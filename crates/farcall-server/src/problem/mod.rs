//! Failures as clients read them: RFC 9457 problem documents, every one with a `code` of the table here.
//!
//! What is wrong with a call document is said by the engine, which has codes of its own for it. When it is worth to try
//! again is said in [`advice`].

mod advice;
mod code;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use farcall_engine::document::{Rejection, RejectionKind};
use farcall_engine::steer::{CancelError, RetryError};
use farcall_engine::{ControlError, SubmitError, outcome};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};

pub(crate) use advice::{Advised, Quota, Unit, health};
pub(crate) use code::Code;

/// A failure on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    what: What,
    detail: String,
    /// The key or header at fault.
    key: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    /// What is used up.
    quota: Option<Box<Quota>>,
    /// When it is worth to try again.
    retry_after: Option<Duration>,
}

/// Where a kind of problem is explained, without its code.
pub(crate) const EXPLAINED_AT: &str = "/docs/problems/";

/// What went wrong, in calls and policies too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Code(Code),
    Document(RejectionKind),
}

impl What {
    /// Status, code and title.
    pub(crate) fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Code(code) => code.facts(),
            Self::Document(kind) => {
                let status = StatusCode::from_u16(kind.status()).expect("the engine's statuses are statuses");
                (status, kind.code(), kind.title())
            }
        }
    }

    /// What else it tells in a header.
    pub(crate) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Code(code) => code.header(),
            Self::Document(_) => None,
        }
    }
}

impl Problem {
    /// `detail` is one sentence for people about this very case.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self::of(What::Code(code), detail.into())
    }

    /// Everything of this kind is in use.
    pub(crate) fn used_up(quota: Quota, detail: impl Into<String>) -> Self {
        let retry_after = Some(quota.free_in);
        Self { quota: Some(Box::new(quota)), retry_after, ..Self::new(Code::Busy, detail) }
    }

    const fn of(what: What, detail: String) -> Self {
        Self { what, detail, key: None, line: None, column: None, quota: None, retry_after: None }
    }

    /// Names the key or header at fault.
    pub(crate) fn at_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same at this line of what was sent.
    pub(crate) const fn at_line(mut self, line: u32) -> Self {
        self.line = Some(line);
        self
    }

    /// The same, with when it is worth to try again.
    pub(crate) fn retrying_in(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// The same as a problem of another kind.
    pub(crate) const fn with_code(mut self, code: Code) -> Self {
        self.what = What::Code(code);
        self
    }

    /// As a document.
    pub(crate) fn json(&self) -> Vec<u8> {
        let (status, code, title) = self.what.facts();
        let explained_at = format!("{EXPLAINED_AT}{code}");
        let document = outcome::Problem {
            r#type: &explained_at,
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            key: self.key.as_deref(),
            line: self.line,
            column: self.column,
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        serde_json::to_vec(&document).expect("strings and numbers are JSON")
    }

    /// The store could not be read. Logged here, where the error stops.
    pub(crate) fn unreadable(error: &farcall_engine::ReadError) -> Self {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(error = %error, source, "a request could not be answered");
        Self::new(Code::StoreFailed, "the store cannot be read at the moment")
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection { kind, message, key, line, column } = rejection;
        Self { key, line, column, ..Self::of(What::Document(kind), message) }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::Rejected(rejection) => return rejection.into(),
            ControlError::Unknown => Code::NotFound,
            ControlError::Unusable(_) | ControlError::NotStored => Code::StoreFailed,
            ControlError::Stopping => Code::Draining,
        };
        if let ControlError::Unusable(error) = &error {
            tracing::error!(error = %error, "an upstream could not be changed");
        }
        Self::new(code, error.to_string())
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        let code = match error {
            SubmitError::Rejected(rejection) => return rejection.into(),
            SubmitError::KeyReused { .. } => Code::IdempotencyKeyReused,
            SubmitError::StoreFull { .. } | SubmitError::NoSpace => Code::StoreFull,
            SubmitError::StoreFailed => Code::StoreFailed,
            SubmitError::Draining => Code::Draining,
        };
        let problem = Self::new(code, error.to_string());
        if code == Code::IdempotencyKeyReused { problem.at_key("idempotency_key") } else { problem }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        let code = match &error {
            CancelError::Unknown => Code::NotFound,
            CancelError::AlreadyEnded { .. } => Code::AlreadyEnded,
            CancelError::Busy => Code::Busy,
            CancelError::Stopping => Code::Draining,
            CancelError::Read(error) => return Self::unreadable(error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        let code = match error {
            RetryError::Unknown => Code::NotFound,
            RetryError::NotEnded { .. } => Code::NotEnded,
            RetryError::Callback | RetryError::Damaged => Code::NotRetryable,
            RetryError::Submit(error) => return error.into(),
            RetryError::Read(error) => return Self::unreadable(&error),
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.what.facts();
        let json = self.json();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(CONTENT_TYPE, content_type)], json).into_response();
        response.headers_mut().extend(self.what.header());
        self.advise(&mut response);
        response
    }
}
