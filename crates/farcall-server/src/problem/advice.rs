//! When to come back, for those who are refused because there is too much to do or no way to do it now: `Retry-After`,
//! and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-11 has it.
//!
//! How long that is is an estimate of the core's, from what is known of the matter. Whoever refuses something knows how
//! it stands with that; how the engine and its store do is looked up for all others, where their answer goes out.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use farcall_core::time::Instant;
use farcall_core::turnover::{WAIT_MIN as SOON, as_long_again};
use farcall_engine::{Handle, Snapshot, clock};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Code, Problem, What};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is refused when nothing is taken at all.
const INTAKE: &str = "intake";

/// Something of which there is only so much, and how it stands with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    /// A word for it.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) all: u64,
    pub(crate) free: u64,
    /// How soon more of it is likely to be free.
    pub(crate) free_in: Duration,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    ConcurrentRequests,
    ContentBytes,
}

/// A refusal whose answer does not say yet when to come back.
#[derive(Debug, Clone)]
pub(crate) struct Advised(Box<Problem>);

impl Problem {
    /// The same, with when it is worth to try again, as far as that can be told.
    pub(crate) fn advised(self, snapshot: &Snapshot, now: Instant) -> Self {
        let What::Code(code) = self.what else { return self };
        let retry_after = self.retry_after.or_else(|| code.passes().then(|| wait(code, snapshot, now)));
        Self { retry_after, ..self }
    }

    /// What the head of the answer tells of that.
    pub(super) fn advise(self, response: &mut Response) {
        match (self.retry_after, self.what) {
            (Some(retry_after), _) => {
                let quota = self.quota.as_deref();
                put(response.headers_mut(), retry_after, quota);
            }
            (None, What::Code(code)) if code.passes() => {
                response.extensions_mut().insert(Advised(Box::new(self)));
            }
            (None, _) => {}
        }
    }
}

impl Advised {
    /// Gives the answer to a refusal what it has to say of when to come back.
    pub(crate) fn complete(response: &mut Response, handle: &Handle) {
        let Some(Self(problem)) = response.extensions_mut().remove::<Self>() else { return };
        *response = problem.advised(&handle.snapshot(), clock::instant()).into_response();
    }
}

/// For an answer that is no problem document: when it is worth to ask again.
pub(crate) fn health(snapshot: &Snapshot, now: Instant) -> (HeaderName, HeaderValue) {
    let code = if snapshot.is_draining { Code::Draining } else { Code::StoreFailed };
    (RETRY_AFTER, seconds(wait(code, snapshot, now)).into())
}

/// Until a drain is over nothing is taken, and then this process is no more. A store that does not do well is likely to
/// go on so for as long as it has already.
fn wait(code: Code, snapshot: &Snapshot, now: Instant) -> Duration {
    match code {
        Code::Draining => snapshot.drains_until.map(|until| until.since(now)).unwrap_or_default().max(SOON),
        _ => snapshot.unwell_since.map_or(SOON, |since| as_long_again(since, now)),
    }
}

fn put(headers: &mut HeaderMap, retry_after: Duration, quota: Option<&Quota>) {
    let seconds = seconds(retry_after);
    headers.insert(RETRY_AFTER, seconds.into());
    let limit = match quota {
        Some(Quota { name, unit, all, free, .. }) => {
            let policy = format!("\"{name}\";q={all};qu=\"{unit}\"");
            headers.insert(RATELIMIT_POLICY, HeaderValue::try_from(policy).expect("words and numbers"));
            format!("\"{name}\";r={free};t={seconds}")
        }
        None => format!("\"{INTAKE}\";r=0;t={seconds}"),
    };
    headers.insert(RATELIMIT, HeaderValue::try_from(limit).expect("words and numbers"));
}

/// Whole ones, the last begun counted.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConcurrentRequests => "concurrent-requests",
            Self::ContentBytes => "content-bytes",
        })
    }
}
