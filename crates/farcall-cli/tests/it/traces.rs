//! The trace that a call belongs to, from whoever sends it to the upstream: over retries, kill -9, bulk, redirects,
//! callbacks and calls made again, and in the log.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::rig::program::{Program, get, send_raw};
use crate::rig::recorder::{Arrival, Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
const STATE: &str = "tracestate: rojo=00f067aa0ba902b7\r\ntracestate: congo=t61rcWkgMzE\r\n";

fn configure(dir: &Path, upstream: &Recorder, keys: &str) -> std::io::Result<()> {
    let text = format!("upstreams:\n  shop: {{ base_url: \"{}/shop\", retry: 3, wait: 50ms{keys} }}\n", upstream.url());
    fs::write(dir.join("farcall.yml"), text)
}

/// Posts to a path with these headers; the id of the call.
fn post(dir: &Path, target: &str, headers: &str, body: &str) -> Outcome<String> {
    let headers = format!("{headers}content-type: application/json\r\n");
    let (head, body) = send_raw(dir, target, &headers, body)?;
    let is_accepted = ["HTTP/1.1 202", "HTTP/1.1 200"].iter().any(|status| head.starts_with(status));
    assert!(is_accepted, "{head} {body}");
    let line = body.lines().find(|line| line.starts_with("{\"id\"")).ok_or("an answer")?;
    let answer: Value = serde_json::from_str(line)?;
    Ok(answer["id"].as_str().ok_or("an id")?.to_owned())
}

/// Arrivals at a path, once there are so many.
fn arrived(upstream: &Recorder, path: &str, count: usize) -> Vec<Arrival> {
    until(&format!("{count} arrivals at {path}"), || {
        let arrivals: Vec<Arrival> = upstream.arrivals().iter().filter(|one| one.path == path).cloned().collect();
        (arrivals.len() >= count).then_some(arrivals)
    })
}

/// Trace, span and flags that a request tells of.
#[track_caller]
fn told(arrival: &Arrival) -> (String, String, String) {
    let text = arrival.header("traceparent").expect("a declared upstream is told");
    let parts: Vec<&str> = text.split('-').collect();
    assert!(parts.len() == 4 && parts[0] == "00" && parts[2] != "0000000000000000", "{text}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[test]
fn a_trace_is_continued_by_every_attempt_also_after_a_kill() -> Outcome {
    let upstream = Recorder::start(|_, count| Reply::new(if count < 2 { 503 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream, "")?;
    let program = Program::serve(dir.path())?;
    post(dir.path(), "POST /v1/calls", &format!("{PARENT}{STATE}"), r#"{"upstream": "shop", "end_point": "/a"}"#)?;
    let later = r#"{"upstream": "shop", "end_point": "/later", "delay": "2s"}"#;
    post(dir.path(), "POST /v1/calls", &format!("{PARENT}{STATE}"), later)?;
    let tries = arrived(&upstream, "/shop/a", 3);
    // What is only on disk goes on as well.
    program.kill()?;
    let _program = Program::serve(dir.path())?;
    let after = arrived(&upstream, "/shop/later", 1);
    let mut spans = Vec::new();
    for arrival in tries.iter().chain(&after) {
        let (trace, span, flags) = told(arrival);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"), "{arrival:?}");
        assert_eq!(arrival.header("tracestate"), Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        assert_ne!(span, "00f067aa0ba902b7", "each attempt is a span of its own");
        spans.push(span);
    }
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), 4, "no two share a span");
    Ok(())
}

#[test]
fn a_malformed_trace_is_ignored_and_the_call_begins_its_own() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream, "")?;
    let _program = Program::serve(dir.path())?;
    let wrong = [
        "traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01\r\n",
        "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01\r\n",
        "traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "traceparent: nonsense\r\n",
        &PARENT.repeat(2),
        "",
    ];
    for (n, headers) in wrong.iter().enumerate() {
        let path = format!("/shop/{n}");
        let body = format!(r#"{{"upstream": "shop", "end_point": "/{n}"}}"#);
        let id = post(dir.path(), "POST /v1/calls", &format!("{headers}{STATE}"), &body)?;
        let arrival = arrived(&upstream, &path, 1).remove(0);
        let own = id.trim_start_matches("call_").replace('-', "");
        assert_eq!((told(&arrival).0, told(&arrival).2), (own, "00".to_owned()), "{headers}");
        assert_eq!(arrival.header("tracestate"), None, "a state without its trace means nothing");
    }
    Ok(())
}

#[test]
fn a_trace_goes_wherever_the_call_goes_and_to_nobody_undeclared() -> Outcome {
    let upstream = Recorder::start(|arrival, _| {
        let moved = Reply::new(307);
        match arrival.path.as_str() {
            "/shop/moved" => Reply { headers: vec![("location", "/shop/there".to_owned())], ..moved },
            _ => Reply::new(200),
        }
    })?;
    let dir = tempfile::tempdir()?;
    let hook = format!(", redirects: 1, callback_success: {{ url: \"{}/shop/hook\" }}", upstream.url());
    configure(dir.path(), &upstream, &hook)?;
    let _program = Program::serve(dir.path())?;
    let id = post(dir.path(), "POST /v1/calls", PARENT, r#"{"upstream": "shop", "end_point": "/moved"}"#)?;
    for path in ["/shop/moved", "/shop/there", "/shop/hook"] {
        assert_eq!(told(&arrived(&upstream, path, 1)[0]).0, TRACE, "{path}");
    }
    // Made again it belongs to the same, unless whoever asks for that brings another.
    let again = format!("POST /v1/calls/{id}/retry");
    post(dir.path(), &again, "", "")?;
    post(dir.path(), &again, &PARENT.replace("4bf9", "aaaa"), "")?;
    let traces: Vec<String> = arrived(&upstream, "/shop/moved", 3).iter().map(|one| told(one).0).collect();
    assert_eq!(traces, [TRACE, TRACE, &TRACE.replace("4bf9", "aaaa")]);

    let lines =
        "{\"upstream\": \"shop\", \"end_point\": \"/one\"}\n{\"upstream\": \"shop\", \"end_point\": \"/two\"}\n";
    post(dir.path(), "POST /v1/calls/bulk", PARENT, lines)?;
    for path in ["/shop/one", "/shop/two"] {
        assert_eq!(told(&arrived(&upstream, path, 1)[0]).0, TRACE, "{path}");
    }

    let undeclared = format!(r#"{{"url": "{}/elsewhere"}}"#, upstream.url());
    post(dir.path(), "POST /v1/calls", &format!("{PARENT}{STATE}"), &undeclared)?;
    let arrival = arrived(&upstream, "/elsewhere", 1).remove(0);
    assert_eq!((arrival.header("traceparent"), arrival.header("tracestate")), (None, None));

    // A file brings one in its own headers, which are sent as they stand there.
    let own = r#"{"upstream": "shop", "end_point": "/file", "headers": {"Traceparent": "00-mine"}}"#;
    drop_file(dir.path(), "order.json", own)?;
    response(dir.path(), "order.json");
    assert_eq!(arrived(&upstream, "/shop/file", 1)[0].header("traceparent"), Some("00-mine"));
    Ok(())
}

#[test]
fn what_goes_wrong_is_logged_with_its_trace() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(400))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &upstream, "")?;
    let program = Program::serve(dir.path())?;
    let call = r#"{"upstream": "shop", "end_point": "/bad"}"#;
    let traced = post(dir.path(), "POST /v1/calls", PARENT, call)?;
    let plain = post(dir.path(), "POST /v1/calls", "", call)?;
    let own = plain.trim_start_matches("call_").replace('-', "");
    for (id, trace) in [(&traced, TRACE), (&plain, own.as_str())] {
        let line = until("the log to tell of it", || {
            program
                .log()
                .lines()
                .find(|line| line.contains("a call ended") && line.contains(id.as_str()))
                .map(str::to_owned)
        });
        assert!(line.contains(&format!("trace_id={trace}")), "{line}");
        // What is logged may be a commit ahead of what is told.
        until("its end", || {
            get(dir.path(), &format!("/v1/calls/{id}")).ok().filter(|call| call.body["state"] == "failed")
        });
    }
    Ok(())
}
