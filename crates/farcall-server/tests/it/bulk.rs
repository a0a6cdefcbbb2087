//! Calls in bulk: a line per line, each judged by itself.

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::Reply;

const LATER: &str = r#"{"url": "http://localhost:1/", "delay": 3600}"#;

async fn bulk(farcall: &Farcall, headers: &str, lines: &str) -> Reply {
    let mut client = farcall.connect().await;
    let length = lines.len();
    let head = format!("POST /v1/calls/bulk HTTP/1.1\nHost: localhost\n{headers}Content-Length: {length}\n\n");
    client.send(head.replace('\n', "\r\n")).await;
    client.send(lines).await;
    client.reply().await
}

fn lines(reply: &Reply) -> Vec<Value> {
    reply.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[tokio::test]
async fn each_line_is_answered_by_one_line() {
    let farcall = Farcall::start().await;
    let sent = format!("{LATER}\n{{\"url\": 7}}\r\n\n{{\"url\":\n{LATER}");
    let reply = bulk(&farcall, "Content-Type: application/x-ndjson\n", &sent).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
    let told = lines(&reply);
    assert_eq!(told.len(), 4, "{}", reply.text());
    for told in [&told[0], &told[3]] {
        assert_eq!(told.as_object().map(serde_json::Map::len), Some(1));
        let call = farcall.get(&format!("/v1/calls/{}", told["id"].as_str().expect("an id"))).await.json();
        assert_eq!((&call["source"], &call["state"]), (&json!("bulk"), &json!("scheduled")));
    }
    let wrong: Vec<_> =
        [&told[1], &told[2]].map(|told| (told["line"].clone(), told["code"].clone(), told["status"].clone())).into();
    assert_eq!(
        wrong,
        [(json!(2), json!("invalid_call"), json!(422)), (json!(4), json!("malformed_document"), json!(400))]
    );
    assert_eq!(farcall.get("/healthz").await.json()["accepted"], 2);
}

#[tokio::test]
async fn thousands_come_back_in_order() {
    let farcall = Farcall::start().await;
    let sent: String =
        (0..5_000).map(|n| format!("{{\"url\": \"http://localhost:1/{n}\", \"delay\": 3600}}\n")).collect();
    let told = lines(&bulk(&farcall, "", &sent).await);
    assert_eq!(told.len(), 5_000);
    for n in [0, 999, 1_000, 2_500, 4_999] {
        let id = told[n]["id"].as_str().expect("an id");
        let call = farcall.get(&format!("/v1/calls/{id}")).await.json();
        assert_eq!(call["url"], format!("http://localhost:1/{n}"));
    }
}

#[tokio::test]
async fn a_line_is_answered_before_the_next_is_sent() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    client.send("POST /v1/calls/bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let send = format!("{:x}\r\n{LATER}\n\r\n", LATER.len() + 1);
    client.send(&send).await;
    assert_eq!(client.head().await.status, 200);
    for _ in 0..3 {
        let chunk = client.chunk().await.expect("an answer");
        assert!(chunk.starts_with(b"{\"id\":\"call_"));
        client.send(&send).await;
    }
    client.chunk().await.expect("the last answer");
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn lines_with_one_key_are_one_call() {
    let farcall = Farcall::start().await;
    let keyed = r#"{"url": "http://localhost:1/", "delay": 3600, "idempotency_key": "k"}"#;
    let other = r#"{"url": "http://localhost:1/other", "delay": 3600, "idempotency_key": "k"}"#;
    let told = lines(&bulk(&farcall, "", &format!("{keyed}\n{keyed}\n{other}\n")).await);
    assert_eq!(told[0], told[1]);
    assert_eq!((&told[2]["code"], &told[2]["line"]), (&json!("idempotency_key_reused"), &json!(3)));
    let again = lines(&bulk(&farcall, "", keyed).await);
    assert_eq!(again, [told[0].clone()]);
    let refused = bulk(&farcall, "Idempotency-Key: k\n", keyed).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("invalid_idempotency_key")));
    assert_eq!(bulk(&farcall, "Content-Type: text/plain\n", keyed).await.status, 415);
}

#[tokio::test]
async fn a_line_too_large_ends_the_request_and_what_came_before_stays() {
    let farcall = Setup::new().with(|setup| setup.config.server.max_body = 100).start().await;
    let told = lines(&bulk(&farcall, "", &format!("{LATER}\n{}\n{LATER}\n", "x".repeat(101))).await);
    assert_eq!(told.len(), 2);
    assert!(told[0]["id"].is_string());
    assert_eq!((&told[1]["line"], &told[1]["code"]), (&json!(2), &json!("body_too_large")));
    assert_eq!(farcall.get("/healthz").await.json()["accepted"], 1);
}

#[tokio::test]
async fn a_full_store_is_told_line_by_line() {
    let farcall = Setup::new().with_free_bytes(1).start().await;
    let told = lines(&bulk(&farcall, "", &format!("{LATER}\n{LATER}\n")).await);
    let codes: Vec<_> = told.iter().map(|told| (&told["line"], &told["code"])).collect();
    assert_eq!(codes, [(&json!(1), &json!("storage_full")), (&json!(2), &json!("storage_full"))]);
    assert!(told.iter().all(|told| told["retry_after_ms"].as_u64() >= Some(1_000)), "{told:?}");
}

#[tokio::test]
async fn a_client_that_expects_to_be_told_to_go_on_is_told() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    let length = LATER.len();
    let head = "POST /v1/calls/bulk HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    client.send(format!("{head}Content-Length: {length}\r\n\r\n")).await;
    assert_eq!(client.head().await.status, 100);
    client.send(LATER).await;
    assert_eq!(lines(&client.reply().await).len(), 1);
}
