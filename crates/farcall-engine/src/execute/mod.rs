//! Making an attempt: what goes in, what comes out, whatever carries it.
//!
//! An executor decides nothing: it sends once, reports once, and tells on the way when the request has left and when
//! the answer begins. Retries, redirects and limits are the engine's.

pub mod process;

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::attempt::AttemptResult;
use farcall_core::time::Instant;
use farcall_store::record::ResponseRecord;

use crate::config::Addresses;
use crate::proxy::Proxy;
use crate::trace::TraceContext;

pub mod http;

/// What an attempt tells before it ends. Called from the executor's task; must not block.
pub trait Milestones: Send + Sync + 'static {
    /// The last byte of the request left our buffers.
    fn sent(&self, at: Instant);
    /// The first byte of the answer's head is here: the arrival lies in the past.
    fn first_byte(&self, at: Instant);
}

/// One request, ready to send: secrets resolved, headers complete but for those of the connection.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    pub method: ::http::Method,
    pub url: url::Url,
    pub headers: ::http::HeaderMap,
    pub body: Bytes,
    /// Whose business the coding of the answer's body is.
    pub coding: Coding,
    /// A media type the answer must have to be `content_ok`; lower case, without parameters.
    pub content_type: Option<String>,
    /// Largest decoded body, in bytes.
    pub max_response: u64,
    /// Where it may go.
    pub addresses: Addresses,
    /// Through whom it goes.
    pub proxy: Option<Arc<Proxy>>,
}

/// Whose business the coding of an answer's body is (RFC 9110, section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Ours: codings that we know are asked for and removed.
    Removed,
    /// The caller's: none is asked for, and what comes stays as it is.
    Kept,
}

/// How one attempt ended.
#[derive(Debug, Clone)]
pub struct Report {
    pub result: AttemptResult,
    /// The engine gave the attempt up before it ended; then there is no error, and `result` tells how far it came.
    pub aborted: bool,
    /// When the answer's first byte came: the arrival lies in the past.
    pub first_byte_at: Option<Instant>,
    /// One sentence for people, when something went wrong.
    pub message: Option<String>,
    /// The complete answer, or its head and what came of the body when that broke off or grew too large.
    pub response: Option<ResponseRecord>,
    /// The trace that the call belongs to, when whoever sent it said so.
    pub trace: Option<Arc<TraceContext>>,
}
