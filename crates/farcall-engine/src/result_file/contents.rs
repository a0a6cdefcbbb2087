//! What stands in response and problem files.
//!
//! Pure: records in, bytes out. A rejected file's documents hold no time, so writing them again gives the same bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use farcall_store::record::{CallRecord, ErrorRecord, ResponseRecord};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::document::Rejection;

/// How much of a response file tells whose it is.
pub(super) const HEAD_BYTES: usize = 64;
const CALL_HEAD: &str = r#"{"id":""#;
const REJECTION_HEAD: &str = r#"{"state":"rejected","#;

/// Who a response file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    Call(CallId),
    Rejection,
}

/// The response file of a call that has ended, with the answer that was kept for it.
pub fn response(call: &CallRecord, answer: Option<&ResponseRecord>) -> Vec<u8> {
    let (body, body_base64) = answer.map_or((None, None), body);
    to_json(&ResponseFile {
        id: call.id.to_string(),
        state: call.progress.state.as_str(),
        status: answer.map(|answer| answer.status),
        headers: answer.map(Headers),
        body,
        body_base64,
        error: call.progress.error.as_ref().map(ErrorKey::from),
        attempts: call.attempts,
        accepted_at: rfc3339(call.accepted_at),
        started_at: call.started_at.map(rfc3339),
        finished_at: call.progress.finished_at.map(rfc3339),
        duration_ms: duration_ms(call),
    })
}

/// The response file of a file that was no valid call.
pub fn rejected_response(rejection: &Rejection) -> Vec<u8> {
    let error = RejectedError {
        kind: "invalid",
        message: &rejection.message,
        key: rejection.key.as_deref(),
        line: rejection.line,
        column: rejection.column,
    };
    to_json(&RejectedFile { state: "rejected", error })
}

/// The problem document (RFC 9457) that lies beside a rejected file.
pub fn problem(rejection: &Rejection) -> Vec<u8> {
    to_json(&Problem {
        r#type: "about:blank",
        title: rejection.kind.title(),
        status: rejection.kind.status(),
        code: rejection.kind.code(),
        detail: &rejection.message,
        key: rejection.key.as_deref(),
        line: rejection.line,
        column: rejection.column,
    })
}

/// Whose response file begins like this; nothing when farcall did not write it.
pub(super) fn author(head: &[u8]) -> Option<Author> {
    if head.starts_with(REJECTION_HEAD.as_bytes()) {
        return Some(Author::Rejection);
    }
    let after = head.strip_prefix(CALL_HEAD.as_bytes())?;
    let id = after.split(|&byte| byte == b'"').next()?;
    std::str::from_utf8(id).ok()?.parse().ok().map(Author::Call)
}

#[derive(serde::Serialize)]
struct ResponseFile<'a> {
    id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Headers<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorKey<'a>>,
    attempts: u32,
    accepted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

#[derive(serde::Serialize)]
struct ErrorKey<'a> {
    kind: &'static str,
    message: &'a str,
}

#[derive(serde::Serialize)]
struct RejectedFile<'a> {
    state: &'static str,
    error: RejectedError<'a>,
}

#[derive(serde::Serialize)]
struct RejectedError<'a> {
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

#[derive(serde::Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

/// Header fields as users read them: each name once, where it came first.
struct Headers<'a>(&'a ResponseRecord);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = &self.0.headers;
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, _)) in fields.iter().enumerate() {
            let is_stale = self.0.decoded && matches!(name.as_str(), "content-encoding" | "content-length");
            if is_stale || fields[..index].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let values: Vec<Cow<'_, str>> =
                fields[index..].iter().filter(|(other, _)| other == name).map(|(_, value)| text(value)).collect();
            if name == "set-cookie" {
                map.serialize_entry(name, &values)?;
            } else {
                map.serialize_entry(name, &values.join(", "))?;
            }
        }
        map.end()
    }
}

impl<'a> From<&'a ErrorRecord> for ErrorKey<'a> {
    fn from(error: &'a ErrorRecord) -> Self {
        Self { kind: error.kind.as_str(), message: &error.message }
    }
}

/// A body as JSON or a string; else as base64.
fn body(answer: &ResponseRecord) -> (Option<Body<'_>>, Option<String>) {
    let Ok(text) = std::str::from_utf8(&answer.body) else {
        return (None, Some(STANDARD.encode(&answer.body)));
    };
    let json = if is_json(answer) { serde_json::from_str::<&RawValue>(text).ok() } else { None };
    (Some(json.map_or(Body::Text(text), Body::Json)), None)
}

fn is_json(answer: &ResponseRecord) -> bool {
    let content_type = answer.headers.iter().find(|(name, _)| name == "content-type");
    let value = content_type.map(|(_, value)| text(value)).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "application/json" | "text/json") || media_type.ends_with("+json")
}

/// A header's value: UTF-8, or else each byte one character (ISO 8859-1), as HTTP once had it.
fn text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.iter().map(|&byte| char::from(byte)).collect()),
    }
}

fn duration_ms(call: &CallRecord) -> Option<u64> {
    let duration = call.progress.finished_at?.since(call.started_at?);
    u64::try_from(duration.as_millis()).ok()
}

fn rfc3339(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(value).expect("strings, numbers and maps of strings are JSON");
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests;
