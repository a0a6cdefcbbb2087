//! Breakers from outside: set, opened by what an upstream does, seen, told, and closed by hand.

use std::time::Duration;

use serde_json::{Value, json};

use crate::events::{event, follow};
use crate::farcall::{Farcall, Setup};
use crate::http::bounded;
use crate::upstream::Upstream;

const BROKEN: &str = "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn guarded(upstream: &Upstream, breaker: &str) -> Farcall {
    let file = format!("upstreams: {{ shop: {{ base_url: '{}', retry: 0, breaker: {breaker} }} }}", upstream.url());
    Setup::new().with_file(&file).start().await
}

async fn call(farcall: &Farcall) -> String {
    let reply = farcall.post_call("", r#"{"upstream": "shop", "end_point": "/x"}"#).await;
    assert_eq!(reply.status, 202);
    reply.header("farcall-call-id").expect("an id").to_owned()
}

async fn shop(farcall: &Farcall) -> Value {
    farcall.get("/v1/upstreams/shop").await.json()
}

/// Asks until the answer is as wanted.
async fn until(farcall: &Farcall, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let answer = farcall.get(path).await.json();
            if holds(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    bounded(asked).await
}

async fn metric(farcall: &Farcall) -> String {
    let text = farcall.get("/metrics").await.text();
    let line = text.lines().find(|line| line.starts_with("farcall_breaker_state{upstream=\"shop\"}"));
    line.and_then(|line| line.split(' ').next_back()).expect("the metric is there").to_owned()
}

#[tokio::test]
async fn a_failing_upstream_is_left_alone_and_whoever_asks_is_told_so() {
    let upstream = Upstream::start(BROKEN).await;
    let farcall = guarded(&upstream, "{ calls: 3, open: 1h }").await;
    assert_eq!(
        (shop(&farcall).await["breaker"].clone(), metric(&farcall).await.as_str()),
        (json!({"state": "closed", "until": null}), "0")
    );
    let policy = json!({"failures": "50%", "calls": 3, "window_ms": 30_000, "open_ms": 3_600_000});
    assert_eq!(shop(&farcall).await["policy"]["breaker"], policy);
    let mut client = follow(&farcall, "/v1/events").await;
    for _ in 0..3 {
        call(&farcall).await;
    }
    let told = loop {
        let (name, data) = event(&mut client).await.expect("an event");
        if name == "breaker" {
            break data;
        }
    };
    assert_eq!((&told["upstream"], &told["state"]), (&json!("shop"), &json!("open")));
    assert!(told["until"].is_string() && told["at"].is_string(), "{told}");
    let waits = call(&farcall).await;
    let path = format!("/v1/calls/{waits}");
    let waiting = until(&farcall, &path, |call| call["wait_reason"] == "breaker_open").await;
    assert_eq!(waiting["next_at"], told["until"]);
    let explained = farcall.get(&format!("{path}/explain")).await.json();
    assert_eq!(
        explained["gate"],
        json!({"reason": "breaker_open", "breaker": {"state": "open", "until": told["until"]}})
    );
    assert_eq!(explained["estimated_start_at"], told["until"], "{explained}");
    let view = shop(&farcall).await;
    assert_eq!((&view["state"], &view["breaker"]["state"]), (&json!("failing"), &json!("open")));
    assert_eq!((&view["wait_reason"], &view["next_at"]), (&json!("breaker_open"), &told["until"]));
    assert_eq!(metric(&farcall).await, "2");
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn resumed_by_hand_the_calls_go_on() {
    let upstream = Upstream::start(BROKEN).await;
    let farcall = guarded(&upstream, "{ calls: 1, open: 1h }").await;
    call(&farcall).await;
    until(&farcall, "/v1/upstreams/shop", |shop| shop["breaker"]["state"] == "open").await;
    let waits = call(&farcall).await;
    assert_eq!(farcall.send("POST", "/v1/upstreams/shop/resume", "").await.status, 200);
    until(&farcall, &format!("/v1/calls/{waits}"), |call| call["state"] == "failed").await;
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn one_probe_finds_out_whether_it_works_again_and_is_kept_as_one() {
    let (upstream, gate) = Upstream::gated(BROKEN).await;
    let farcall = guarded(&upstream, "{ calls: 1, open: 20ms }").await;
    call(&farcall).await;
    gate.send(()).expect("it listens");
    until(&farcall, "/v1/upstreams/shop", |shop| shop["breaker"]["state"] != "closed").await;
    let probe = call(&farcall).await;
    upstream.until_asked(2).await;
    let waits = call(&farcall).await;
    let view = until(&farcall, "/v1/upstreams/shop", |shop| shop["waiting"] == 1).await;
    assert_eq!((&view["breaker"]["state"], &view["in_flight"]), (&json!("half_open"), &json!(1)));
    let explained = farcall.get(&format!("/v1/calls/{waits}/explain")).await.json();
    assert!(explained["explanation"].as_str().is_some_and(|text| text.contains("a probe is out")), "{explained}");
    assert_eq!(metric(&farcall).await, "1");
    let attempts = farcall.get(&format!("/v1/calls/{probe}/attempts")).await.json();
    assert_eq!(attempts["data"][0]["kind"], "probe");
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn it_is_set_and_taken_back_while_farcall_runs_and_survives_as_a_setting() {
    let upstream = Upstream::start(BROKEN).await;
    let farcall = guarded(&upstream, "off").await;
    assert_eq!(
        (&shop(&farcall).await["breaker"], &shop(&farcall).await["policy"]["breaker"]),
        (&Value::Null, &Value::Null)
    );
    let patch = async |body: &str| farcall.send("PATCH", "/v1/upstreams/shop", body).await;
    assert_eq!(patch(r#"{"breaker": {"calls": 1, "open": "1h"}}"#).await.status, 200);
    call(&farcall).await;
    until(&farcall, "/v1/upstreams/shop", |shop| shop["breaker"]["state"] == "open").await;
    let waits = call(&farcall).await;
    until(&farcall, &format!("/v1/calls/{waits}"), |call| call["wait_reason"] == "breaker_open").await;
    assert_eq!(patch(r#"{"breaker": null}"#).await.status, 200);
    until(&farcall, &format!("/v1/calls/{waits}"), |call| call["state"] == "failed").await;
    for (wrong, column) in [
        (r#"{"breaker": {"failures": "0%"}}"#, 26),
        (r#"{"breaker": {"failures": 0.5}}"#, 26),
        (r#"{"breaker": {"calls": 0}}"#, 23),
        (r#"{"breaker": {"open": 0}}"#, 22),
        (r#"{"breaker": {"opens": 1}}"#, 14),
        (r#"{"breaker": true}"#, 13),
    ] {
        let refused = patch(wrong).await;
        let problem = refused.json();
        assert_eq!((refused.status, &problem["code"]), (422, &json!("invalid_policy")), "{problem}");
        assert_eq!((&problem["key"], &problem["column"]), (&json!("breaker"), &json!(column)), "{problem}");
    }
}
