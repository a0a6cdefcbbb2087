//! Server-sent events: what happens to any call, and one call to its end.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::farcall::Farcall;
use crate::http::Client;
use crate::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

pub(crate) async fn follow(farcall: &Farcall, path: &str) -> Client<TcpStream> {
    let mut client = farcall.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    client
}

/// Name and data of the next event.
pub(crate) async fn event(client: &mut Client<TcpStream>) -> Option<(String, Value)> {
    let text = String::from_utf8(client.chunk().await?).expect("events are text");
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    Some((field("event:"), serde_json::from_str(&field("data:")).expect("data is JSON")))
}

#[tokio::test]
async fn everything_that_happens_is_told_in_order() {
    let upstream = Upstream::start(OK).await;
    let farcall = Farcall::start().await;
    let mut client = follow(&farcall, "/v1/events").await;
    let document = json!({"url": upstream.url()}).to_string();
    let id = farcall.post_call("", &document).await.header("farcall-call-id").expect("an id").to_owned();
    let mut told = Vec::new();
    for _ in 0..3 {
        let (name, data) = event(&mut client).await.expect("an event");
        assert_eq!((&data["id"], &data["upstream"]), (&json!(id), &Value::Null));
        assert!(data["at"].as_str().is_some_and(|at| at.ends_with('Z')));
        told.push((name, data["state"].clone(), data.get("attempt").cloned(), data.get("status").cloned()));
    }
    let word = |name: &str, state: &str| (name.to_owned(), json!(state));
    let (accepted, started, ended) =
        (word("accepted", "queued"), word("started", "running"), word("ended", "succeeded"));
    let expected = [
        (accepted.0, accepted.1, None, None),
        (started.0, started.1, Some(json!(1)), None),
        (ended.0, ended.1, None, Some(json!(200))),
    ];
    assert_eq!(told, expected);
    farcall.handle().drain().await;
    assert_eq!(event(&mut client).await, None, "it ends when farcall stops");
}

#[tokio::test]
async fn a_retry_is_told_with_its_time() {
    let upstream = Upstream::start("HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let farcall = Farcall::start().await;
    let mut client = follow(&farcall, "/v1/events").await;
    let document = json!({"url": upstream.url(), "retry": {"max": 1, "wait": 3600}}).to_string();
    assert_eq!(farcall.post_call("", &document).await.status, 202);
    let mut last = event(&mut client).await.expect("an event");
    while last.0 != "waiting" {
        last = event(&mut client).await.expect("an event");
    }
    assert_eq!((&last.1["state"], &last.1["status"]), (&json!("retrying"), &json!(500)));
    assert!(last.1["next_at"].is_string());
}

#[tokio::test]
async fn one_call_is_followed_to_its_end() {
    let (upstream, gate) = Upstream::gated(OK).await;
    let farcall = Farcall::start().await;
    let document = json!({"url": upstream.url()}).to_string();
    let id = farcall.post_call("", &document).await.header("farcall-call-id").expect("an id").to_owned();
    upstream.until_asked(1).await;
    let mut client = follow(&farcall, &format!("/v1/calls/{id}/events")).await;
    let (name, call) = event(&mut client).await.expect("the call as it is");
    assert_eq!((name.as_str(), &call["id"], &call["state"]), ("call", &json!(id), &json!("running")));
    // Another's events are not told.
    farcall.post_call("", r#"{"url": "http://localhost:1/", "delay": 3600}"#).await;
    gate.send(()).expect("the upstream waits");
    let (_, call) = event(&mut client).await.expect("its end");
    assert_eq!(call["state"], "succeeded");
    assert_eq!(event(&mut client).await, None);
    let mut ended = follow(&farcall, &format!("/v1/calls/{id}/events")).await;
    assert_eq!(event(&mut ended).await.expect("its end").1["state"], "succeeded");
    assert_eq!(event(&mut ended).await, None);
    assert_eq!(farcall.get("/v1/calls/x/events").await.status, 404);
}
