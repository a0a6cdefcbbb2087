//! Failures as clients read them: RFC 9457 problem documents, every one with a `code` of the table here.
//!
//! What is wrong with a call document is said by the engine, which has codes of its own for it.

use axum::response::{IntoResponse, Response};
use farcall_engine::document::{Rejection, RejectionKind};
use farcall_engine::steer::{CancelError, RetryError};
use farcall_engine::{ControlError, SubmitError, outcome};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

/// What went wrong, but for mistakes in call documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    MalformedRequest,
    Unauthorized,
    ForeignOrigin,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedContentCoding,
    ForeignHost,
    AlreadyEnded,
    NotEnded,
    NotRetryable,
    InvalidFilter,
    InvalidOperation,
    InvalidIdempotencyKey,
    IdempotencyKeyReused,
    Internal,
    NotAvailableYet,
    Busy,
    Draining,
    StoreFailed,
    StoreFull,
}

/// A failure on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    what: What,
    detail: String,
    /// The key or header at fault.
    key: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
}

/// What went wrong, in calls and policies too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Code(Code),
    Document(RejectionKind),
}

impl Code {
    /// Status, code and title.
    const fn facts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedRequest => (S::BAD_REQUEST, "malformed_request", "The request is malformed"),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "A token is required"),
            Self::ForeignOrigin => (S::FORBIDDEN, "foreign_origin", "Other sites may not call farcall"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is no such thing here"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "The resource does not have this method")
            }
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "The request took too long to arrive"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be JSON")
            }
            Self::UnsupportedContentCoding => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_coding", "The body must not be compressed")
            }
            Self::ForeignHost => (S::MISDIRECTED_REQUEST, "foreign_host", "This is not the host that was asked for"),
            Self::AlreadyEnded => (S::CONFLICT, "already_ended", "The call has ended already"),
            Self::NotEnded => (S::CONFLICT, "not_ended", "The call has not ended yet"),
            Self::NotRetryable => (S::CONFLICT, "not_retryable", "The call cannot be made again"),
            Self::InvalidFilter => (S::UNPROCESSABLE_ENTITY, "invalid_filter", "The filter is not valid"),
            Self::InvalidOperation => (S::UNPROCESSABLE_ENTITY, "invalid_operation", "The operation is not valid"),
            Self::InvalidIdempotencyKey => {
                (S::UNPROCESSABLE_ENTITY, "invalid_idempotency_key", "The idempotency key cannot be used")
            }
            Self::IdempotencyKeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key belongs to another call")
            }
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "farcall made a mistake"),
            Self::NotAvailableYet => (S::NOT_IMPLEMENTED, "not_available_yet", "This is not available yet"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy", "farcall is busy"),
            Self::Draining => (S::SERVICE_UNAVAILABLE, "draining", "farcall is stopping"),
            Self::StoreFailed => (S::SERVICE_UNAVAILABLE, "store_failed", "The store cannot be used"),
            Self::StoreFull => (S::INSUFFICIENT_STORAGE, "storage_full", "The store is full"),
        }
    }

    /// What else the failure tells in a header: how to do better, when to try again, or that the body was left unread.
    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Unauthorized => (WWW_AUTHENTICATE, "Bearer realm=\"farcall\""),
            Self::UnsupportedContentCoding => (ACCEPT_ENCODING, "identity"),
            Self::Busy => (RETRY_AFTER, "1"),
            Self::Draining | Self::StoreFailed => (RETRY_AFTER, "5"),
            Self::StoreFull => (RETRY_AFTER, "10"),
            Self::RequestTimeout | Self::BodyTooLarge => (CONNECTION, "close"),
            Self::MalformedRequest
            | Self::ForeignOrigin
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::UnsupportedMediaType
            | Self::ForeignHost
            | Self::AlreadyEnded
            | Self::NotEnded
            | Self::NotRetryable
            | Self::InvalidFilter
            | Self::InvalidOperation
            | Self::InvalidIdempotencyKey
            | Self::IdempotencyKeyReused
            | Self::Internal
            | Self::NotAvailableYet => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }
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
        Self { what: What::Code(code), detail: detail.into(), key: None, line: None, column: None }
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

    /// As a document.
    pub(crate) fn json(&self) -> Vec<u8> {
        let (status, code, title) = self.what.facts();
        let document = outcome::Problem {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            key: self.key.as_deref(),
            line: self.line,
            column: self.column,
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
        Self { what: What::Document(kind), detail: message, key, line, column }
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
        response
    }
}
