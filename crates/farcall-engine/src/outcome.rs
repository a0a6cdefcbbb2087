//! How outcomes read to users, the same in files and in the API: headers, body, error, times, problems.
//!
//! Only the form is here. Which of it goes where is decided by those who write the documents around it.

mod call;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farcall_core::time::Timestamp;
use farcall_store::record::{CallRecord, ErrorRecord, ResponseRecord};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

pub use call::Call;

/// An answer's `headers` and its `body` or `body_base64`; the keys are meant to be flattened into a document.
///
/// Header names are lower case and each stands once, repeats joined by `, `, but for `set-cookie`, which is an array.
/// The body is JSON when the answer says so and it parses, byte for byte as it came; a string when it is UTF-8; else
/// base64. Content coding and length are left out when the body was decoded.
#[derive(Debug, serde::Serialize)]
pub struct Answer<'a> {
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// An error as users read it: `{kind, message}`.
#[derive(Debug, serde::Serialize)]
pub struct Error<'a> {
    kind: &'static str,
    message: &'a str,
}

/// A problem document (RFC 9457, section 3.1) with our `code`, and where the mistake is when that is known.
#[derive(Debug, serde::Serialize)]
pub struct Problem<'a> {
    /// Where more is said of this kind of problem; `about:blank` where nothing can be looked up, as in a file.
    pub r#type: &'a str,
    pub title: &'static str,
    pub status: u16,
    pub code: &'static str,
    pub detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// When it is worth to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Fields of a request as users read them: each name once, repeats joined by `, `.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [(String, String)]);

impl<'a> Answer<'a> {
    /// How an answer that was kept reads.
    pub fn of(answer: &'a ResponseRecord) -> Self {
        let (body, body_base64) = body(answer);
        Self { headers: Headers(answer), body, body_base64 }
    }
}

impl<'a> Error<'a> {
    /// How a stored error reads.
    pub fn of(error: &'a ErrorRecord) -> Self {
        Self { kind: error.kind.as_str(), message: &error.message }
    }
}

/// From the start of the first attempt to the end, in milliseconds; nothing while it runs, or when it was never tried.
pub fn duration_ms(call: &CallRecord) -> Option<u64> {
    let duration = call.progress.finished_at?.since(call.started_at?);
    u64::try_from(duration.as_millis()).ok()
}

/// RFC 3339, UTC, milliseconds.
///
/// # Example
/// ```
/// use farcall_core::time::Timestamp;
/// use farcall_engine::outcome::rfc3339;
///
/// assert_eq!(rfc3339(Timestamp::from_micros(1_795_165_200_000_999)), "2026-11-20T09:00:00.000Z");
/// ```
pub fn rfc3339(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

#[derive(Debug)]
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

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, _)) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                continue;
            }
            let repeats = self.0[index..].iter().filter(|(other, _)| other == name);
            let values: Vec<&str> = repeats.map(|(_, value)| value.as_str()).collect();
            map.serialize_entry(name, &values.join(", "))?;
        }
        map.end()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_request_headers_are_joined_where_the_first_stands() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = [field("b", "1"), field("a", "x\"y"), field("b", "2")];
        let text = serde_json::to_string(&Fields(&fields)).expect("it is JSON");
        assert_eq!(text, r#"{"b":"1, 2","a":"x\"y"}"#);
    }
}
