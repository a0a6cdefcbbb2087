//! Every kind of failure that a client can meet, but for mistakes in call documents: status, code, title.
//!
//! What each means, and a command that provokes it, is in `docs/problems.md`.

use http::header::{ACCEPT_ENCODING, CONNECTION, WWW_AUTHENTICATE};
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
    HeadTooLarge,
    UnsupportedMediaType,
    UnsupportedContentCoding,
    ForeignHost,
    AlreadyEnded,
    NotEnded,
    NotRetryable,
    InvalidFilter,
    InvalidOperation,
    InvalidPermit,
    InvalidIdempotencyKey,
    IdempotencyKeyReused,
    Internal,
    NotAvailableYet,
    Busy,
    Draining,
    StoreFailed,
    StoreFull,
    UpgradeUnsupported,
    UpstreamFailed,
    UpstreamTimeout,
    LoopDetected,
}

impl Code {
    /// Status, code and title.
    pub(super) const fn facts(self) -> (StatusCode, &'static str, &'static str) {
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
            Self::HeadTooLarge => {
                (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The head of the request is too large")
            }
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
            Self::InvalidPermit => (S::UNPROCESSABLE_ENTITY, "invalid_permit", "The permit is not valid"),
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
            Self::UpgradeUnsupported => {
                (S::NOT_IMPLEMENTED, "upgrade_unsupported", "Another protocol cannot be passed on")
            }
            Self::UpstreamFailed => (S::BAD_GATEWAY, "upstream_failed", "The upstream gave no answer"),
            Self::UpstreamTimeout => (S::GATEWAY_TIMEOUT, "upstream_timeout", "No answer came in time"),
            Self::LoopDetected => (S::LOOP_DETECTED, "loop_detected", "The request goes in circles"),
        }
    }

    /// What else the failure always tells in a header: how to do better, or that the body was left unread.
    pub(super) fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Unauthorized => (WWW_AUTHENTICATE, "Bearer realm=\"farcall\""),
            Self::UnsupportedContentCoding => (ACCEPT_ENCODING, "identity"),
            Self::RequestTimeout | Self::BodyTooLarge | Self::HeadTooLarge => (CONNECTION, "close"),
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
            | Self::InvalidPermit
            | Self::InvalidIdempotencyKey
            | Self::IdempotencyKeyReused
            | Self::Internal
            | Self::NotAvailableYet
            | Self::Busy
            | Self::Draining
            | Self::StoreFailed
            | Self::StoreFull
            | Self::UpgradeUnsupported
            | Self::UpstreamFailed
            | Self::UpstreamTimeout
            | Self::LoopDetected => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }

    /// Whether it may go well later, the request being what it is.
    pub(crate) const fn passes(self) -> bool {
        matches!(self, Self::Busy | Self::Draining | Self::StoreFailed | Self::StoreFull)
    }
}
