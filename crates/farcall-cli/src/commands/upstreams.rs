//! `farcall upstreams`: what is called, under which limits, how much of them is used; pausing, resuming, changing.
//!
//! What a change means, and whether it may be, the server decides.

use http::Method;
use serde_json::{Map, Value};

use super::records::{Page, each};
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
    ],
    row: |upstream| {
        vec![
            text(&upstream["name"]),
            text(&upstream["base_url"]),
            if upstream["paused"] == true { "paused".to_owned() } else { String::new() },
            text(&upstream["waiting"]),
            text(&upstream["in_flight"]),
            text(&upstream["limits"]),
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
        listing.end();
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
