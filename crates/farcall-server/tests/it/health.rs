//! `/healthz` over both ways in.

use farcall_store::memory::Trouble;
use serde_json::json;

use crate::farcall::{Farcall, Setup};

#[tokio::test]
async fn health_tells_version_store_and_counts() {
    let farcall = Farcall::start().await;
    let reply = farcall.get("/healthz").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let expected = json!({
        "status": "ok", "version": env!("CARGO_PKG_VERSION"), "draining": false,
        "store": {"state": "ok", "free_bytes": u64::MAX}, "accepted": 0, "pruned": 0,
        "calls": {
            "scheduled": 0, "queued": 0, "running": 0, "retrying": 0, "succeeded": 0, "failed": 0, "cancelled": 0,
            "expired": 0, "unknown": 0, "poisoned": 0,
        },
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn the_socket_needs_neither_host_nor_token() {
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = vec!["secret".to_owned()]).start().await;
    let mut client = farcall.connect_socket().await;
    client.send("GET /v1/calls/x HTTP/1.1\r\nOrigin: http://evil.test\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 404);
    client.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    let head = client.reply_to_head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
}

#[tokio::test]
async fn a_store_with_too_little_space_is_degraded_and_answers_200() {
    let farcall = Setup::new().with_free_bytes(1_000).start().await;
    let reply = farcall.get("/healthz").await;
    let health = reply.json();
    assert_eq!((reply.status, &health["status"]), (200, &json!("degraded")));
    assert_eq!(health["store"], json!({"state": "full", "free_bytes": 1_000}));
}

#[tokio::test]
async fn a_failed_store_answers_503() {
    let farcall = Setup::new().with_trouble(Trouble::Broken).start().await;
    assert_eq!(farcall.post_call("", r#"{"url": "http://localhost:1"}"#).await.status, 503);
    let reply = farcall.get("/healthz").await;
    let health = reply.json();
    assert_eq!((reply.status, &health["status"]), (503, &json!("failing")));
    assert_eq!(
        (&health["store"]["state"], &health["store"]["reason"]),
        (&json!("failed"), &json!("cannot open the store again: the disk failed"))
    );
}

#[tokio::test]
async fn draining_is_told() {
    let farcall = Farcall::start().await;
    farcall.handle().drain().await;
    let mut snapshots = farcall.handle().snapshots();
    snapshots.wait_for(|snapshot| snapshot.is_draining).await.expect("the engine says so before it ends");
    let reply = farcall.get("/healthz").await;
    assert_eq!((reply.status, &reply.json()["draining"]), (200, &json!(true)));
}
