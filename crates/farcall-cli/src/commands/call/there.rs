//! A call made by a server: posted, waited for, and its answer fetched.
//!
//! It is a durable call there. Whoever stops waiting here leaves it to that server.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Answer, Ended, Problem};
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// How long the server is asked to wait before it answers that the call goes on.
const WAIT: Duration = Duration::from_secs(20);
/// How long is waited between two questions, the first time and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What a server says of a call.
#[derive(Debug, Deserialize)]
struct Call {
    id: String,
    #[serde(default)]
    state: String,
    finished_at: Option<String>,
    status: Option<u16>,
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    error: Option<Problem>,
}

/// Has it made; nothing when it was interrupted, and goes on there.
///
/// # Errors
/// With exit code 2 when the server refuses it, 6 when there is no answer.
pub(super) fn call(context: &Context, target: Target, document: Bytes) -> Result<Option<Ended>, Failure> {
    let mut client = Client::new(target);
    let (mut ended, mut accepted) = (None, None);
    let exit = client::block_on(async {
        ended = Some(outcome(&mut client, document, &mut accepted).await?);
        Ok(Exit::Ok)
    });
    match (&ended, &accepted) {
        _ if context.global.quiet => {}
        (None, Some(id)) => context.screen.tell(format_args!("{id} goes on there; `farcall wait {id}` waits for it")),
        (None, None) if exit.is_ok() => {
            context.screen.tell("what the server has taken goes on there; `farcall list --source api` shows it");
        }
        _ => {}
    }
    exit.map(|_| ended)
}

async fn outcome(client: &mut Client, document: Bytes, accepted: &mut Option<String>) -> Result<Ended, Failure> {
    let request = Request::post(&["v1", "calls"]).document(document).waiting(WAIT);
    let mut answer = client.ask(request).await?;
    let mut pause = PAUSE_FIRST;
    loop {
        let call: Call = answer.document()?;
        let id = accepted.insert(call.id.clone()).clone();
        if call.finished_at.is_some() {
            let body = match call.status {
                Some(_) if call.headers.is_some() => {
                    client.ask(Request::get(&["v1", "calls", &id, "response"])).await?.body
                }
                _ => Bytes::new(),
            };
            let outcome: Box<RawValue> = answer.document()?;
            return Ok(of(call, body, outcome.get()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        answer = client.ask(Request::get(&["v1", "calls", &id])).await?;
    }
}

fn of(call: Call, body: Bytes, outcome: &str) -> Ended {
    let headers = call.headers.map(|headers| headers.into_iter().flat_map(lines).collect());
    Ended {
        state: call.state,
        error: call.error,
        answer: call.status.zip(headers).map(|(status, headers)| Answer { status, headers, body }),
        outcome: Bytes::from(format!("{outcome}\n")),
    }
}

/// A header's value, or each of several.
fn lines((name, value): (String, serde_json::Value)) -> Vec<(String, String)> {
    let text = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
    match value {
        serde_json::Value::Array(values) => values.into_iter().map(|value| (name.clone(), text(value))).collect(),
        value => vec![(name, text(value))],
    }
}
