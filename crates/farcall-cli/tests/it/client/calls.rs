//! Looking at calls of the real server and waiting for them: forms of output, exit codes.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NOBODY, Outcome, accepted, client, ended, lines, text};
use crate::rig::command::{Running, start};
use crate::rig::program::Program;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

/// White space, large numbers, repeated and unsorted keys: nothing that a parser would leave as it is.
const BODY: &str = "{\n  \"b\": 12345678901234567890123,\r\n \"a\": [1.50, {}],\n \"b\": \"x\\u0007\" }";

#[test]
fn a_call_is_shown_as_its_reader_wants_it() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply { body: BODY.to_owned(), ..Reply::new(201) })?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let id = ended(dir.path(), &upstream)?;
    let get = |flags: &str| client(&format!("get {id} {flags}"), &["--dir", text(dir.path())]);

    let line = get("")?;
    assert_eq!((line.code, line.stderr.as_str()), (Some(0), ""));
    assert_eq!(line.stdout.lines().count(), 1, "{}", line.stdout);
    assert_eq!(lines(&line.stdout)[0]["status"], 201);
    let body = r#""body":{"b":12345678901234567890123,"a":[1.50,{}],"b":"x\u0007"}"#;
    assert!(line.stdout.contains(body), "{}", line.stdout);

    let document = get("--output json")?.stdout;
    assert!(document.starts_with(&format!("{{\n  \"id\": \"{id}\",\n  \"state\": \"succeeded\",\n")), "{document}");
    assert!(document.contains("    \"b\": 12345678901234567890123,\n"), "{document}");
    assert_eq!(serde_json::from_str::<Value>(&document)?, lines(&line.stdout)[0]);

    let table = get("--output table")?.stdout;
    assert!(
        table.starts_with(&format!("id                      {id}\nstate                   succeeded\n")),
        "{table}"
    );
    assert!(table.contains("\n\n{\n  \"b\": 12345678901234567890123,\n"), "{table}");
    assert!(!table.contains("null") && !table.contains('\u{1b}'), "{table}");

    assert_eq!(get("-q")?.stdout, format!("{id}\n"));
    let without_prefix = client(&format!("get {} -q", &id[5..]), &["--dir", text(dir.path())])?;
    assert_eq!(without_prefix.stdout, format!("{id}\n"));
    Ok(())
}

#[test]
fn attempts_are_listed() -> Outcome {
    let upstream = Recorder::start(|_, before| Reply::new(if before == 0 { 503 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let call = json!({"url": upstream.url(), "retry": {"max": 1, "wait": 0.01}});
    let id = accepted(dir.path(), &call)?;
    assert_eq!(client(&format!("wait {id}"), &["--dir", text(dir.path())])?.code, Some(0));
    let attempts = |flags: &str| client(&format!("get {id} --attempts {flags}"), &["--dir", text(dir.path())]);
    let rows: Vec<_> = lines(&attempts("")?.stdout)
        .into_iter()
        .map(|attempt| format!("{} {} {}", attempt["number"], attempt["kind"], attempt["status"]))
        .collect();
    assert_eq!(rows, ["1 \"first\" 503", "2 \"retry\" 200"]);
    let table = attempts("--output table")?.stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().nth(1).is_some_and(|row| row.contains(" first ")), "{table}");
    assert_eq!(serde_json::from_str::<Vec<Value>>(&attempts("--output json")?.stdout)?.len(), 2);
    Ok(())
}

#[test]
fn a_call_that_is_not_there_is_3() -> Outcome {
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    for line in ["get ID", "get ID --attempts", "wait ID"] {
        for id in [NOBODY, "order-17", "../../healthz"] {
            let finished = client(&line.replace("ID", id), &["--dir", text(dir.path())])?;
            assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), ""), "{line} {id}");
            assert!(finished.stderr.contains("there is no call"), "{}", finished.stderr);
        }
    }
    Ok(())
}

#[test]
fn wait_prints_calls_as_they_end_and_tells_how() -> Outcome {
    let upstream = Recorder::start(|arrival, _| match arrival.path.as_str() {
        "/bad" => Reply::new(404).after(Duration::from_millis(300)),
        _ => Reply::new(200),
    })?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let call = |path: &str| accepted(dir.path(), &json!({"url": format!("{}{path}", upstream.url())}));
    let (bad, good) = (call("/bad")?, call("/good")?);
    let wait = |line: String| client(&line, &["--dir", text(dir.path())]);

    let both = wait(format!("wait {bad} {good} {bad}"))?;
    assert_eq!((both.code, both.stderr.as_str()), (Some(1), ""));
    let ids: Vec<_> = lines(&both.stdout).into_iter().map(|call| call["id"].clone()).collect();
    assert_eq!(ids, [good.as_str(), bad.as_str()], "each once, in the order of their ends");

    assert_eq!(wait(format!("wait {good} --timeout 30"))?.code, Some(0));
    let table = wait(format!("wait {bad} {good} --output table"))?.stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(wait(format!("wait {good} -q"))?.stdout, format!("{good}\n"));
    Ok(())
}

#[test]
fn wait_gives_up_after_its_timeout_with_5_and_says_for_whom() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let good = ended(dir.path(), &upstream)?;
    let late = accepted(dir.path(), &json!({"url": upstream.url(), "delay": 3600}))?;
    let finished = client(&format!("wait {late} {good} --timeout 200ms --output json"), &["--dir", text(dir.path())])?;
    assert_eq!(finished.code, Some(5));
    assert!(finished.stderr.contains(&format!("1 of 2 calls not ended within 200ms: {late}\n")), "{}", finished.stderr);
    let ended: Vec<Value> = serde_json::from_str(&finished.stdout)?;
    assert_eq!(ended.len(), 1, "what has ended is printed, and the document is whole");
    Ok(())
}

#[test]
fn a_call_that_has_ended_is_found_to_have_however_short_the_wait() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let late = accepted(dir.path(), &json!({"url": upstream.url(), "delay": 3600}))?;
    let good = ended(dir.path(), &upstream)?;
    let wait = |line: String| client(&line, &["--dir", text(dir.path())]);
    for time in ["0", "1ms"] {
        let finished = wait(format!("wait {good} --timeout {time} -q"))?;
        assert_eq!((finished.code, finished.stdout), (Some(0), format!("{good}\n")), "{}", finished.stderr);
        let finished = wait(format!("wait {late} {good} --timeout {time} -q"))?;
        assert_eq!((finished.code, finished.stdout), (Some(5), format!("{good}\n")), "{}", finished.stderr);
    }
    Ok(())
}

/// Waits for two calls, of which the first has ended; the server has been met once that one is printed.
fn waiting(dir: &Path, upstream: &Recorder, delay_seconds: u32) -> Result<Running, Box<dyn std::error::Error>> {
    let good = ended(dir, upstream)?;
    let late = accepted(dir, &json!({"url": upstream.url(), "delay": delay_seconds}))?;
    let waiting = start(["wait", &good, &late, "--dir", text(dir)], [])?;
    until("the first line", || waiting.stdout().contains(&good).then_some(()));
    Ok(waiting)
}

#[test]
fn wait_outlives_a_restart_of_the_server() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let program = Program::serve(dir.path())?;
    let waiting = waiting(dir.path(), &upstream, 2)?;
    program.kill()?;
    until("the wait to notice", || waiting.stderr().contains("come back").then_some(()));
    let _program = Program::serve(dir.path())?;
    let finished = waiting.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let states: Vec<_> = lines(&finished.stdout).into_iter().map(|call| call["state"].clone()).collect();
    assert_eq!(states, ["succeeded", "succeeded"]);
    Ok(())
}

#[test]
fn ctrl_c_ends_a_wait_with_130() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let waiting = waiting(dir.path(), &upstream, 3_600)?;
    waiting.signal(Signal::INT)?;
    assert_eq!(waiting.finish()?.code, Some(130));
    Ok(())
}

#[test]
fn what_cannot_be_printed_is_no_success() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let id = ended(dir.path(), &upstream)?;
    for line in [
        "list",
        "list -q",
        "list --output json",
        "list --output table",
        "get ID",
        "get ID --response",
        "get ID --attempts",
        "wait ID",
        "explain ID",
        "upstreams",
    ] {
        let line = line.replace("ID", &id);
        let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
        command.args(line.split(' ')).args(["--dir", text(dir.path())]).env_clear();
        let finished = command.stdout(File::options().write(true).open("/dev/full")?).output()?;
        let stderr = String::from_utf8(finished.stderr)?;
        assert_eq!(finished.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains("cannot be written: No space left on device"), "{line}: {stderr}");
    }
    Ok(())
}

#[test]
fn people_are_told_that_there_is_nothing() -> Outcome {
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let waits = accepted(dir.path(), &json!({"url": "http://127.0.0.1:9", "delay": "1h"}))?;
    for (line, none) in
        [("list --state poisoned", "no calls\n"), (&format!("get {waits} --attempts"), "no attempts yet\n")]
    {
        for (flags, told) in [("--output table", none), ("--output ndjson", ""), ("-q", "")] {
            let finished = client(&format!("{line} {flags}"), &["--dir", text(dir.path())])?;
            let seen = (finished.code, finished.stdout.as_str(), finished.stderr.as_str());
            assert_eq!(seen, (Some(0), "", told), "{line} {flags}");
        }
    }
    Ok(())
}
