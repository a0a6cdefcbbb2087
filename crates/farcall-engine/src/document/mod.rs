//! The call document: the one JSON object that a call is, whichever way it comes in.
//!
//! [`parse`] reads and checks it against the declared upstreams. The same bytes are stored with the call and read
//! again when an attempt is made, so a call means the same before and after a restart. Nothing is sent or looked up
//! here; secret references in a call are text like any other.

mod address;
mod callback;
mod characters;
mod field;
mod json;
mod parse;
pub(crate) mod patch;
mod request;
mod retry;
mod schema;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{Overrides, Priority};
use farcall_core::retry::StatusSet;
use farcall_core::time::Timestamp;
use url::Url;

use crate::callback::SigningKey;
use crate::config::{Config, Declared, Upstream};
use crate::trace::TraceContext;

pub(crate) use address::hides_dot_segments;

pub use crate::retry_override::{DelayOverride, RetryOverride};
pub use parse::{callback_of, parse, with_idempotency_key};
pub use schema::DocumentSchema;

/// The longest tenant and the longest tag, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// The most tags of a call.
pub const TAGS_MAX: usize = 32;
/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// The most slots of a window that one call may take.
pub const COST_MAX: u32 = 10_000;

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
    /// Largest decoded answer body, in bytes.
    pub max_response: Option<u64>,
    /// Who is told its outcome.
    pub callback: Option<Box<OwnCallback>>,
    /// The trace it belongs to, which no document tells: whoever brings one says so beside it.
    pub trace: Option<Arc<TraceContext>>,
}

/// A callback that a call asks for itself.
#[derive(Debug, Clone)]
pub struct OwnCallback {
    /// To which the URL belongs.
    pub upstream: UpstreamRef,
    pub url: Url,
    /// What it is signed with.
    pub key: Option<SigningKey>,
}

/// What a call's upstream is found among.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'c> {
    pub upstreams: &'c Declared,
    /// The policy of all others.
    pub undeclared: &'c Upstream,
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
    /// It is one, but no valid patch of a policy.
    InvalidPolicy,
    /// It asks for something a later version brings.
    NotAvailableYet,
}

impl UpstreamRef {
    /// The upstream that a URL belongs to.
    pub(crate) fn of(url: &Url, config: &Config) -> Self {
        match config.upstreams.find(url) {
            Some((name, _)) => Self::Declared(name.to_owned()),
            None => Self::Undeclared(url.origin().ascii_serialization()),
        }
    }
}

impl<'c> From<&'c Config> for Routing<'c> {
    fn from(config: &'c Config) -> Self {
        Self { upstreams: &config.upstreams, undeclared: &config.undeclared }
    }
}

impl RejectionKind {
    /// The status that says the same over HTTP.
    pub const fn status(self) -> u16 {
        match self {
            Self::Syntax => 400,
            Self::Invalid | Self::InvalidPolicy => 422,
            Self::NotAvailableYet => 501,
        }
    }

    /// The `code` of a problem document.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Syntax => "malformed_document",
            Self::Invalid => "invalid_call",
            Self::InvalidPolicy => "invalid_policy",
            Self::NotAvailableYet => "not_available_yet",
        }
    }

    /// The `title` of a problem document.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Syntax => "The document is not one JSON object",
            Self::Invalid => "The document is no valid call",
            Self::InvalidPolicy => "The document is no valid policy",
            Self::NotAvailableYet => "The document asks for something that is not available yet",
        }
    }
}
