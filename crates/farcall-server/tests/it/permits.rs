//! Permits borrowed and given back.

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::Reply;

const SHOP: &str = "
upstreams:
  shop: { base_url: 'http://127.0.0.1:9', limits: ['2/1h'] }
";

async fn with_shop() -> Farcall {
    Setup::new().with_file(SHOP).start().await
}

/// A permit that is lent, and where it is.
#[track_caller]
fn lent(reply: &Reply) -> (Value, String) {
    let permit = reply.json();
    assert_eq!(reply.status, 201, "{permit}");
    (permit, reply.header("location").expect("where it is").to_owned())
}

#[track_caller]
fn check(reply: &Reply, status: u16, code: &str, key: Option<&str>) {
    let problem = reply.json();
    assert_eq!((reply.status, &problem["code"]), (status, &json!(code)), "{problem}");
    assert_eq!(problem.get("key"), key.map(|key| json!(key)).as_ref(), "{problem}");
}

async fn asked_at_most_a_second(farcall: &Farcall) -> Reply {
    let head = "POST /v1/upstreams/shop/permits HTTP/1.1\nHost: localhost\nPrefer: wait=1\nContent-Length: 0\n\n";
    farcall.exchange(head).await
}

#[tokio::test]
async fn a_permit_is_lent_and_given_back_once() {
    let farcall = with_shop().await;
    let (permit, path) = lent(&farcall.send("POST", "/v1/upstreams/shop/permits", "").await);
    let id = permit["id"].as_str().expect("an id");
    assert_eq!(path, format!("/v1/upstreams/shop/permits/{id}"));
    assert_eq!((&permit["upstream"], &permit["cost"]), (&json!("shop"), &json!(1)));
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!((&shop["limits"][0]["used"], &shop["concurrency"]["used"]), (&json!(1), &json!(1)));

    let released = farcall.send("POST", &format!("{path}/release"), r#"{"status": 200}"#).await;
    assert_eq!((released.status, &released.json()["id"]), (200, &permit["id"]));
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!((&shop["limits"][0]["used"], &shop["concurrency"]["used"]), (&json!(1), &json!(0)));
    check(&farcall.send("POST", &format!("{path}/release"), "").await, 404, "not_found", None);
}

#[tokio::test]
async fn nothing_is_lent_past_a_limit_and_what_was_not_sent_is_given_back() {
    let farcall = with_shop().await;
    let (_, path) = lent(&farcall.send("POST", "/v1/upstreams/shop/permits", r#"{"cost": 2, "lease": "1m"}"#).await);
    let busy = asked_at_most_a_second(&farcall).await;
    check(&busy, 503, "busy", None);
    let released = farcall.send("POST", &format!("{path}/release"), r#"{"sent": false}"#).await;
    assert_eq!((released.status, &released.json()["sent"]), (200, &json!(false)));
    lent(&asked_at_most_a_second(&farcall).await);
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!(shop["limits"][0]["used"], 1, "whoever gave up waiting took nothing");
}

#[tokio::test]
async fn what_is_told_at_the_release_closes_the_upstream() {
    let farcall = with_shop().await;
    let (_, path) = lent(&farcall.send("POST", "/v1/upstreams/shop/permits", "{}").await);
    let told = r#"{"status": 429, "headers": {"Retry-After": "40"}}"#;
    assert_eq!(farcall.send("POST", &format!("{path}/release"), told).await.status, 200);
    check(&asked_at_most_a_second(&farcall).await, 503, "busy", None);
    assert_eq!(farcall.get("/v1/upstreams/shop").await.json()["state"], "closed");
    assert_eq!(farcall.send("POST", "/v1/upstreams/shop/resume", "").await.status, 200);
    lent(&asked_at_most_a_second(&farcall).await);
}

#[tokio::test]
async fn wrong_wishes_are_refused_with_their_key() {
    let farcall = with_shop().await;
    for (wish, key) in [
        (r#"{"cost": 0}"#, "cost"),
        (r#"{"priority": 6}"#, "priority"),
        (r#"{"lease": 0}"#, "lease"),
        (r#"{"lease": "2h"}"#, "lease"),
        (r#"{"lease": "soon"}"#, "lease"),
    ] {
        let reply = farcall.send("POST", "/v1/upstreams/shop/permits", wish).await;
        check(&reply, 422, "invalid_permit", Some(key));
    }
    let unknown = farcall.send("POST", "/v1/upstreams/shop/permits", r#"{"costs": 1}"#).await;
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (422, Some("invalid_permit")));
    let reply = farcall.send("POST", "/v1/upstreams/shop/permits", "{").await;
    assert_eq!(reply.status, 400);
    check(&farcall.send("POST", "/v1/upstreams/nobody/permits", "").await, 404, "not_found", None);

    let (_, path) = lent(&farcall.send("POST", "/v1/upstreams/shop/permits", "").await);
    for (told, key) in [(r#"{"status": 99}"#, "status"), (r#"{"headers": {"a b": "c"}}"#, "headers")] {
        let reply = farcall.send("POST", &format!("{path}/release"), told).await;
        check(&reply, 422, "invalid_permit", Some(key));
    }
    assert_eq!(
        farcall.send("POST", &format!("{path}/release"), "").await.status,
        200,
        "a refused release takes nothing"
    );
    let strange = "/v1/upstreams/shop/permits/permit_0/release";
    check(&farcall.send("POST", strange, "").await, 404, "not_found", None);
}
