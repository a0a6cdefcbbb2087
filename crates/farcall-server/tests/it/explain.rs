//! Why calls wait, as told over HTTP, against how they then end.

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::bounded;
use crate::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

async fn with(upstream: &Upstream, keys: &str) -> Farcall {
    let file = format!("upstreams: {{ local: {{ base_url: {}, {keys} }} }}", upstream.url());
    Setup::new().with_file(&file).start().await
}

async fn post(farcall: &Farcall, more: &str) -> String {
    let reply = farcall.post_call("", &format!(r#"{{"upstream": "local", "end_point": "/x"{more}}}"#)).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.header("farcall-call-id").expect("an id").to_owned()
}

async fn explain(farcall: &Farcall, id: &str) -> Value {
    farcall.get(&format!("/v1/calls/{id}/explain")).await.json()
}

/// Asks again until the call waits for this reason.
async fn explained_as(farcall: &Farcall, id: &str, reason: &str) -> Value {
    bounded(async {
        loop {
            let explanation = explain(farcall, id).await;
            if explanation["wait_reason"] == reason {
                return explanation;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn calls_behind_a_limit_know_it_their_place_and_when_they_start() {
    let upstream = Upstream::start(OK).await;
    let farcall = with(&upstream, "limits: [2/1h]").await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(post(&farcall, "").await);
    }
    farcall.until_ended(2).await;
    let last = explained_as(&farcall, &ids[5], "rate_limit").await;
    assert_eq!((&last["state"], &last["upstream"]), (&json!("queued"), &json!("local")));
    assert_eq!((&last["position"], &last["position_is_exact"]), (&json!(4), &json!(true)), "{last}");
    let limit = &last["gate"]["limits"][0];
    assert_eq!(
        (&last["gate"]["reason"], &limit["capacity"], &limit["used"]),
        (&json!("rate_limit"), &json!(2), &json!(2))
    );
    let text = last["explanation"].as_str().expect("a sentence");
    assert!(text.starts_with("The limit 2/1h of local is used up until"), "{text}");
    let third = explain(&farcall, &ids[2]).await;
    assert_eq!((&third["position"], &third["next_at"]), (&json!(1), &limit["next_free_at"]));
    // Two in every hour: the third with the first slot, the sixth an hour after the fourth.
    let seconds = |explanation: &Value| -> i64 {
        let text = explanation["estimated_start_at"].as_str().expect("an estimate").to_owned();
        text[11..13].parse::<i64>().expect("hours") * 3_600 + text[14..16].parse::<i64>().expect("minutes") * 60
    };
    let apart = (seconds(&last) - seconds(&third)).rem_euclid(86_400);
    assert!((3_540..=3_720).contains(&apart), "{apart} s apart");
    let ended = explain(&farcall, &ids[0]).await;
    assert_eq!(
        (&ended["state"], &ended["wait_reason"], &ended["gate"]),
        (&json!("succeeded"), &Value::Null, &Value::Null)
    );
    assert_eq!(ended["explanation"], "It has ended (succeeded): nothing holds it.");
    assert_eq!(ended["upstream"], "local");
}

#[tokio::test]
async fn every_gate_is_told() {
    let upstream = Upstream::start("HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let farcall = with(&upstream, "retry: { max: 3, wait: 3600 }").await;
    let scheduled = post(&farcall, r#", "delay": 3600"#).await;
    let scheduled = explained_as(&farcall, &scheduled, "not_before").await;
    assert_eq!(scheduled["gate"]["not_before"], scheduled["next_at"]);
    assert_eq!(scheduled["estimated_start_at"], scheduled["next_at"]);
    let at = scheduled["next_at"].as_str().expect("a time");
    assert_eq!(scheduled["explanation"], format!("It is not to start before {at}. It goes next."));
    let failed = post(&farcall, "").await;
    let failed = explained_as(&farcall, &failed, "backoff").await;
    let gate = &failed["gate"];
    assert_eq!((&gate["next_attempt"], &gate["retries"], &gate["until"]), (&json!(2), &json!(1), &failed["next_at"]));
    assert_eq!(farcall.send("POST", "/v1/upstreams/local/pause", "").await.status, 200);
    let paused = post(&farcall, "").await;
    let paused = explained_as(&farcall, &paused, "paused").await;
    assert_eq!((&paused["gate"]["missing"], &paused["estimated_start_at"]), (&json!(false), &Value::Null));
    assert_eq!(paused["explanation"], "local is paused. It goes next.");
    for unknown in ["call_x", "call_01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(farcall.get(&format!("/v1/calls/{unknown}/explain")).await.status, 404);
    }
}

#[tokio::test]
async fn a_call_that_only_the_store_holds_knows_its_place_too() {
    let upstream = Upstream::start(OK).await;
    let farcall = with(&upstream, "limits: [1/1h]").await;
    // Tenants of whom memory holds few each once there are many calls.
    let mut ids = Vec::new();
    for number in 0..2_600 {
        let tenant = number % 4;
        ids.push(
            post(&farcall, &format!(r#", "tenant": "{tenant}", "priority": {}"#, if number < 2_100 { 3 } else { 2 }))
                .await,
        );
    }
    let near = explained_as(&farcall, &ids[2_599], "rate_limit").await;
    assert_eq!(near["position_is_exact"], true, "{near}");
    let position = near["position"].as_u64().expect("a number");
    assert!((490..=530).contains(&position), "of 500 of its priority it is the last: {near}");
    let far = explained_as(&farcall, &ids[2_099], "rate_limit").await;
    assert_eq!((&far["position"], &far["position_is_exact"]), (&json!(1_000), &json!(false)));
}
