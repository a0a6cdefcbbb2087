//! The client commands, as processes: against the real server, and against fakes that answer as the API would.

mod calls;
mod examples;
mod fakes;
mod reaching;
mod steering;
mod writing;

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::command::{Finished, start};
use crate::rig::program::{get, post_call};
use crate::rig::recorder::Recorder;
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// No call has this id.
const NOBODY: &str = "call_019aa0c1-0000-7000-8000-000000000000";

/// Runs a client command to its end; words are split at spaces.
fn client(line: &str, server: &[&str]) -> io::Result<Finished> {
    client_with(line, server, [])
}

fn client_with<const N: usize>(line: &str, server: &[&str], variables: [(&str, &str); N]) -> io::Result<Finished> {
    start(line.split_whitespace().chain(server.iter().copied()), variables)?.finish()
}

/// Hands a call over to the server of a directory, and gives its id.
fn accepted(dir: &Path, call: &Value) -> io::Result<String> {
    let answer = post_call(dir, call)?;
    assert_eq!(answer.status, 202, "{}", answer.body);
    Ok(answer.body["id"].as_str().unwrap_or_default().to_owned())
}

/// A call that has ended.
fn ended(dir: &Path, upstream: &Recorder) -> io::Result<String> {
    let id = accepted(dir, &json!({"url": upstream.url(), "method": "POST", "body": {"order_id": 123}}))?;
    until("the call's end", || {
        let call = get(dir, &format!("/v1/calls/{id}")).ok()?.body;
        (!call["finished_at"].is_null()).then_some(())
    });
    Ok(id)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}
