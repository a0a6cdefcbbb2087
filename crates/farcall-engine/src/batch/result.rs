//! One result, one line: `line`, then what a response file holds.
//!
//! Pure. A body that is JSON stays as it came, but for line breaks between its tokens.

use farcall_core::call::{ErrorKind, State};
use farcall_core::id::CallId;
use farcall_store::record::OutcomeRecord;
use serde::Serialize;
use serde_json::value::RawValue;

use super::tally::REJECTED;
use crate::document::Rejection;
use crate::result_file;

/// That of a call that has ended.
pub(super) fn of_call(line: u32, outcome: &OutcomeRecord) -> Vec<u8> {
    let response = result_file::response(&outcome.call, outcome.response.as_ref());
    let rest = response.strip_prefix(b"{").expect("a response file is an object");
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
