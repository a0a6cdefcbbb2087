//! Lines as one bulk request, and what its answer says of each.
//!
//! Pure. Answers come in the order of the lines; those that a broken connection swallowed are offered again.

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use farcall_core::id::CallId;
use farcall_engine::batch::{Answer, Offer};
use farcall_engine::document::{Rejection, RejectionKind};
use serde::Deserialize;

/// What a line came to: an id, or why not (RFC 9457).
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<String>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    key: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
}

/// The body of the request.
pub(super) fn body(offers: &[Offer]) -> Bytes {
    let mut body = BytesMut::with_capacity(offers.iter().map(|offer| offer.text.len() + 1).sum());
    for Offer { text, .. } in offers {
        body.extend_from_slice(text);
        body.extend_from_slice(b"\n");
    }
    body.freeze()
}

/// What the answer says of so many lines; of those that it does not reach, that they are to be offered again.
pub(super) fn answers(text: &[u8], count: usize) -> Vec<Answer> {
    let mut answers: Vec<Answer> = text.split(|&byte| byte == b'\n').map_while(answer).take(count).collect();
    answers.resize_with(count, || Answer::Refused(anyhow!("the answer broke off").into()));
    answers
}

fn answer(line: &[u8]) -> Option<Answer> {
    let line: Line = serde_json::from_slice(line).ok()?;
    if let Some(id) = &line.id {
        return id.parse::<CallId>().ok().map(Answer::Accepted);
    }
    Some(if line.is_final() { Answer::Rejected(line.into()) } else { Answer::Refused(line.refusal()) })
}

impl Line {
    /// Offered again it would come to the same.
    fn is_final(&self) -> bool {
        let is_transport = matches!(self.code.as_str(), "malformed_request" | "request_timeout");
        let is_for_now = self.status == 429 || (self.status >= 500 && self.status != 501);
        !is_transport && !is_for_now
    }

    fn refusal(self) -> Box<dyn std::error::Error + Send + Sync> {
        anyhow!("{}: {} {}", self.detail, self.status, self.code).into()
    }
}

impl From<Line> for Rejection {
    fn from(line: Line) -> Self {
        let Line { detail: message, key, line, column, .. } = line;
        // That it is on a line of the request is no news; that it is at a column of that is.
        let line = line.filter(|_| column.is_some());
        Self { kind: RejectionKind::Invalid, message, key, line, column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "call_01a1fed7-58bf-7e26-9a92-cc7f2a3b485e";

    fn read(text: &str, count: usize) -> Vec<String> {
        let told = |answer| match answer {
            Answer::Accepted(id) => id.to_string(),
            Answer::Rejected(rejection) => format!("{rejection:?}"),
            Answer::Refused(error) => format!("again: {error}"),
        };
        answers(text.as_bytes(), count).into_iter().map(told).collect()
    }

    #[test]
    fn every_line_has_an_answer_or_is_offered_again() {
        let invalid = r#"{"status":422,"code":"invalid_call","detail":"no","key":"url","line":2}"#;
        let full = r#"{"status":507,"code":"storage_full","detail":"full","line":3}"#;
        let text = format!("{{\"id\":\"{ID}\"}}\n{invalid}\n{full}\n{{\"id\":\"ca");
        let read = read(&text, 5);
        assert_eq!(read[0], ID);
        assert!(read[1].contains("message: \"no\", key: Some(\"url\"), line: None"), "{}", read[1]);
        assert_eq!(
            read[2..],
            ["again: full: 507 storage_full", "again: the answer broke off", "again: the answer broke off"]
        );
    }

    #[test]
    fn what_a_line_cannot_help_is_no_rejection() {
        let check = |status: u16, code: &str, is_final: bool| {
            let text = format!(r#"{{"status":{status},"code":"{code}","detail":"d","line":1,"column":4}}"#);
            assert_eq!(matches!(answers(text.as_bytes(), 1)[..], [Answer::Rejected(_)]), is_final, "{status} {code}");
        };
        for (status, code) in
            [(422, "invalid_call"), (400, "malformed_document"), (413, "body_too_large"), (501, "not_available_yet")]
        {
            check(status, code, true);
        }
        for (status, code) in
            [(400, "malformed_request"), (408, "request_timeout"), (503, "draining"), (429, "busy"), (500, "internal")]
        {
            check(status, code, false);
        }
    }
}
