//! What the client commands have in common: the ids they are given, and how a server's records read as rows.
//!
//! A row takes what it finds: a field that a server does not have is an empty cell.

use farcall_core::id::CallId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::exit::{Exit, Failure};
use crate::print::Column;
use crate::print::records::{Form, text};

/// Some of the server's records, and where the next ones begin.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Box<RawValue>>,
    #[serde(default)]
    pub(super) next_cursor: Option<String>,
}

/// Calls.
pub(super) const CALL: Form = Form {
    id: "id",
    columns: &[
        Column::id("id"),
        Column::text("state"),
        Column::number("status"),
        Column::number("attempts"),
        Column::text("upstream"),
        Column::text("request"),
        Column::text("accepted"),
        Column::text("why"),
    ],
    row: |call| {
        vec![
            text(&call["id"]),
            text(&call["state"]),
            text(&call["status"]),
            text(&call["attempts"]),
            text(&call["upstream"]),
            request(call),
            seconds(&call["accepted_at"]),
            reason(call),
        ]
    },
};

/// Attempts of one call.
pub(super) const ATTEMPT: Form = Form {
    id: "number",
    columns: &[
        Column::number("number"),
        Column::text("kind"),
        Column::text("outcome"),
        Column::number("status"),
        Column::text("started"),
        Column::text("ended"),
        Column::text("error"),
    ],
    row: |attempt| {
        vec![
            text(&attempt["number"]),
            text(&attempt["kind"]),
            text(&attempt["outcome"]),
            text(&attempt["status"]),
            text(&attempt["started_at"]),
            text(&attempt["ended_at"]),
            error(&attempt["error"]),
        ]
    },
};

/// An id as the server writes it. What is none is one that no call has.
pub(super) fn call_id(text: &str) -> Result<String, Failure> {
    let id = text.parse::<CallId>().map(|id| id.to_string());
    id.map_err(|error| {
        Failure::new(Exit::NotFound, anyhow::Error::new(error).context(format!("there is no call {text:?}")))
    })
}

/// What of a record a command needs to know.
pub(super) fn read<T: DeserializeOwned>(record: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(record.get()).map_err(|error| {
        let error = anyhow::Error::new(error).context("the answer is not what farcall would send");
        Failure::new(Exit::Unreachable, error)
    })
}

/// `POST https://example.com/orders`, or the function's name.
fn request(call: &Value) -> String {
    match (call["method"].as_str(), call["url"].as_str()) {
        (Some(method), Some(url)) => format!("{method} {url}"),
        _ => text(&call["function"]),
    }
}

/// A time without its fraction.
pub(super) fn seconds(time: &Value) -> String {
    let time = text(time);
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time,
    }
}

/// What a call (or all of an upstream) waits for, or why it ended as it did.
pub(super) fn reason(call: &Value) -> String {
    match (call["wait_reason"].as_str(), call["next_at"].as_str()) {
        (Some(reason), Some(_)) => format!("{reason} until {}", seconds(&call["next_at"])),
        (Some(reason), None) => reason.to_owned(),
        (None, _) if call["cancel_requested"] == true && call["finished_at"].is_null() => "cancel requested".to_owned(),
        (None, _) => error(&call["error"]),
    }
}

/// `timeout: no answer within 30 s`
fn error(error: &Value) -> String {
    match (error["kind"].as_str(), error["message"].as_str()) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        _ => text(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_named_with_and_without_its_prefix() {
        let id = "call_019aa0c1-0000-7000-8000-000000000000";
        for text in [id, &id[5..]] {
            assert_eq!(call_id(text).ok().as_deref(), Some(id));
        }
        for text in ["", "call_", "../../healthz", "call_x"] {
            assert_eq!(call_id(text).err().map(|failure| failure.exit()), Some(Exit::NotFound), "{text}");
        }
    }

    #[test]
    fn the_last_column_says_why() {
        let check = |call: Value, expected: &str| assert_eq!(reason(&call), expected);
        let next_at = "2026-11-20T09:00:00.123Z";
        check(json!({"wait_reason": "backoff", "next_at": next_at}), "backoff until 2026-11-20T09:00:00Z");
        check(json!({"wait_reason": "paused", "next_at": null}), "paused");
        check(json!({"error": {"kind": "dns", "message": "no such name"}}), "dns: no such name");
        check(json!({"cancel_requested": true, "finished_at": null}), "cancel requested");
        check(json!({"state": "succeeded", "error": null}), "");
    }
}
