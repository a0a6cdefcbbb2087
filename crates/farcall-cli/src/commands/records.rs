//! What the client commands have in common: the ids they are given, and how a server's records read as rows.
//!
//! A row takes what it finds: a field that a server does not have is an empty cell.

use farcall_core::id::CallId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::client::CallsArgs;
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::Column;
use crate::print::records::{Form, Listing, text};

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

/// Asks for one thing for each of some calls, and prints the calls that the server answers with.
///
/// What is refused for one call stops no other; without a server there is nothing to go on with.
pub(super) fn post_each(context: &Context, args: &CallsArgs, action: &'static str) -> Result<Exit, Failure> {
    context.refuse_settings(action)?;
    let mut client = Client::new(Target::of(context, &args.server)?);
    let requests = args.ids.iter().map(|id| Ok(Request::post(&["v1", "calls", &call_id(id)?, action])));
    client::block_on(each(context, &mut client, &CALL, requests))
}

/// Sends requests one after the other, and prints what is answered.
pub(super) async fn each(
    context: &Context,
    client: &mut Client,
    form: &Form,
    requests: impl IntoIterator<Item = Result<Request, Failure>>,
) -> Result<Exit, Failure> {
    let mut listing = Listing::new(context, form);
    let mut answered: Vec<Box<RawValue>> = Vec::new();
    let mut refused: Option<Failure> = None;
    for request in requests {
        let record = match request {
            Ok(request) => client.ask(request).await.and_then(|answer| answer.document()),
            Err(failure) => Err(failure),
        };
        match record {
            Ok(record) => answered.push(record),
            Err(failure) => {
                let is_last = failure.exit() == Exit::Unreachable;
                // The first one is told where the command returns.
                match &refused {
                    Some(_) => context.screen.tell(failure.render(context.screen.stderr_has_color())),
                    None => refused = Some(failure),
                }
                if is_last {
                    break;
                }
            }
        }
        if listing.is_streaming() {
            listing.print(&std::mem::take(&mut answered))?;
        }
    }
    listing.print(&answered)?;
    listing.end();
    refused.map_or(Ok(Exit::Ok), Err)
}

/// `POST https://example.com/orders`, or the function's name.
fn request(call: &Value) -> String {
    match (call["method"].as_str(), call["url"].as_str()) {
        (Some(method), Some(url)) => format!("{method} {url}"),
        _ => text(&call["function"]),
    }
}

/// A time without its fraction.
fn seconds(time: &Value) -> String {
    let time = text(time);
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time,
    }
}

/// What a call waits for, or why it ended as it did.
fn reason(call: &Value) -> String {
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
