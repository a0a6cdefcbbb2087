//! One result, one line: `line`, then what a response file holds.
//!
//! Pure. A body that is JSON stays as it came, but for line breaks between its tokens. What a server's API tells of a call
//! becomes the same line.

use std::borrow::Cow;

use farcall_core::call::{ErrorKind, State};
use farcall_core::id::CallId;
use farcall_store::record::OutcomeRecord;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::carrier::Told;
use super::tally::REJECTED;
use crate::document::Rejection;
use crate::result_file;

/// That of a call that has ended.
pub(super) fn of_call(line: u32, outcome: &OutcomeRecord) -> Vec<u8> {
    on_a_line(line, &result_file::response(&outcome.call, outcome.response.as_ref()))
}

/// That of a call as the API tells it; nothing while it has not ended.
///
/// # Errors
/// When it is no call of a farcall's API.
pub fn told(line: u32, call: &[u8]) -> Result<Option<Told>, serde_json::Error> {
    let mut call: ToldCall<'_> = serde_json::from_slice(call)?;
    let Some(state) = State::from_word(&call.state).filter(|state| state.is_end()) else { return Ok(None) };
    // Without an answer that was kept, a status is not part of it.
    call.status = call.status.filter(|_| call.headers.is_some());
    Ok(Some(Told { state, text: on_a_line(line, &serde_json::to_vec(&call)?) }))
}

/// The keys of a response file, in its order.
#[derive(Debug, Deserialize, Serialize)]
struct ToldCall<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    body: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
    attempts: u32,
    #[serde(borrow)]
    accepted_at: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    started_at: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    finished_at: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

/// A body that is `null` is one.
fn some<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

fn on_a_line(line: u32, object: &[u8]) -> Vec<u8> {
    let rest = object.strip_prefix(b"{").expect("a response file is an object");
    let mut text = format!("{{\"line\":{line},").into_bytes();
    // Inside of strings JSON has no line breaks; between tokens they mean nothing.
    text.extend(rest.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    let end = text.trim_ascii_end().len();
    text.truncate(end);
    text.push(b'\n');
    text
}

/// A result without a call, or of a call that is no longer known.
#[derive(Debug, Serialize)]
struct Without<'a> {
    line: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    state: &'a str,
    error: Error<'a>,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    kind: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
}

/// That of a line that is no valid call.
pub(super) fn of_rejection(line: u32, rejection: &Rejection) -> Box<RawValue> {
    let error = Error {
        kind: ErrorKind::Invalid.as_str(),
        message: &rejection.message,
        key: rejection.key.as_deref(),
        line: rejection.line.map(|_| line),
        column: rejection.column,
    };
    raw(&Without { line, id: None, state: REJECTED, error })
}

/// That of a call whose outcome is no longer stored.
pub(super) fn of_lost(line: u32, id: CallId) -> Box<RawValue> {
    let message = "it was submitted, and its outcome was removed from the store before it was written here";
    let error = Error { kind: ErrorKind::Unknown.as_str(), message, key: None, line: None, column: None };
    raw(&Without { line, id: Some(id.to_string()), state: State::Unknown.as_str(), error })
}

fn raw(value: &Without<'_>) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("numbers and strings are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::RejectionKind;

    #[test]
    fn what_the_api_tells_becomes_the_same_line() {
        let record = |text: &str| told(7, text.as_bytes()).expect("it is a call");
        let call = r#"{"id":"call_x","state":"failed","source":"bulk","upstream":null,"url":"http://h",
            "accepted_at":"a","started_at":"s","finished_at":"f","duration_ms":3,"attempts":2,"status":500,
            "error":{"kind":"http_status","message":"m"},"headers":{"a":"b"},"body":{"n": 1.0,
            "n": 2}}"#;
        let told = record(call).expect("it has ended");
        let expected = concat!(
            r#"{"line":7,"id":"call_x","state":"failed","status":500,"headers":{"a":"b"},"body":{"n": 1.0,"#,
            r#"             "n": 2},"error":{"kind":"http_status","message":"m"},"attempts":2,"accepted_at":"a","#,
            r#""started_at":"s","finished_at":"f","duration_ms":3}"#,
            "\n"
        );
        assert_eq!((told.state, String::from_utf8_lossy(&told.text).as_ref()), (State::Failed, expected));
        let bare = r#"{"id":"i","state":"STATE","accepted_at":"a","started_at":null,"finished_at":null,"duration_ms":null,
            "attempts":0,"status":413,"error":null,"body":null}"#;
        let told = record(&bare.replace("STATE", "succeeded")).expect("it has ended");
        let expected = r#"{"line":7,"id":"i","state":"succeeded","body":null,"attempts":0,"accepted_at":"a"}"#;
        assert_eq!(String::from_utf8_lossy(&told.text).trim_end(), expected);
        assert!(record(&bare.replace("STATE", "running")).is_none());
        assert!(super::told(1, b"[]").is_err());
    }

    #[test]
    fn a_rejection_names_the_line_of_the_input() {
        let rejection = Rejection {
            kind: RejectionKind::Syntax,
            message: "expected `:`".into(),
            key: None,
            line: Some(1),
            column: Some(8),
        };
        let text = of_rejection(40, &rejection);
        let error = r#"{"kind":"invalid","message":"expected `:`","line":40,"column":8}"#;
        assert_eq!(text.get(), format!(r#"{{"line":40,"state":"rejected","error":{error}}}"#));
    }
}
