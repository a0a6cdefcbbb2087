//! One try of a call: its kind, its stored outcome, and what the executor reports of it.
//!
//! What a result means for its call is decided in `classify` and `settle`.

use std::time::Duration;

use crate::call::{ErrorKind, words};
use crate::hop::Redirect;
use crate::remaining::Remaining;

words! {
    /// Why an attempt was made.
    AttemptKind {
        First = "first", Retry = "retry", Hedge = "hedge", Probe = "probe",
    }
}

words! {
    /// How an attempt ended.
    AttemptOutcome {
        Running = "running", Success = "success", Retryable = "retryable", Failure = "failure",
        Throttled = "throttled", Unknown = "unknown", Cancelled = "cancelled",
    }
}

/// Whether any byte of the request can have reached the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BytesSent {
    /// Certainly none: repeating is no repetition.
    No,
    /// The request arrived, and the other side says that it did nothing with it (RFC 9113, section 8.7): repeating is no
    /// repetition, but the arrival counts.
    Refused,
    Maybe,
}

/// What the executor learnt from one attempt; everything a decision may rest on, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptResult {
    /// The status of the answer, or nothing when no head arrived. A process that exits 0 reports 200.
    pub status: Option<u16>,
    /// What went wrong below HTTP; nothing when a complete answer arrived.
    pub error: Option<ErrorKind>,
    /// A valid Retry-After, as a wait from now, clock difference removed.
    pub retry_after: Option<Duration>,
    /// What the answer says of how much more the upstream takes.
    pub quota: Option<Remaining>,
    /// Where the answer redirects to, by a status and a place that can be followed.
    pub redirect: Option<Redirect>,
    /// The answer is of the content type that the policy asks for.
    pub content_ok: bool,
    pub bytes_sent: BytesSent,
    /// From launch to the end.
    pub latency: Duration,
    /// Bytes of the body received, decoded.
    pub size: u64,
}

impl AttemptResult {
    /// How long the answer tells everybody to wait, by a status that means it.
    pub fn told_to_wait(&self) -> Option<Duration> {
        self.retry_after.filter(|_| matches!(self.status, Some(429 | 503)))
    }
}
