//! What the client sends and how it takes answers, seen by a server that only pretends: pages, refusals, odd answers.

use serde_json::{Value, json};

use super::{NOBODY, Outcome, client, lines};
use crate::rig::recorder::{Arrival, Recorder, Reply};

fn reply(status: u16, body: &Value) -> Reply {
    Reply { body: body.to_string(), ..Reply::new(status) }
}

fn problem(status: u16, code: &str, detail: &str) -> Reply {
    let headers = vec![("content-type", "application/problem+json".to_owned())];
    let body = json!({"type": "about:blank", "title": "No", "status": status, "code": code, "detail": detail});
    Reply { headers, ..reply(status, &body) }
}

fn call(number: usize) -> Value {
    let id = format!("call_019aa0c1-0000-7000-8000-{number:012}");
    json!({"id": id, "state": "queued", "method": "GET", "url": "http://localhost/", "attempts": 0,
        "accepted_at": "2026-11-20T09:00:00.000Z", "wait_reason": "rate_limit", "next_at": "2026-11-20T10:00:00.000Z"})
}

/// A parameter of a request's query.
fn parameter<'a>(arrival: &'a Arrival, name: &str) -> Option<&'a str> {
    let (_, query) = arrival.path.split_once('?')?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name)).map(|(_, value)| value)
}

/// A server with so many calls, in pages of its own size at most. Now and then a page has nothing on it.
fn with_calls(count: usize, page_max: usize) -> std::io::Result<Recorder> {
    Recorder::start(move |arrival, _| {
        let cursor = parameter(arrival, "cursor").unwrap_or("0");
        let first: usize = cursor.trim_start_matches("empty").parse().unwrap_or(0);
        let limit: usize = parameter(arrival, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(50);
        if let Ok(2_000) = cursor.parse() {
            return reply(200, &json!({"data": [], "next_cursor": "empty2000", "has_more": true}));
        }
        let end = count.min(first + limit.min(page_max));
        let data: Vec<_> = (first..end).map(call).collect();
        let next = (end < count).then(|| end.to_string());
        reply(200, &json!({"data": data, "next_cursor": next, "has_more": next.is_some()}))
    })
}

#[test]
fn list_follows_cursors_up_to_its_limit() -> Outcome {
    let server = with_calls(2_500, 1_000)?;
    let url = server.url();
    let list = |flags: &str| client(&format!("list {flags}"), &["--server", &url]);
    let count = |flags: &str| Ok::<_, std::io::Error>(list(flags)?.stdout.lines().count());
    assert_eq!(count("")?, 50);
    assert_eq!(count("--limit 1200")?, 1_200);
    assert_eq!(count("--all")?, 2_500);
    assert_eq!(count("--all --cursor 2400 -q")?, 100);
    let limits: Vec<_> = server.arrivals().iter().map(|a| parameter(a, "limit").map(str::to_owned)).collect();
    assert_eq!(
        limits.iter().flatten().collect::<Vec<_>>(),
        ["50", "1000", "200", "1000", "1000", "1000", "1000", "1000"]
    );

    let first = list("--limit 3")?;
    assert!(first.stderr.contains("--cursor 3"), "{}", first.stderr);
    assert_eq!(list("--limit 3 -q")?.stderr, "");
    let whole: Value = serde_json::from_str(&list("--limit 1100 --output json")?.stdout)?;
    assert_eq!(whole.as_array().map(Vec::len), Some(1_100), "one document over pages");
    Ok(())
}

#[test]
fn an_empty_list_is_no_failure_in_any_form() -> Outcome {
    let server = with_calls(0, 1_000)?;
    for (flags, printed, told) in
        [("", "", ""), ("--output json", "[]\n", ""), ("--output table", "", "no calls\n"), ("-q", "", "")]
    {
        let finished = client(&format!("list {flags}"), &["--server", &server.url()])?;
        assert_eq!((finished.code, finished.stdout.as_str(), finished.stderr.as_str()), (Some(0), printed, told));
    }
    Ok(())
}

#[test]
fn filters_are_sent_as_they_are_named() -> Outcome {
    let server = with_calls(1, 1_000)?;
    let line = "list --state failed --upstream a&b --tag x=y --source api --since 2026-11-20T09:00:00Z --until 1h";
    assert_eq!(client(line, &["--server", &server.url()])?.code, Some(0));
    let arrivals = server.arrivals();
    let sent = |name: &str| parameter(&arrivals[0], name);
    assert_eq!((sent("state"), sent("upstream"), sent("tag")), (Some("failed"), Some("a%26b"), Some("x%3Dy")));
    assert_eq!((sent("source"), sent("since")), (Some("api"), Some("2026-11-20T09%3A00%3A00Z")));
    assert!(sent("until").is_some_and(|until| until.ends_with("Z") && until.starts_with("20")), "{arrivals:?}");
    Ok(())
}

#[test]
fn a_table_of_calls_says_why_they_wait() -> Outcome {
    let server = with_calls(2, 1_000)?;
    let table = client("list --output table", &["--server", &server.url()])?.stdout;
    let rows: Vec<_> = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows[0], "id state status attempts upstream request accepted why");
    let why = "2026-11-20T09:00:00Z rate_limit until 2026-11-20T10:00:00Z";
    assert_eq!(rows[1], format!("call_019aa0c1-0000-7000-8000-000000000000 queued 0 GET http://localhost/ {why}"));
    Ok(())
}

#[test]
fn what_is_refused_for_one_call_stops_no_other() -> Outcome {
    let server = Recorder::start(|arrival, _| match arrival.path.as_str() {
        path if path.contains("000000000001") => problem(409, "already_ended", "the call ended long ago"),
        path if path.contains("000000000002") => problem(404, "not_found", "there is no call of this id"),
        _ => reply(202, &json!({"id": "call_new", "state": "running", "cancel_requested": true})),
    })?;
    let id = |number: usize| call(number)["id"].as_str().unwrap_or_default().to_owned();
    for action in ["cancel", "retry"] {
        let line = format!("{action} {} {} {} {}", id(0), id(1), id(2), id(3));
        let finished = client(&line, &["--server", &server.url()])?;
        assert_eq!(finished.code, Some(4), "that of the first one refused");
        assert_eq!(lines(&finished.stdout).len(), 2, "{}", finished.stdout);
        for part in ["the call ended long ago: 409 already_ended (POST /v1/calls/", "404 not_found"] {
            assert!(finished.stderr.contains(part), "{}", finished.stderr);
        }
        let finished = client(&format!("{action} {} -q", id(0)), &["--server", &server.url()])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "call_new\n"));
        let unknown = client(&format!("{action} order-17 {}", id(0)), &["--server", &server.url()])?;
        assert_eq!((unknown.code, lines(&unknown.stdout).len()), (Some(3), 1), "{}", unknown.stderr);
    }
    let arrivals = server.arrivals();
    assert_eq!(arrivals[0].path, format!("/v1/calls/{}/cancel", id(0)));
    assert_eq!((arrivals[0].method.as_str(), arrivals[0].header("content-length")), ("POST", Some("0")));
    Ok(())
}

#[test]
fn filters_let_the_server_do_it_to_all_that_fit() -> Outcome {
    let server = Recorder::start(|arrival, before| {
        let errors = i32::from(arrival.path.ends_with("op_2"));
        let id = if String::from_utf8_lossy(&arrival.body).contains("retry") || errors > 0 { "op_2" } else { "op_1" };
        let state = if arrival.method == "GET" && before > 2 { "done" } else { "running" };
        reply(202, &json!({"id": id, "state": state, "total": 3, "done": 3, "errors": errors}))
    })?;
    let url = server.url();
    let cancel = client("cancel --state queued,scheduled --tag a&b --since 2026-11-20T09:00:00Z", &["--server", &url])?;
    assert_eq!((cancel.code, lines(&cancel.stdout)[0]["state"].as_str()), (Some(0), Some("done")), "{}", cancel.stderr);
    {
        let arrivals = server.arrivals();
        let paths: Vec<_> = arrivals.iter().map(|arrival| format!("{} {}", arrival.method, arrival.path)).collect();
        let asked = "GET /v1/operations/op_1".to_owned();
        assert_eq!(paths, ["POST /v1/operations".to_owned(), asked.clone(), asked.clone(), asked]);
        let filters = json!({"state": "queued,scheduled", "tag": "a&b", "since": "2026-11-20T09:00:00Z"});
        let expected = json!({"action": "cancel", "where": filters, "dry_run": false});
        assert_eq!(serde_json::from_slice::<Value>(&arrivals[0].body)?, expected);
    }
    let retry = client("retry --upstream shop --dry-run -q", &["--server", &url])?;
    assert_eq!((retry.code, retry.stdout.as_str()), (Some(1), "op_2\n"), "one could not be");
    for line in ["cancel", "retry ID --state failed", "cancel ID --dry-run", "retry --dry-run"] {
        let finished = client(&line.replace("ID", NOBODY), &["--server", &url])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{line}");
    }
    Ok(())
}

#[test]
fn what_a_later_version_brings_is_refused_with_2_in_the_servers_words() -> Outcome {
    let server = Recorder::start(|_, _| problem(501, "not_available_yet", "this is not available yet"))?;
    for line in ["list", "cancel ID", "retry ID", "explain ID", "get ID --response", "upstreams", "upstreams pause x"] {
        let finished = client(&line.replace("ID", NOBODY), &["--server", &server.url()])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{line}");
        assert!(finished.stderr.contains("this is not available yet: 501 not_available_yet"), "{}", finished.stderr);
    }
    Ok(())
}

#[test]
fn a_server_that_cannot_serve_now_is_6() -> Outcome {
    for (status, code) in [(503, "busy"), (507, "storage_full"), (500, "internal")] {
        let server = Recorder::start(move |_, _| problem(status, code, "not now"))?;
        assert_eq!(client("list", &["--server", &server.url()])?.code, Some(6), "{status}");
    }
    Ok(())
}

#[test]
fn an_answers_body_comes_as_it_is() -> Outcome {
    let server = Recorder::start(|_, _| Reply { body: "a\u{0}\r\n{ \u{1b}é".to_owned(), ..Reply::new(200) })?;
    let finished = client(&format!("get {NOBODY} --response"), &["--server", &server.url()])?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "a\u{0}\r\n{ \u{1b}é"));
    assert_eq!(server.arrivals()[0].path, format!("/v1/calls/{NOBODY}/response"));
    Ok(())
}

#[test]
fn nothing_of_an_upstreams_moves_the_cursor() -> Outcome {
    let server = Recorder::start(|_, _| {
        reply(200, &json!({"id": NOBODY, "error": {"message": "\u{1b}[2J"}, "body": "a\n\u{1b}]0;x\u{7}b"}))
    })?;
    let finished = client(&format!("get {NOBODY} --output table"), &["--server", &server.url()])?;
    assert_eq!(finished.stdout.chars().filter(|c| c.is_control() && *c != '\n').count(), 0, "{}", finished.stdout);
    assert!(finished.stdout.ends_with("\na\n\\u{1b}]0;x\\u{7}b\n"), "{}", finished.stdout);
    Ok(())
}

#[test]
fn upstreams_are_paused_resumed_and_changed() -> Outcome {
    let server = Recorder::start(|arrival, _| match arrival.path.as_str() {
        "/v1/upstreams" => reply(200, &json!({"data": [{"name": "etsy"}, {"name": "shop"}]})),
        path if path.contains("nobody") => problem(404, "not_found", "there is no upstream of this name"),
        _ => reply(200, &json!({"name": "etsy", "paused": true})),
    })?;
    let upstreams = |line: &str| client(&format!("upstreams {line}"), &["--server", &server.url()]);
    for line in ["", "list"] {
        assert_eq!(upstreams(&format!("{line} -q"))?.stdout, "etsy\nshop\n");
    }
    assert_eq!(lines(&upstreams("show etsy")?.stdout)[0]["name"], "etsy");
    assert_eq!(upstreams("pause etsy a/b")?.code, Some(0));
    assert_eq!(upstreams("resume etsy nobody")?.code, Some(3));
    assert_eq!(upstreams("set etsy rate_second=5 timeout=10s smooth=true limits=[\"5/1s\"]")?.code, Some(0));
    assert_eq!(upstreams("set etsy rate_second=5 rate_second=6")?.code, Some(2));
    assert_eq!(upstreams("set etsy")?.code, Some(2));

    let arrivals = server.arrivals();
    let sent: Vec<_> = arrivals[2..].iter().map(|arrival| format!("{} {}", arrival.method, arrival.path)).collect();
    let expected = ["GET /v1/upstreams/etsy", "POST /v1/upstreams/etsy/pause", "POST /v1/upstreams/a%2Fb/pause"];
    assert_eq!(sent[..3], expected);
    assert_eq!(sent[5..], ["PATCH /v1/upstreams/etsy"]);
    let patch = arrivals.last().expect("it came");
    assert_eq!(patch.header("content-type"), Some("application/json"));
    let expected = json!({"rate_second": 5, "timeout": "10s", "smooth": true, "limits": ["5/1s"]});
    assert_eq!(serde_json::from_slice::<Value>(&patch.body)?, expected);
    Ok(())
}
