//! Operations on many calls at once.

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::{Reply, bounded};
use crate::upstream::Upstream;

async fn begin(farcall: &Farcall, operation: &Value) -> Reply {
    let text = operation.to_string();
    let length = text.len();
    farcall
        .exchange(&format!("POST /v1/operations HTTP/1.1\nHost: localhost\nContent-Length: {length}\n\n{text}"))
        .await
}

/// Waits until it is over.
async fn done(farcall: &Farcall, begun: &Reply) -> Value {
    assert_eq!(begun.status, 202, "{}", begun.text());
    let path = begun.header("location").expect("its place").to_owned();
    bounded(async {
        loop {
            let operation = farcall.get(&path).await.json();
            if operation["state"] != "running" {
                return operation;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn counts(operation: &Value) -> (&str, u64, u64, u64, u64) {
    let number = |key: &str| operation[key].as_u64().expect("a number");
    let state = operation["state"].as_str().expect("a word");
    (state, number("total"), number("done"), number("skipped"), number("errors"))
}

#[tokio::test]
async fn all_that_a_filter_names_is_cancelled_and_nothing_else() {
    let farcall = Farcall::start().await;
    for n in 0..600 {
        let tag = if n % 2 == 0 { "even" } else { "odd" };
        let document = json!({"url": "http://localhost:1/", "delay": 3600, "tags": [tag]}).to_string();
        assert_eq!(farcall.post_call("", &document).await.status, 202);
    }
    let operation = json!({"action": "cancel", "where": {"tag": "even"}, "dry_run": true});
    let tried = done(&farcall, &begin(&farcall, &operation).await).await;
    assert_eq!((counts(&tried), &tried["dry_run"]), (("done", 300, 0, 0, 0), &json!(true)));
    assert_eq!(farcall.get("/healthz").await.json()["calls"]["cancelled"], 0);
    let operation = json!({"action": "cancel", "where": {"tag": "even"}});
    let cancelled = done(&farcall, &begin(&farcall, &operation).await).await;
    assert_eq!((counts(&cancelled), &cancelled["action"]), (("done", 300, 300, 0, 0), &json!("cancel")));
    assert!(cancelled["finished_at"].is_string());
    let health = farcall.get("/healthz").await.json();
    assert_eq!([&health["calls"]["cancelled"], &health["calls"]["scheduled"]], [&json!(300), &json!(300)]);
    let again = done(&farcall, &begin(&farcall, &operation).await).await;
    assert_eq!(counts(&again), ("done", 0, 0, 0, 0));
}

#[tokio::test]
async fn what_ended_badly_is_made_again() {
    let upstream = Upstream::start("HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let farcall = Farcall::start().await;
    for _ in 0..3 {
        farcall.post_call("", &json!({"url": upstream.url()}).to_string()).await;
    }
    farcall.post_call("", r#"{"url": "http://localhost:1/", "delay": 3600}"#).await;
    farcall.until_ended(3).await;
    let retried = done(&farcall, &begin(&farcall, &json!({"action": "retry", "where": {"source": "api"}})).await).await;
    assert_eq!(counts(&retried), ("done", 3, 3, 0, 0));
    farcall.until_ended(6).await;
    let failed = farcall.get("/v1/calls?state=failed").await.json();
    let retries = failed["data"].as_array().expect("an array").iter().filter(|call| call["retry_of"].is_string());
    assert_eq!(retries.count(), 3);
}

#[tokio::test]
async fn what_cannot_be_stored_is_counted() {
    let upstream = Upstream::start("HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let farcall = Setup::new().start().await;
    farcall.post_call("", &json!({"url": upstream.url()}).to_string()).await;
    farcall.until_ended(1).await;
    farcall.handle().drain().await;
    let operation = json!({"action": "retry", "where": {"state": ["failed", "expired"]}});
    let reply = begin(&farcall, &operation).await;
    let refused = done(&farcall, &reply).await;
    assert_eq!((&refused["state"], &refused["errors"]), (&json!("failed"), &json!(1)), "{refused}");
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("stopping")), "{refused}");
}

#[tokio::test]
async fn an_operation_that_cannot_be_says_what_is_wrong() {
    let farcall = Farcall::start().await;
    let filter = json!({"tag": "x"});
    for (operation, code, key) in [
        (json!({"where": filter}), "invalid_operation", "action"),
        (json!({"action": "delete", "where": filter}), "invalid_operation", "action"),
        (json!({"action": "cancel"}), "invalid_operation", "where"),
        (json!({"action": "cancel", "where": {}}), "invalid_operation", "where"),
        (json!({"action": "cancel", "where": {"limit": "5"}}), "invalid_operation", "limit"),
        (json!({"action": "cancel", "where": {"tag": 5}}), "invalid_operation", "tag"),
        (json!({"action": "cancel", "where": {"colour": 5}}), "invalid_filter", "colour"),
        (json!({"action": "cancel", "where": {"state": ["gone"]}}), "invalid_filter", "state"),
        (json!({"action": "cancel", "where": filter, "dry_run": 1}), "invalid_operation", "dry_run"),
        (json!({"action": "cancel", "where": filter, "colour": 1}), "invalid_operation", "colour"),
    ] {
        let reply = begin(&farcall, &operation).await;
        let problem = reply.json();
        assert_eq!((reply.status, &problem["code"], &problem["key"]), (422, &json!(code), &json!(key)), "{operation}");
    }
    // Which of the two would be meant? One of them is more than the client wanted.
    for (operation, key) in [
        (r#"{"action": "cancel", "action": "retry", "where": {"tag": "x"}}"#, "action"),
        (r#"{"action": "cancel", "where": {"tag": "x", "tag": "y"}}"#, "tag"),
        (r#"{"action": "cancel", "where": {"tag": "x"}, "dry_run": true, "dry_run": false}"#, "dry_run"),
    ] {
        let reply = farcall.send("POST", "/v1/operations", operation).await;
        let problem = reply.json();
        let told = (reply.status, &problem["code"], &problem["key"], &problem["line"]);
        assert_eq!(told, (422, &json!("invalid_operation"), &json!(key), &json!(1)), "{operation}");
    }
    let reply = begin(&farcall, &json!([1])).await;
    let problem = reply.json();
    assert_eq!((reply.status, &problem["code"]), (400, &json!("malformed_document")));
    assert_eq!((&problem["detail"], &problem["column"]), (&json!("an operation is one JSON object"), &json!(1)));
    for path in ["/v1/operations/x", "/v1/operations/op_01902e3c-741e-7a0b-acfc-fc17f4c48c39"] {
        assert_eq!(farcall.get(path).await.status, 404, "{path}");
    }
}
