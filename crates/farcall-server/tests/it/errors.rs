//! Every failure a client can see, provoked once: its status, code, place and headers.

use farcall_store::memory::Trouble;
use serde_json::json;

use crate::farcall::{Farcall, Setup, post};
use crate::http::{Reply, bounded};
use crate::unreadable::{Reading, Unreadable};
use crate::upstream::Upstream;

const NOTHING_TAKEN: &str = "\"intake\";r=0;t=1";
const LATER: &str = r#"{"url": "http://localhost:1", "delay": 3600}"#;

/// A problem document in full: what it says is what the answer's head says.
fn check(reply: &Reply, status: u16, code: &str, key: Option<&str>) {
    let problem = reply.json();
    assert_eq!((reply.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["type"], format!("/docs/problems/{code}"), "{problem}");
    assert_eq!(problem.get("key").and_then(|key| key.as_str()), key, "{problem}");
    for text in ["title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
}

/// When to come back, the same in the head and in the document, and what is used up.
fn come_back(reply: &Reply, seconds: u64, policy: Option<&str>, limit: &str) {
    assert_eq!(reply.header("retry-after"), Some(seconds.to_string().as_str()), "{}", reply.text());
    assert_eq!((reply.header("ratelimit-policy"), reply.header("ratelimit")), (policy, Some(limit)));
    let told_ms = reply.json()["retry_after_ms"].as_u64().expect("a number");
    assert_eq!(told_ms.div_ceil(1_000), seconds, "{}", reply.text());
}

#[tokio::test]
async fn calls_that_cannot_be_accepted_say_why() {
    let farcall = Farcall::start().await;
    let refused = async |headers: &str, document: &str| farcall.post_call(headers, document).await;
    check(&refused("", "").await, 400, "malformed_document", None);
    check(&refused("", "[]").await, 400, "malformed_document", None);
    check(&refused("", "{}").await, 422, "invalid_call", Some("url"));
    check(&refused("", r#"{"url": 7}"#).await, 422, "invalid_call", Some("url"));
    check(&refused("", r#"{"url": "http://a", "colour": 1}"#).await, 422, "invalid_call", Some("colour"));
    check(&refused("", r#"{"url": "http://a", "url": "http://b"}"#).await, 422, "invalid_call", Some("url"));
    check(&refused("", r#"{"url": "http://a", "hedge": {}}"#).await, 501, "not_available_yet", Some("hedge"));
    check(&refused("", r#"{"function": "f"}"#).await, 501, "not_available_yet", Some("function"));

    let media = "unsupported_media_type";
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "x+json", ""]
    {
        let headers = format!("Content-Type: {content_type}\n");
        check(&refused(&headers, LATER).await, 415, media, Some("content-type"));
    }
    let twice = "Content-Type: application/json\nContent-Type: text/plain\n";
    check(&refused(twice, LATER).await, 415, media, Some("content-type"));
    let coded = refused("Content-Encoding: gzip\n", LATER).await;
    check(&coded, 415, "unsupported_content_coding", Some("content-encoding"));
    assert_eq!(coded.header("accept-encoding"), Some("identity"));
    assert_eq!(farcall.get("/healthz").await.json()["accepted"], 0);
}

#[tokio::test]
async fn a_mistake_in_json_is_told_with_line_and_column() {
    let farcall = Farcall::start().await;
    let reply = farcall.post_call("", "{\n  \"url\": \"http://a\",\n  \"é\" 1}").await;
    check(&reply, 400, "malformed_document", None);
    let problem = reply.json();
    assert_eq!([&problem["line"], &problem["column"]], [&json!(3), &json!(7)], "{problem}");
}

#[tokio::test]
async fn keys_that_cannot_be_used_say_so() {
    let farcall = Farcall::start().await;
    let invalid = "invalid_idempotency_key";
    let key = Some("idempotency_key");
    let long = "k".repeat(256);
    for headers in [
        "Idempotency-Key: a\nIdempotency-Key: a\n",
        "Idempotency-Key:\n",
        "Idempotency-Key: a\tb\n",
        &format!("Idempotency-Key: {long}\n"),
    ] {
        check(&farcall.post_call(headers, LATER).await, 422, invalid, key);
    }
    let own = r#"{"url": "http://localhost:1", "delay": 3600, "idempotency_key": "a"}"#;
    check(&farcall.post_call("Idempotency-Key: b\n", own).await, 422, invalid, key);

    assert_eq!(farcall.post_call("Idempotency-Key: a\n", LATER).await.status, 202);
    let other = farcall.post_call("Idempotency-Key: a\n", own).await;
    check(&other, 422, "idempotency_key_reused", key);
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let farcall = Farcall::start().await;
    for path in [
        "/v1/calls/call_01890a5d-ac96-774b-bcce-b302099a8057",
        "/v1/calls/01890a5d-ac96-774b-bcce-b302099a8057/attempts",
        "/v1/calls/call_x",
        "/v1/calls/call_x/attempts",
        "/v1/calls/%ff",
        "/v1/calls/",
        "/v1/calls/a/b",
        "/v1",
        "/V1/calls",
        "/healthz/",
        "/../healthz",
        "//healthz",
    ] {
        check(&farcall.get(path).await, 404, "not_found", None);
    }
    check(&farcall.exchange("OPTIONS * HTTP/1.1\nHost: localhost\n\n").await, 404, "not_found", None);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_there_are() {
    let farcall = Farcall::start().await;
    let checked = async |method: &str, path: &str, allow: &str| {
        let reply = farcall.exchange(&format!("{method} {path} HTTP/1.1\nHost: localhost\n\n")).await;
        check(&reply, 405, "method_not_allowed", None);
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    };
    checked("POST", "/healthz", "GET,HEAD").await;
    checked("DELETE", "/v1/calls", "GET,HEAD,POST").await;
    checked("PUT", "/v1/calls/call_x", "GET,HEAD").await;
    checked("BREW", "/v1/calls/bulk", "POST").await;
    checked("GET", "/v1/calls/x/cancel", "POST").await;
    checked("OPTIONS", "/v1/upstreams/x", "GET,HEAD,PATCH").await;
}

#[tokio::test]
async fn what_later_versions_bring_is_refused_as_such() {
    let farcall = Farcall::start().await;
    for line in [
        "GET /v1/calls/x/log",
        "POST /v1/upstreams/x/permits",
        "GET /proxy/x/a/b",
        "DELETE /proxy/x/",
        "BREW /proxy/x/y",
        "GET /ui/",
        "GET /",
        "GET /function/list/data",
        "POST /terminate/task/x",
    ] {
        let reply = farcall.exchange(&format!("{line} HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n")).await;
        check(&reply, 501, "not_available_yet", None);
    }
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let farcall = Farcall::start().await;
    check(&farcall.exchange("GET /healthz HTTP/1.1\nHost: evil.test\n\n").await, 421, "foreign_host", None);
    let two = "GET /healthz HTTP/1.1\nHost: localhost\nHost: localhost\n\n";
    check(&farcall.exchange(two).await, 400, "malformed_request", Some("host"));
    check(&farcall.exchange("GET /healthz HTTP/1.1\n\n").await, 400, "malformed_request", Some("host"));
    let other = "GET http://evil.test/healthz HTTP/1.1\nHost: localhost\n\n";
    check(&farcall.exchange(other).await, 400, "malformed_request", Some("host"));
    let foreign = farcall.post_call("Origin: http://evil.test\n", LATER).await;
    check(&foreign, 403, "foreign_origin", Some("origin"));
    let foreign = farcall.post_call("Sec-Fetch-Site: cross-site\n", LATER).await;
    check(&foreign, 403, "foreign_origin", Some("sec-fetch-site"));
    assert_eq!(farcall.exchange("GET http://localhost/healthz HTTP/1.1\nHost: localhost\n\n").await.status, 200);
    assert_eq!(farcall.exchange("GET /healthz HTTP/1.0\nHost: localhost\n\n").await.status, 200);
    let connect = farcall.exchange("CONNECT localhost:80 HTTP/1.1\nHost: localhost:80\n\n").await;
    check(&connect, 404, "not_found", None);
}

#[tokio::test]
async fn without_a_token_there_is_no_way_in() {
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = vec!["secret".to_owned()]).start().await;
    let refused = farcall.post_call("Authorization: Bearer wrong\n", LATER).await;
    check(&refused, 401, "unauthorized", None);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"farcall\""));
    check(&farcall.get("/metrics").await, 401, "unauthorized", None);
    assert_eq!(farcall.get("/healthz").await.status, 200);
    assert_eq!(farcall.post_call("Authorization: Bearer secret\n", LATER).await.status, 202);
}

#[tokio::test]
async fn bodies_have_a_limit_each_and_together() {
    let limited = |setup: &mut Setup| {
        setup.config.server.max_body = 4_096;
        setup.options.bodies_bytes_max = 4_096;
        setup.options.body_timeout = std::time::Duration::from_millis(200);
    };
    let farcall = Setup::new().with(limited).start().await;
    let large = format!("{LATER}{}", " ".repeat(4_096));
    let refused = farcall.post_call("", &large).await;
    check(&refused, 413, "body_too_large", None);
    assert_eq!(refused.header("connection"), Some("close"));
    let unread = "POST /v1/calls HTTP/1.1\nHost: localhost\nContent-Length: 99999999999\n\n";
    check(&farcall.exchange(unread).await, 413, "body_too_large", None);
    let chunk =
        format!("POST /v1/calls HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n1400\n{}", " ".repeat(0x1400));
    check(&farcall.exchange(&chunk).await, 413, "body_too_large", None);

    let mut slow = farcall.connect().await;
    slow.send("POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4096\r\n\r\n")
        .await;
    assert_eq!(slow.reply().await.status, 100);
    let busy = farcall.post_call("", LATER).await;
    check(&busy, 503, "busy", None);
    come_back(&busy, 1, Some("\"bodies\";q=4096;qu=\"content-bytes\""), "\"bodies\";r=0;t=1");
    check(&slow.reply().await, 408, "request_timeout", None);
    assert_eq!(farcall.post_call("", LATER).await.status, 202);
}

#[tokio::test]
async fn a_store_without_space_refuses_calls() {
    let farcall = Setup::new().with_free_bytes(1_000).start().await;
    let full = farcall.post_call("", LATER).await;
    check(&full, 507, "storage_full", None);
    come_back(&full, 1, None, NOTHING_TAKEN);
}

#[tokio::test]
async fn a_store_that_fails_refuses_calls() {
    let farcall = Setup::new().with_trouble(Trouble::Broken).start().await;
    let failed = farcall.post_call("", LATER).await;
    check(&failed, 503, "store_failed", None);
    // As long again as it was waited for.
    let seconds = failed.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("a number");
    assert!((5..60).contains(&seconds), "{seconds}");
    come_back(&failed, seconds, None, &format!("\"intake\";r=0;t={seconds}"));
    let again = farcall.post_call("", LATER).await;
    check(&again, 503, "store_failed", None);
}

#[tokio::test]
async fn a_commit_that_finds_no_space_refuses_its_calls() {
    let farcall = Setup::new().with_trouble(Trouble::Full).start().await;
    for _ in 0..2 {
        let full = farcall.post_call("", LATER).await;
        check(&full, 507, "storage_full", None);
        come_back(&full, 1, None, NOTHING_TAKEN);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_says_so() {
    let farcall = Setup::new().with(|setup| setup.store = Box::new(Unreadable::new(Reading::Fails))).start().await;
    let accepted = farcall.post_call("", LATER).await;
    let id = accepted.header("farcall-call-id").expect("it is accepted all the same").to_owned();
    assert_eq!((accepted.status, &accepted.json()["state"]), (202, &json!("scheduled")), "told from memory");
    let awaited = farcall.post_call("Prefer: wait=0\n", LATER).await;
    let id_alone = json!({"id": awaited.header("farcall-call-id").expect("it is accepted, too")});
    assert_eq!((awaited.status, awaited.json()), (202, id_alone), "and it stays accepted");
    for path in [format!("/v1/calls/{id}"), format!("/v1/calls/{id}/attempts")] {
        let reply = farcall.get(&path).await;
        check(&reply, 503, "store_failed", None);
        come_back(&reply, 1, None, NOTHING_TAKEN);
    }
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
    let farcall = Setup::new().with(|setup| setup.store = Box::new(Unreadable::new(Reading::Panics))).start().await;
    let mut client = farcall.connect().await;
    for _ in 0..5 {
        client.send("GET /v1/calls/01890a5d-ac96-774b-bcce-b302099a8057 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let reply = client.reply().await;
        check(&reply, 500, "internal", None);
        assert!(!reply.text().contains("a bad row"), "what went wrong inside stays inside");
    }
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_draining_engine_refuses_calls_until_it_is_gone() {
    let drains = |setup: &mut Setup| setup.config.server.drain_timeout = std::time::Duration::from_secs(300);
    let farcall = Setup::new().with(drains).start().await;
    farcall.handle().drain().await;
    let refused = farcall.post_call("", LATER).await;
    check(&refused, 503, "draining", None);
    come_back(&refused, 300, None, "\"intake\";r=0;t=300");
    let unready = farcall.get("/readyz").await;
    assert_eq!((unready.status, unready.header("retry-after")), (503, Some("300")));
    assert_eq!(farcall.get("/healthz").await.header("retry-after"), None);
}

#[tokio::test]
async fn more_bulk_requests_than_there_is_room_for_are_refused() {
    let farcall = Farcall::start().await;
    let head = "POST /v1/calls/bulk HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    let mut under_way = Vec::new();
    for _ in 0..16 {
        let mut client = farcall.connect().await;
        client.send(head).await;
        assert_eq!(client.head().await.status, 100, "it is being served");
        under_way.push(client);
    }
    let busy = farcall.send("POST", "/v1/calls/bulk", LATER).await;
    check(&busy, 503, "busy", None);
    come_back(&busy, 1, Some("\"bulk\";q=16;qu=\"concurrent-requests\""), "\"bulk\";r=0;t=1");
    drop(under_way.pop());
    let served = async { while farcall.send("POST", "/v1/calls/bulk", LATER).await.status != 200 {} };
    bounded(served).await;
}

#[tokio::test]
async fn more_operations_than_there_is_room_for_are_refused() {
    let (store, open) = Unreadable::gated();
    let farcall = Setup::new().with(|setup| setup.store = Box::new(store)).start().await;
    let cancel = r#"{"action": "cancel", "where": {"state": "queued"}}"#;
    for _ in 0..16 {
        assert_eq!(farcall.send("POST", "/v1/operations", cancel).await.status, 202);
    }
    let busy = farcall.send("POST", "/v1/operations", cancel).await;
    check(&busy, 503, "busy", None);
    come_back(&busy, 1, Some("\"operations\";q=16;qu=\"concurrent-requests\""), "\"operations\";r=0;t=1");
    drop(open);
    let begun = async { while farcall.send("POST", "/v1/operations", cancel).await.status != 202 {} };
    bounded(begun).await;
}

#[tokio::test]
async fn problems_lead_to_what_is_said_of_them() {
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = vec!["secret".to_owned()]).start().await;
    let refused = farcall.get("/v1/calls").await;
    check(&refused, 401, "unauthorized", None);
    let text = async |path: String| {
        let reply = farcall.get(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/plain; charset=utf-8")), "{path}");
        reply.text()
    };
    let all = text("/docs/problems".to_owned()).await;
    let one = text(refused.json()["type"].as_str().expect("a path").to_owned()).await;
    assert!(one.starts_with("unauthorized (401)") && all.contains(&one) && one.len() < 1_000, "{one}");
    check(&farcall.get("/docs/problems/none").await, 404, "not_found", None);
    check(&farcall.get("/docs/problems/%ff").await, 404, "not_found", None);
}

#[tokio::test]
async fn what_is_not_http_is_answered_and_closed() {
    let farcall = Farcall::start().await;
    let checked = async |request: &str, status: u16| {
        let mut client = farcall.connect().await;
        client.send(request.replace('\n', "\r\n")).await;
        let reply = client.reply().await;
        check(&reply, status, if status == 400 { "malformed_request" } else { "head_too_large" }, None);
        assert_eq!(reply.header("connection"), Some("close"), "{}", &request[..request.len().min(80)]);
        assert_eq!(client.rest().await, b"");
    };
    checked("POST /v1/calls HTTP/1.1\nHost: localhost\nContent-Length: +5\n\n{}   ", 400).await;
    checked("POST /v1/calls HTTP/1.1\nHost: localhost\nContent-Length: 2\nContent-Length: 3\n\n{} ", 400).await;
    checked("POST /v1/calls HTTP/1.1\nHost: localhost\nTransfer-Encoding: gzip\n\n{}", 400).await;
    checked("GET /healthz HTTP/1.1\nHost : localhost\n\n", 400).await;
    checked("GET /healthz HTTP/1.1\n Host: localhost\n\n", 400).await;
    checked("GET  /healthz HTTP/1.1\nHost: localhost\n\n", 400).await;
    checked("hello\n\n", 400).await;
    let field = format!("X: {}\n", "x".repeat(60_000));
    checked(&format!("GET /healthz HTTP/1.1\nHost: localhost\n{field}{field}\n"), 431).await;
    let fields = "X: y\n".repeat(101);
    checked(&format!("GET /healthz HTTP/1.1\nHost: localhost\n{fields}\n"), 431).await;
    checked(&format!("GET /{} HTTP/1.1\nHost: localhost\n\n", "x".repeat(70_000)), 431).await;
    let metrics = farcall.get("/metrics").await.text();
    assert!(metrics.contains("farcall_http_requests_total{route=\"none\",status=\"431\"} 3"), "they are counted");
}

#[tokio::test]
async fn what_follows_an_answer_and_is_not_http_is_answered_too() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    check(&client.reply().await, 400, "malformed_request", None);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn an_answer_that_reads_like_hypers_last_word_is_left_as_it_is() {
    let body = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let upstream = Upstream::start(answer).await;
    let farcall = Farcall::start().await;
    let call = farcall.post_call("Prefer: wait=30\n", &format!("{{\"url\": \"{}\"}}", upstream.url())).await;
    let mut client = farcall.connect().await;
    for _ in 0..3 {
        let path = format!("{}/response", call.header("location").expect("a place"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(client.reply().await.text(), body);
    }
}

#[test]
fn posts_say_their_length() {
    assert_eq!(
        post("A: b\n", "{}"),
        "POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    );
}
