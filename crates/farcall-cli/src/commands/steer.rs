//! Doing one thing to many calls: to each that is named, or by an operation of the server to all that fit.
//!
//! What is refused for one call stops no other; without a server there is nothing to go on with.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::list;
use super::records::{CALL, call_id};
use crate::args::client::CallsArgs;
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::records::{Form, Listing, single};

/// How often an operation is asked how far it is, first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What of an operation says how far it is.
#[derive(Debug, Deserialize)]
struct Progress {
    id: String,
    state: String,
    #[serde(default)]
    errors: u64,
}

/// Asks for one thing for some calls, and prints what the server answers.
///
/// # Errors
/// Without a server, and the first refusal.
pub(super) fn calls(context: &Context, args: &CallsArgs, action: &'static str) -> Result<Exit, Failure> {
    context.refuse_settings(action)?;
    let filters = list::parameters(&args.filters, farcall_engine::clock::now().timestamp);
    let mut client = Client::new(Target::of(context, &args.server)?);
    match (args.ids.as_slice(), filters.as_slice()) {
        ([], []) => Err(Failure::usage(format!("which calls? `farcall {action} ID...`, or a filter such as --state"))),
        ([], _) => {
            let filters = filters.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            client::block_on(operation(context, &mut client, action, filters, args.dry_run))
        }
        (_, []) if args.dry_run => Err(Failure::usage("--dry-run goes with filters; ids say themselves which calls")),
        (ids, []) => {
            let requests = ids.iter().map(|id| Ok(Request::post(&["v1", "calls", &call_id(id)?, action])));
            client::block_on(each(context, &mut client, &CALL, requests))
        }
        _ => Err(Failure::usage("ids and filters at once; calls are named, or they are found by filters")),
    }
}

/// Has the server do it to all calls that fit, and waits until it has.
async fn operation(
    context: &Context,
    client: &mut Client,
    action: &str,
    filters: Map<String, Value>,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let document = json!({"action": action, "where": filters, "dry_run": dry_run});
    let begin = Request::post(&["v1", "operations"]).json(&document);
    let mut record: Box<RawValue> = client.ask(begin).await?.document()?;
    let mut pause = PAUSE_FIRST;
    loop {
        let progress: Progress = super::records::read(&record)?;
        if progress.state != "running" {
            single(context, "id", &record)?;
            let is_whole = progress.state == "done" && progress.errors == 0;
            return Ok(if is_whole { Exit::Ok } else { Exit::CallFailed });
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        record = client.ask(Request::get(&["v1", "operations", &progress.id])).await?.document()?;
    }
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
