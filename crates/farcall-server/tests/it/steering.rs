//! Cancelling calls, making them again, waiting for them, and their answers' own bytes.

use serde_json::{Value, json};

use crate::farcall::{Farcall, post};
use crate::http::Reply;
use crate::upstream::Upstream;

const LATER: &str = r#"{"url": "http://localhost:1/", "delay": 3600}"#;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

async fn act(farcall: &Farcall, headers: &str, path: &str) -> Reply {
    farcall.exchange(&format!("POST {path} HTTP/1.1\nHost: localhost\n{headers}Content-Length: 0\n\n")).await
}

async fn accepted(farcall: &Farcall, document: &str) -> String {
    let reply = farcall.post_call("", document).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.header("farcall-call-id").expect("an id").to_owned()
}

fn check_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_waiting_call_is_cancelled_for_good() {
    let farcall = Farcall::start().await;
    let id = accepted(&farcall, LATER).await;
    let reply = act(&farcall, "", &format!("/v1/calls/{id}/cancel")).await;
    assert_eq!((reply.status, &reply.json()["state"], &reply.json()["id"]), (200, &json!("cancelled"), &json!(id)));
    assert_eq!(reply.header("farcall-call-id"), Some(id.as_str()));
    assert_eq!(farcall.get(&format!("/v1/calls/{id}")).await.json(), reply.json());
    check_problem(&act(&farcall, "", &format!("/v1/calls/{id}/cancel")).await, 409, "already_ended");
    let unknown = "/v1/calls/call_01902e3c-741e-7a0b-acfc-fc17f4c48c39/cancel";
    check_problem(&act(&farcall, "", unknown).await, 404, "not_found");
    check_problem(&act(&farcall, "", "/v1/calls/x/cancel").await, 404, "not_found");
}

#[tokio::test]
async fn a_call_that_may_be_out_ends_as_it_really_ends() {
    let (upstream, gate) = Upstream::gated(OK).await;
    let farcall = Farcall::start().await;
    let id = accepted(&farcall, &json!({"url": upstream.url()}).to_string()).await;
    upstream.until_asked(1).await;
    for _ in 0..2 {
        let reply = act(&farcall, "", &format!("/v1/calls/{id}/cancel")).await;
        let call = reply.json();
        assert_eq!((reply.status, &call["state"], &call["cancel_requested"]), (202, &json!("running"), &json!(true)));
    }
    gate.send(()).expect("the upstream waits");
    farcall.until_ended(1).await;
    let call = farcall.get(&format!("/v1/calls/{id}")).await.json();
    assert_eq!((&call["state"], &call["cancel_requested"]), (&json!("succeeded"), &json!(true)));
    check_problem(&act(&farcall, "", &format!("/v1/calls/{id}/cancel")).await, 409, "already_ended");
}

#[tokio::test]
async fn a_call_is_made_again_as_another() {
    let upstream = Upstream::start(OK).await;
    let farcall = Farcall::start().await;
    let document = json!({"url": upstream.url(), "tags": ["t"], "idempotency_key": "k"}).to_string();
    let old = accepted(&farcall, &document).await;
    farcall.until_ended(1).await;
    let before = farcall.get(&format!("/v1/calls/{old}")).await.json();
    let retry = format!("/v1/calls/{old}/retry");
    let reply = act(&farcall, "Idempotency-Key: again\n", &retry).await;
    let new = reply.json();
    assert_eq!((reply.status, &new["retry_of"], &new["tags"]), (202, &json!(old), &json!(["t"])));
    assert_ne!(new["id"], old);
    assert_eq!(reply.header("location"), Some(format!("/v1/calls/{}", new["id"].as_str().expect("an id")).as_str()));
    let again = act(&farcall, "Idempotency-Key: again\n", &retry).await;
    assert_eq!((again.header("idempotent-replayed"), &again.json()["id"]), (Some("true"), &new["id"]));
    farcall.until_ended(2).await;
    assert_eq!(upstream.connections(), 2);
    assert_eq!(farcall.get(&format!("/v1/calls/{old}")).await.json(), before, "the old one keeps its end");
    let same_key = farcall.post_call("", &document).await;
    assert_eq!(same_key.header("farcall-call-id"), Some(old.as_str()), "and its key");

    let waiting = accepted(&farcall, LATER).await;
    check_problem(&act(&farcall, "", &format!("/v1/calls/{waiting}/retry")).await, 409, "not_ended");
    check_problem(&act(&farcall, "", "/v1/calls/x/retry").await, 404, "not_found");
}

#[tokio::test]
async fn whoever_prefers_to_wait_gets_the_outcome() {
    let upstream = Upstream::start(OK).await;
    let farcall = Farcall::start().await;
    let reply = farcall.post_call("Prefer: wait=30\n", &json!({"url": upstream.url()}).to_string()).await;
    let call = reply.json();
    assert_eq!((reply.status, &call["state"], &call["body"]), (200, &json!("succeeded"), &json!("hello")));
    assert_eq!(reply.header("preference-applied"), Some("wait=30"));
    assert!(reply.header("location").is_some());
    let late = farcall.post_call("Prefer: wait=0\n", LATER).await;
    assert_eq!((late.status, &late.json()["state"]), (202, &json!("scheduled")));
    let failed = farcall.post_call("Prefer: wait=30\n", r#"{"url": "http://127.0.0.1:1/", "retry": 0}"#).await;
    assert_eq!((failed.status, &failed.json()["state"]), (200, &json!("failed")), "the outcome, whatever it is");
}

#[tokio::test]
async fn whoever_waits_is_answered_when_farcall_stops() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    client.send(post("Prefer: wait=600\n", LATER)).await;
    let mut snapshots = farcall.handle().snapshots();
    crate::http::bounded(snapshots.wait_for(|snapshot| snapshot.census.accepted == 1)).await.expect("it is accepted");
    farcall.handle().drain().await;
    let reply = client.reply().await;
    assert_eq!((reply.status, &reply.json()["state"]), (202, &json!("scheduled")));
}

#[tokio::test]
async fn an_answer_is_given_back_byte_for_byte() {
    let upstream = Upstream::start("HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<\u{0}\u{1}>").await;
    let farcall = Farcall::start().await;
    let id = accepted(&farcall, &json!({"url": upstream.url()}).to_string()).await;
    farcall.until_ended(1).await;
    let reply = farcall.get(&format!("/v1/calls/{id}/response")).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"<\0\x01>".as_slice()));
    assert_eq!(reply.header("content-type"), Some("text/html; charset=x"));
    assert_eq!(reply.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));

    let waiting = accepted(&farcall, LATER).await;
    check_problem(&farcall.get(&format!("/v1/calls/{waiting}/response")).await, 409, "not_ended");
    act(&farcall, "", &format!("/v1/calls/{waiting}/cancel")).await;
    check_problem(&farcall.get(&format!("/v1/calls/{waiting}/response")).await, 404, "not_found");
    check_problem(&farcall.get("/v1/calls/x/response").await, 404, "not_found");
    let _: Value = farcall.get("/healthz").await.json();
}

#[tokio::test]
async fn farcall_is_ready_until_it_stops() {
    let farcall = Farcall::start().await;
    let ready = farcall.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ok")));
    let _waits = accepted(&farcall, LATER).await;
    let full = crate::farcall::Setup::new().with_free_bytes(1).start().await;
    assert_eq!(full.get("/readyz").await.status, 503);
}
