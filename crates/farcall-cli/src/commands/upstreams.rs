//! `farcall upstreams`: what is called, under which limits, how much of them is used; pausing, resuming, changing.
//!
//! What a change means, and whether it may be, the server decides.

use http::Method;
use serde_json::{Map, Value};

use super::records::{Page, reason, seconds};
use super::steer::each;
use crate::args::client::{Change, ServerArgs, UpstreamAction, UpstreamNames, UpstreamsArgs};
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::Column;
use crate::print::records::{Form, Listing, single, text};

/// Upstreams.
const UPSTREAM: Form = Form {
    id: "name",
    columns: &[
        Column::text("name"),
        Column::text("base_url"),
        Column::text("state"),
        Column::number("waiting"),
        Column::number("in flight"),
        Column::text("limits"),
        Column::text("why"),
    ],
    row: |upstream| {
        vec![
            text(&upstream["name"]),
            text(&upstream["base_url"]),
            text(&upstream["state"]),
            text(&upstream["waiting"]),
            used(&upstream["concurrency"], ""),
            limits(&upstream["limits"]),
            why(upstream),
        ]
    },
};

pub(crate) fn run(context: &Context, args: &UpstreamsArgs) -> Result<Exit, Failure> {
    context.refuse_settings("upstreams")?;
    match &args.action {
        None => list(context, &args.server),
        Some(UpstreamAction::List { server }) => list(context, server),
        Some(UpstreamAction::Show(names)) => show(context, names),
        Some(UpstreamAction::Pause(names)) => post_each(context, names, "pause"),
        Some(UpstreamAction::Resume(names)) => post_each(context, names, "resume"),
        Some(UpstreamAction::Set { name, changes, server }) => set(context, server, name, changes),
    }
}

fn list(context: &Context, server: &ServerArgs) -> Result<Exit, Failure> {
    let mut client = Client::new(Target::of(context, server)?);
    client::block_on(async {
        let page: Page = client.ask(Request::get(&["v1", "upstreams"])).await?.document()?;
        let mut listing = Listing::new(context, &UPSTREAM);
        listing.print(&page.data)?;
        listing.end_or_tell("no upstreams");
        Ok(Exit::Ok)
    })
}

fn show(context: &Context, UpstreamNames { names, server }: &UpstreamNames) -> Result<Exit, Failure> {
    let mut client = Client::new(Target::of(context, server)?);
    client::block_on(async {
        if let [name] = names.as_slice() {
            let answer = client.ask(Request::get(&["v1", "upstreams", name])).await?;
            single(context, "name", &answer.document::<Box<_>>()?)?;
            return Ok(Exit::Ok);
        }
        let requests = names.iter().map(|name| Ok(Request::get(&["v1", "upstreams", name])));
        each(context, &mut client, &UPSTREAM, requests).await
    })
}

fn post_each(
    context: &Context,
    UpstreamNames { names, server }: &UpstreamNames,
    action: &str,
) -> Result<Exit, Failure> {
    let mut client = Client::new(Target::of(context, server)?);
    let requests = names.iter().map(|name| Ok(Request::post(&["v1", "upstreams", name, action])));
    client::block_on(each(context, &mut client, &UPSTREAM, requests))
}

fn set(context: &Context, server: &ServerArgs, name: &str, changes: &[Change]) -> Result<Exit, Failure> {
    let mut client = Client::new(Target::of(context, server)?);
    let mut document = Map::new();
    for Change { key, value } in changes {
        if document.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("{key} is given twice")));
        }
    }
    client::block_on(async {
        let request = Request::new(Method::PATCH, &["v1", "upstreams", name]).json(&Value::Object(document));
        single(context, "name", &client.ask(request).await?.document::<Box<_>>()?)?;
        Ok(Exit::Ok)
    })
}

/// `3 of 10/1s, 40 of 400/1h`: how much of each is used.
fn limits(limits: &Value) -> String {
    let limits = limits.as_array().into_iter().flatten();
    limits.map(|limit| used(limit, &text(&limit["limit"]))).collect::<Vec<_>>().join(", ")
}

/// `3 of 16`, or of what it is called.
fn used(capacity: &Value, name: &str) -> String {
    if capacity["used"].is_null() {
        return String::new();
    }
    let name = if name.is_empty() { text(&capacity["capacity"]) } else { name.to_owned() };
    format!("{} of {name}", text(&capacity["used"]))
}

/// What its calls wait for.
fn why(upstream: &Value) -> String {
    match upstream["closed_until"].as_str() {
        Some(_) => format!("cooldown until {}", seconds(&upstream["closed_until"])),
        None => reason(upstream),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_tells_what_is_used_and_why_calls_wait() {
        let upstream = json!({
            "name": "etsy", "base_url": "https://openapi.etsy.com", "state": "open", "waiting": 7,
            "wait_reason": "rate_limit", "next_at": "2026-11-20T09:00:00.123Z",
            "concurrency": {"capacity": 16, "used": 2},
            "limits": [{"limit": "10/1s", "capacity": 10, "used": 10}, {"limit": "400/1h", "capacity": 400, "used": 40}],
        });
        let row = (UPSTREAM.row)(&upstream);
        assert_eq!(row[3..], ["7", "2 of 16", "10 of 10/1s, 40 of 400/1h", "rate_limit until 2026-11-20T09:00:00Z"]);
        let closed = json!({"state": "closed", "closed_until": "2026-11-20T09:00:00.123Z"});
        assert_eq!((UPSTREAM.row)(&closed)[6], "cooldown until 2026-11-20T09:00:00Z");
        assert_eq!((UPSTREAM.row)(&json!({}))[4..], ["", "", ""]);
    }
}
