//! What a server answered: read with limits, and what it means for whoever asked.
//!
//! A refusal is told in the server's own words, with the place it names. What is not answered as farcall answers comes
//! from something else that listens there.

use std::time::Duration;

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Request, Target};
use crate::exit::{Exit, Failure};

/// The longest answer that is read: the largest body that is kept of an upstream's, with room for how JSON writes it.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why an answer could not be read to its end.
#[derive(Debug)]
pub(super) enum ReadError {
    Silent,
    Broken(hyper::Error),
    TooLarge(TooLarge),
}

#[derive(Debug, thiserror::Error)]
#[error("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20)]
pub(super) struct TooLarge;

/// A failure as farcall tells it (RFC 9457); of other servers any of it may be missing.
#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    key: Option<String>,
    line: Option<u64>,
    column: Option<u64>,
}

impl Answer {
    pub(super) async fn read(response: http::Response<Incoming>, silence: Duration) -> Result<Self, ReadError> {
        let (parts, mut incoming) = response.into_parts();
        let mut body = BytesMut::new();
        loop {
            let Some(frame) = timeout(silence, incoming.frame()).await.map_err(|_| ReadError::Silent)? else { break };
            let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
            if body.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(ReadError::TooLarge(TooLarge));
            }
            body.extend_from_slice(&data);
        }
        Ok(Self { status: parts.status, headers: parts.headers, body: body.freeze() })
    }

    /// The answer, if it is one of success.
    pub(crate) fn success(self, request: &Request, target: &Target) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal(request, target)) }
    }

    /// The server says that there is nothing of this id.
    pub(crate) fn is_unknown(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.problem().is_some()
    }

    /// The server says what is wrong with a line of what it was sent.
    pub(crate) fn is_about_a_line(&self) -> bool {
        self.status.is_client_error() && self.problem().is_some_and(|problem| problem.line.is_some())
    }

    /// Its JSON document.
    ///
    /// # Errors
    /// When it is none of this form: then it is no farcall that answers.
    pub(crate) fn document<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let error = anyhow::Error::new(error).context("the answer is not what farcall would send");
            Failure::new(Exit::Unreachable, error).with_hint("is it a farcall server, and of this version?")
        })
    }

    pub(super) fn refusal(&self, request: &Request, target: &Target) -> Failure {
        let refused = format!("{} {}", request.method, request.path());
        let Some(problem) = self.problem() else {
            let error = anyhow!("{target} answered {refused} with {}, and not as farcall does", self.status);
            return Failure::new(Exit::Unreachable, error).with_hint("is it a farcall server, and of this version?");
        };
        let sentence = problem.sentence(self.status);
        let failure = match problem.detail.contains(request.path()) {
            true => Failure::new(self.exit(), anyhow!("{sentence}")),
            false => Failure::new(self.exit(), anyhow!("{sentence} ({refused})")),
        };
        match self.status {
            StatusCode::UNAUTHORIZED => failure.with_hint("give the token with --token or FARCALL_TOKEN"),
            StatusCode::MISDIRECTED_REQUEST => failure.with_hint("name the server as it names itself, like localhost"),
            _ => failure,
        }
    }

    fn problem(&self) -> Option<Problem> {
        let content_type = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        if !content_type.starts_with("application/problem+json") {
            return None;
        }
        serde_json::from_slice(&self.body).ok()
    }

    /// Which exit code a refusal is.
    fn exit(&self) -> Exit {
        match self.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
            StatusCode::CONFLICT => Exit::Conflict,
            StatusCode::NOT_IMPLEMENTED => Exit::Usage,
            // It is there and cannot serve now: for whoever asks the same as no server.
            StatusCode::TOO_MANY_REQUESTS => Exit::Unreachable,
            status if status.is_server_error() => Exit::Unreachable,
            _ => Exit::Usage,
        }
    }
}

impl Problem {
    /// `there is no call of this id: 404 not_found, key limit, line 3, column 5`
    fn sentence(&self, status: StatusCode) -> String {
        let Self { code, title, detail, key, line, column } = self;
        let said = if detail.is_empty() { title } else { detail };
        let key = key.iter().map(|key| format!(", key {key}"));
        let line = line.iter().map(|line| format!(", line {line}"));
        let column = column.iter().map(|column| format!(", column {column}"));
        let place: String = key.chain(line).chain(column).collect();
        format!("{said}: {} {code}{place}", status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http::HeaderValue;

    use super::*;

    fn refused(status: u16, content_type: &'static str, body: &str) -> Failure {
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("it is a status"),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]),
            body: Bytes::from(body.to_owned()),
        };
        let target = Target::Socket { directory: PathBuf::from("d"), socket: PathBuf::from("d/s") };
        answer.success(&Request::get(&["v1", "calls"]), &target).expect_err("it is no success")
    }

    #[test]
    fn every_refusal_has_its_exit_code() {
        let check = |status: u16, expected: Exit| {
            let failure = refused(status, "application/problem+json", r#"{"code": "c", "detail": "why"}"#);
            assert_eq!(failure.exit(), expected, "{status}");
            assert_eq!(failure.render(false).lines().next(), Some(&*format!("error: why: {status} c (GET /v1/calls)")));
        };
        for status in [400, 401, 403, 405, 408, 413, 415, 421, 422, 501] {
            check(status, Exit::Usage);
        }
        check(404, Exit::NotFound);
        check(409, Exit::Conflict);
        for status in [429, 500, 503, 507] {
            check(status, Exit::Unreachable);
        }
    }

    #[test]
    fn a_refusal_names_the_place_of_the_mistake() {
        let body = r#"{"code": "invalid_call", "detail": "no such key", "key": "bdy", "line": 3, "column": 5}"#;
        let told = refused(422, "application/problem+json", body).render(false);
        assert_eq!(told, "error: no such key: 422 invalid_call, key bdy, line 3, column 5 (GET /v1/calls)");
    }

    #[test]
    fn what_is_not_farcall_is_told_as_such() {
        for (content_type, body) in [("text/html", "<h1>"), ("application/problem+json", "[]")] {
            let failure = refused(404, content_type, body);
            assert_eq!(failure.exit(), Exit::Unreachable);
            assert!(
                failure.render(false).contains("d/s answered GET /v1/calls with 404 Not Found, and not as farcall")
            );
        }
    }
}
