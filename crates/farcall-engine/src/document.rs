//! The call document: the one JSON object that a call is, whichever way it comes in.
//!
//! [`parse`] reads and checks it against the declared upstreams. The same bytes are stored with the call and read
//! again when an attempt is made, so a call means the same before and after a restart.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{Overrides, Priority};
use farcall_core::retry::StatusSet;
use farcall_core::time::Timestamp;
use url::Url;

/// A call document that was understood.
#[derive(Debug, Clone)]
pub struct Document {
    pub upstream: UpstreamRef,
    pub method: http::Method,
    pub url: Url,
    /// The call's own headers, names in lower case, in the order written.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    pub body: Body,
    pub schedule: Schedule,
    pub priority: Priority,
    pub tenant: Option<String>,
    pub cost: NonZeroU32,
    pub tags: Vec<String>,
    pub idempotency_key: Option<String>,
    pub overrides: Overrides,
    /// Over the upstream's.
    pub success: SuccessOverride,
    pub max_response: Option<u64>,
}

/// Which upstream a call belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamRef {
    /// By its name in the configuration.
    Declared(String),
    /// By its origin, for example `https://api.example.com` or `http://127.0.0.1:8080`.
    Undeclared(String),
}

/// What is sent as the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    /// JSON, byte for byte as written; sent as `application/json`.
    Json(Bytes),
    /// A string's characters, or decoded `body_base64`.
    Raw(Bytes),
}

/// When a call may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    pub not_before: Option<When>,
    pub deadline: Option<When>,
}

/// A time given absolutely, or from acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(Timestamp),
    After(Duration),
}

/// A call's own idea of success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SuccessOverride {
    pub statuses: Option<StatusSet>,
    /// `Some(None)` allows any type.
    pub content_type: Option<Option<String>>,
}

/// Why a document is no valid call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub kind: RejectionKind,
    pub message: String,
    /// The key at fault, where there is one.
    pub key: Option<String>,
    /// Counted from 1; known for errors of JSON.
    pub line: Option<u32>,
    pub column: Option<u32>,
}

/// What sort of mistake it is: decides between 400 and 422.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionKind {
    /// It is not one JSON object.
    Syntax,
    /// It is one, but no valid call.
    Invalid,
    /// It asks for something a later version brings.
    NotAvailableYet,
}
