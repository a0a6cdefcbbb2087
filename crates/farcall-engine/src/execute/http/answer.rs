//! An answer as it grows: its head, then its body.
//!
//! What has come is kept even when the rest does not, because users are shown it. What the head says about itself
//! (media type, Retry-After) is read here; what follows from it is not.

use std::time::Duration;

use farcall_core::time::Timestamp;
use farcall_store::record::ResponseRecord;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, response};

use super::super::Coding;
use super::decode::Collector;
use super::retry_after;

/// What came of an answer so far.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Collector,
}

impl Answer {
    /// The head is here; at most `body_bytes_max` bytes of body will be, counted as they are kept.
    pub(super) fn new(head: response::Parts, coding: Coding, body_bytes_max: u64) -> Self {
        let body = match coding {
            Coding::Removed => Collector::new(&head.headers, body_bytes_max),
            Coding::Kept => Collector::as_it_is(body_bytes_max),
        };
        Self { status: head.status, headers: head.headers, body }
    }

    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Whether the answer's media type is the one wanted; without a wish every answer is.
    pub(super) fn is_of_type(&self, wanted: Option<&str>) -> bool {
        wanted.is_none_or(|wanted| has_media_type(&self.headers, wanted))
    }

    /// How long the answer asks us to wait, whatever its status.
    pub(super) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        retry_after::wait(&self.headers, now)
    }

    pub(super) fn into_record(self) -> ResponseRecord {
        let decoded = self.body.has_decoded();
        // Copied, because a value as it came keeps hyper's whole read buffer in memory.
        let headers = self.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        ResponseRecord {
            status: self.status.as_u16(),
            headers: headers.collect(),
            body: self.body.into_body(),
            decoded,
        }
    }
}

fn has_media_type(headers: &HeaderMap, wanted: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(wanted.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: Option<&str>, wanted: Option<&str>, expected: bool) {
        let mut response = http::Response::new(());
        if let Some(value) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, value.parse().expect("a header value"));
        }
        let answer = Answer::new(response.into_parts().0, Coding::Removed, 0);
        assert_eq!(answer.is_of_type(wanted), expected, "{content_type:?} for {wanted:?}");
    }

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        check(Some("application/json"), Some("application/json"), true);
        check(Some("Application/JSON ; charset=utf-8"), Some("application/json"), true);
        check(Some("application/json-seq"), Some("application/json"), false);
        check(Some("text/html"), Some("application/json"), false);
        check(Some(""), Some("application/json"), false);
        check(None, Some("application/json"), false);
        check(None, None, true);
        check(Some("text/html"), None, true);
    }

    #[test]
    fn a_record_has_names_in_lower_case_in_the_order_received() {
        let mut response = http::Response::new(());
        for (name, value) in [("x-b", "1"), ("set-cookie", "a"), ("x-a", "2"), ("set-cookie", "b")] {
            response.headers_mut().append(name, value.parse().expect("a header value"));
        }
        let record = Answer::new(response.into_parts().0, Coding::Removed, 0).into_record();
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-b", "set-cookie", "set-cookie", "x-a"]);
        assert_eq!((record.status, record.body, record.decoded), (200, bytes::Bytes::new(), false));
    }
}
