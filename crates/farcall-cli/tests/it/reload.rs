//! A configuration that changes while the program runs: applied within a second, whole or not at all.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::rig::program::{Launch, Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{assert_within, drop_file, pause, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const APPLIED: &str = "the changed configuration is applied";
const REFUSED: &str = "the changed configuration is not applied";

/// As editors do: another file in its place.
fn configure(dir: &Path, text: &str) -> std::io::Result<()> {
    fs::write(dir.join(".farcall.yml.new"), text)?;
    fs::rename(dir.join(".farcall.yml.new"), dir.join("farcall.yml"))
}

/// Waits until this was logged so many times.
fn logged(program: &Program, what: &str, times: usize) {
    until(what, || (program.log().matches(what).count() >= times).then_some(()));
}

fn upstream(url: &str, more: &str) -> String {
    format!("upstreams:\n  api: {{ base_url: {url}, concurrency: 64{more} }}\n")
}

fn post(dir: &Path, path: &str) -> std::io::Result<String> {
    let answer = post_call(dir, &json!({"upstream": "api", "end_point": path}))?;
    assert_eq!(answer.status, 202, "{}", answer.body);
    Ok(answer.body["id"].as_str().unwrap_or_default().to_owned())
}

fn state(dir: &Path, id: &str) -> Option<String> {
    let answer = get(dir, &format!("/v1/calls/{id}")).ok()?;
    Some(answer.body["state"].as_str()?.to_owned())
}

fn ends(dir: &Path, id: &str, end: &str) {
    until(&format!("{id} to end {end}"), || state(dir, id).filter(|state| state == end));
}

#[test]
fn a_limit_lowered_under_load_holds_from_then_on_and_counts_what_was_sent() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream(&recorder.url(), ", limits: [100/1s], jitter: 3s"))?;
    let program = Program::serve(dir.path())?;
    for number in 0..220 {
        drop_file(dir.path(), format!("{number}.json"), &json!({"upstream": "api", "end_point": "/"}).to_string())?;
    }
    until("the load", || (recorder.arrivals().len() >= 120).then_some(()));
    configure(dir.path(), &upstream(&recorder.url(), ", limits: [5/1s], jitter: 3s"))?;
    logged(&program, APPLIED, 1);
    let applied = Instant::now();
    let late = || recorder.arrivals().iter().filter(|arrival| arrival.at > applied).count();
    until("several windows' worth", || (late() >= 16).then_some(()));
    let times: Vec<Instant> = recorder.arrivals().iter().map(|arrival| arrival.at).filter(|at| *at > applied).collect();
    let worst = times
        .iter()
        .map(|begin| times.iter().filter(|at| **at >= *begin && **at < *begin + Duration::from_secs(1)).count());
    assert!(worst.max() <= Some(5));
    assert!(recorder.worst_window(Duration::from_secs(1)) <= 100);
    Ok(())
}

#[test]
fn an_invalid_file_changes_nothing_and_says_where_it_is_wrong() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream(&recorder.url(), ""))?;
    let program = Program::serve(dir.path())?;
    configure(dir.path(), &upstream(&recorder.url(), ", rate_secnd: 5"))?;
    logged(&program, REFUSED, 1);
    let log = program.log();
    assert!(log.contains("rate_second") && log.contains("line=2") && log.contains("farcall.yml"), "{log}");
    configure(dir.path(), &upstream(&recorder.url(), ", headers: {X-Key: \"${env:FARCALL_NOT_SET}\"}"))?;
    logged(&program, REFUSED, 2);
    let id = post(dir.path(), "/before")?;
    ends(dir.path(), &id, "succeeded");
    // Half a file is no file.
    configure(dir.path(), "upstreams:\n  api: { base_url")?;
    logged(&program, REFUSED, 3);
    fs::remove_file(dir.path().join("farcall.yml"))?;
    logged(&program, "the configuration file is gone", 1);
    let id = post(dir.path(), "/after")?;
    ends(dir.path(), &id, "succeeded");
    Ok(())
}

#[test]
fn a_signal_reloads_too_and_keys_that_only_a_start_reads_are_named() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream(&recorder.url(), ""))?;
    let program = Program::serve(dir.path())?;
    program.signal(Signal::HUP)?;
    logged(&program, APPLIED, 1);
    let text = upstream(&recorder.url(), ", headers: {X-Version: two}");
    configure(dir.path(), &format!("store: {{ path: elsewhere }}\n{text}"))?;
    logged(&program, APPLIED, 2);
    assert!(program.log().contains("store.path"), "{}", program.log());
    let id = post(dir.path(), "/")?;
    ends(dir.path(), &id, "succeeded");
    assert_eq!(recorder.arrivals()[0].header("x-version"), Some("two"));
    Ok(())
}

#[test]
fn calls_of_an_upstream_that_vanished_wait_until_it_is_back_and_new_ones_come_at_once() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let slow = upstream(&recorder.url(), ", limits: [1/1h]");
    configure(dir.path(), &slow)?;
    let program = Program::serve(dir.path())?;
    let first = post(dir.path(), "/first")?;
    ends(dir.path(), &first, "succeeded");
    let second = post(dir.path(), "/second")?;
    let other = format!("upstreams:\n  other: {{ base_url: {}/other }}\n", recorder.url());
    configure(dir.path(), &other)?;
    logged(&program, APPLIED, 1);
    let answer = get(dir.path(), &format!("/v1/calls/{second}"))?;
    assert_eq!(answer.body["wait_reason"], "paused", "{}", answer.body);
    drop_file(dir.path(), "new.json", &json!({"upstream": "other", "end_point": "/new"}).to_string())?;
    assert_eq!(response(dir.path(), "new.json")["state"], "succeeded");
    // Back with room for one more in the same hour.
    configure(dir.path(), &upstream(&recorder.url(), ", limits: [2/1h]"))?;
    ends(dir.path(), &second, "succeeded");
    let third = post(dir.path(), "/third")?;
    let answer = until("its reason", || {
        get(dir.path(), &format!("/v1/calls/{third}")).ok().filter(|answer| answer.body["wait_reason"] == "rate_limit")
    });
    assert_eq!(answer.body["state"], "queued");
    Ok(())
}

#[test]
fn no_secret_goes_to_where_the_upstream_no_longer_leads() -> Outcome {
    let (old, new) = (Recorder::start(|_, _| Reply::new(200))?, Recorder::start(|_, _| Reply::new(200))?);
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream(&old.url(), ""))?;
    let program = Program::serve(dir.path())?;
    let call = json!({"url": format!("{}/orders", old.url()), "delay": "2s", "retry": 0});
    let answer = post_call(dir.path(), &call)?;
    let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
    configure(dir.path(), &upstream(&new.url(), ", headers: {X-Key: canary}"))?;
    logged(&program, APPLIED, 1);
    ends(dir.path(), &id, "failed");
    let answer = get(dir.path(), &format!("/v1/calls/{id}"))?;
    assert_eq!(answer.body["error"]["kind"], "invalid", "{}", answer.body);
    assert_eq!((old.arrivals().len(), new.arrivals().len()), (0, 0));
    Ok(())
}

/// A connection that stays open over requests.
struct Line {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Line {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    fn head(&mut self, method: &str, path: &str, token: &str, more: &str) -> std::io::Result<()> {
        write!(self.stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nfarcall-token: {token}\r\n{more}\r\n")
    }

    /// The status of the next answer, whose body is read to its end.
    fn status(&mut self) -> Result<u16, Box<dyn std::error::Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let status = line.split_whitespace().nth(1).ok_or("no status")?.parse()?;
        let mut length = 0;
        loop {
            let mut field = String::new();
            self.answers.read_line(&mut field)?;
            match field.trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(_) => {}
                None => break,
            }
        }
        self.answers.read_exact(&mut vec![0; length])?;
        Ok(status)
    }

    fn get(&mut self, token: &str) -> Result<u16, Box<dyn std::error::Error>> {
        self.head("GET", "/v1/calls/call_x", token, "")?;
        self.status()
    }
}

#[test]
fn tokens_and_the_largest_body_change_while_connections_are_open() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let with = |server: &str| format!("server: {{ {server} }}\n{}", upstream(&recorder.url(), ""));
    configure(dir.path(), &with("tokens: [old, kept]"))?;
    let program = Launch::new(dir.path()).listening().serve()?;
    let address = program.address();
    let (mut line, mut begun) = (Line::open(&address)?, Line::open(&address)?);
    assert_eq!((line.get("old")?, line.get("kept")?, line.get("new")?), (404, 404, 401));
    // Let in by a token that goes while its body is on its way.
    let call = json!({"upstream": "api", "end_point": "/begun"}).to_string();
    begun.head("POST", "/v1/calls", "old", &format!("content-length: {}\r\n", call.len()))?;
    begun.stream.write_all(&call.as_bytes()[..5])?;
    pause(Duration::from_millis(100));
    configure(dir.path(), &with("tokens: [kept, new], max_body: 50"))?;
    until("the new token", || line.get("new").ok().filter(|&status| status == 404));
    assert_eq!((line.get("old")?, line.get("kept")?), (401, 404));
    begun.stream.write_all(&call.as_bytes()[5..])?;
    assert_eq!(begun.status()?, 202, "what was let in goes on");
    assert_eq!(begun.get("old")?, 401, "and is judged anew afterwards");
    line.head("POST", "/v1/calls", "new", "content-length: 51\r\n")?;
    assert_eq!(line.status()?, 413);
    // Without tokens everybody who reaches loopback may come in.
    configure(dir.path(), &with("max_body: 1MiB"))?;
    let mut line = Line::open(&address)?;
    until("no token", || line.get("none").ok().filter(|&status| status == 404));
    configure(dir.path(), &with("tokens: [\"${env:FARCALL_NOT_SET}\"]"))?;
    logged(&program, REFUSED, 1);
    assert_eq!(line.get("none")?, 404, "an invalid file changes nothing");
    assert!(!program.log().contains("server.tokens, "), "{}", program.log());
    Ok(())
}

#[test]
fn how_long_files_settle_changes_for_those_that_wait_already() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let with = |settle: &str| format!("inbox: {{ settle: {settle} }}\n{}", upstream(&recorder.url(), ""));
    configure(dir.path(), &with("1h"))?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "bad.json", "{ not yet")?;
    pause(Duration::from_millis(300));
    assert!(dir.path().join("bad.json").exists());
    configure(dir.path(), &with("100ms"))?;
    logged(&program, APPLIED, 1);
    assert_eq!(response(dir.path(), "bad.json")["state"], "rejected");
    Ok(())
}

#[test]
fn a_changed_file_is_applied_within_a_second() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream(&recorder.url(), ""))?;
    let program = Program::serve(dir.path())?;
    let mut changes = 0;
    assert_within(Duration::from_secs(1), "applying a change", || {
        changes += 1;
        let limits = format!(", limits: [{}/1s]", changes + 4);
        configure(dir.path(), &upstream(&recorder.url(), &limits)).expect("the file can be written");
        logged(&program, APPLIED, changes);
    });
    Ok(())
}
