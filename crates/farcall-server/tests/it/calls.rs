//! Calls accepted, looked at, replayed.

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::Reply;
use crate::upstream::Upstream;

/// A document for an upstream that nobody calls before the test is over.
const LATER: &str = r#"{"url": "http://localhost:1/x?a=b", "delay": 3600}"#;

/// From the header: the call may have ended by now and show a body that this test's own reader does not understand.
fn id_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.header("farcall-call-id").expect("an id").to_owned()
}

#[tokio::test]
async fn an_accepted_call_is_answered_with_its_place_and_itself() {
    let farcall = Farcall::start().await;
    let document = r#"{"url": "http://localhost:1/x?a=b", "delay": 3600, "tags": ["t"], "tenant": "acme", "priority": 2,
        "headers": {"X-Key": "secret", "Accept": "text/plain"}, "body": {"n": 1}}"#;
    let reply = farcall.post_call("Content-Type: application/json\n", document).await;
    let id = id_of(&reply);
    assert_eq!(reply.header("location"), Some(format!("/v1/calls/{id}").as_str()));
    assert_eq!(reply.json()["id"], id);
    assert_eq!(reply.header("idempotent-replayed"), None);
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));

    let call = reply.json();
    let text = reply.text();
    let keys: Vec<&str> = text.split("\":").filter_map(|part| part.rsplit('"').next()).collect();
    let expected_keys = "id state source upstream function method url tags priority tenant accepted_at started_at \
         finished_at duration_ms attempts wait_reason next_at status error retry_of cancel_requested request_headers";
    assert_eq!(keys[..22], expected_keys.split_whitespace().collect::<Vec<_>>(), "in the contract's order");
    let expected = json!({
        "id": id, "state": "scheduled", "source": "api", "upstream": null, "function": null, "method": "POST",
        "url": "http://localhost:1/x?a=b", "tags": ["t"], "priority": 2, "tenant": "acme",
        "accepted_at": call["accepted_at"], "started_at": null, "finished_at": null, "duration_ms": null, "attempts": 0,
        "wait_reason": "not_before", "next_at": call["next_at"], "status": null, "error": null, "retry_of": null,
        "cancel_requested": false, "request_headers": {"x-key": "***", "accept": "text/plain"},
    });
    assert_eq!(call, expected);
    for time in ["accepted_at", "next_at"] {
        let text = call[time].as_str().expect("a time");
        assert!(text.len() == 24 && text.ends_with('Z') && &text[19..20] == ".", "{text}");
    }
    let counted = farcall.get("/healthz").await.json();
    assert_eq!((&counted["accepted"], &counted["calls"]["scheduled"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_call_is_found_by_either_form_of_its_id() {
    let farcall = Farcall::start().await;
    let accepted = farcall.post_call("", LATER).await;
    let id = id_of(&accepted);
    for id in [id.as_str(), id.trim_start_matches("call_")] {
        let reply = farcall.get(&format!("/v1/calls/{id}")).await;
        assert_eq!((reply.status, reply.json()), (200, accepted.json()));
        assert!(reply.header("farcall-call-id").is_some_and(|header| header.ends_with(id)));
        let attempts = farcall.get(&format!("/v1/calls/{id}/attempts")).await;
        assert_eq!((attempts.status, attempts.json()), (200, json!({"data": []})));
    }
}

/// The answer is told from memory, and a look from the store.
#[tokio::test]
async fn an_accepted_call_is_answered_as_a_look_at_it_shows_it() {
    // Connections are made, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    let file = format!(
        "upstreams:\n  silent: {{base_url: 'http://{address}', concurrency: 1}}\n  \
           paused: {{base_url: 'http://127.0.0.1:1/p', rate_hour: 5}}\n"
    );
    let farcall = Setup::new().with_file(&file).start().await;
    assert_eq!(farcall.send("POST", "/v1/upstreams/paused/pause", "").await.status, 200);
    let own = r#""tags": ["t"], "tenant": "a", "priority": 1, "headers": {"authorization": "x", "accept": "*/*"}"#;
    let cases = [
        ("silent", "", ("running", &Value::Null, 1)),
        ("silent", "", ("queued", &json!("concurrency"), 0)),
        ("paused", "", ("queued", &json!("paused"), 0)),
        ("paused", r#""deadline": 60, "#, ("queued", &json!("paused"), 0)),
    ];
    for (upstream, more, (state, reason, attempts)) in cases {
        let document = format!(r#"{{"upstream": "{upstream}", "end_point": "/x", {more}{own}}}"#);
        let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n";
        let accepted = farcall.post_call(trace, &document).await;
        let call = accepted.json();
        assert_eq!(
            (&call["state"], &call["wait_reason"], &call["attempts"]),
            (&json!(state), reason, &json!(attempts))
        );
        let looked_at = farcall.get(&format!("/v1/calls/{}", id_of(&accepted))).await;
        assert_eq!(accepted.json(), looked_at.json());
    }
}

#[tokio::test]
async fn an_ended_call_shows_its_outcome_and_its_attempt() {
    let body = r#"{"b":1.50,  "a":[1e400]}"#;
    let upstream = Upstream::start(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=1\r\nX-Two: 1\r\nX-Two: 2\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let farcall = Farcall::start().await;
    let document = json!({"url": upstream.url(), "body": "hello"}).to_string();
    let id = id_of(&farcall.post_call("Content-Type: application/json; charset=utf-8\n", &document).await);
    farcall.until_ended(1).await;

    let reply = farcall.get(&format!("/v1/calls/{id}")).await;
    assert!(reply.text().contains(&format!("\"body\":{body}")), "byte for byte: {}", reply.text());
    let text = reply.text().replace("1e400", "1");
    let call: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!([&call["state"], &call["status"], &call["attempts"]], [&json!("succeeded"), &json!(200), &json!(1)]);
    assert_eq!([&call["error"], &call["wait_reason"], &call["next_at"]], [&Value::Null; 3]);
    let header = |name: &str| call["headers"][name].clone();
    assert_eq!([header("set-cookie"), header("x-two")], [json!(["a=1"]), json!("1, 2")]);
    assert!(call["duration_ms"].is_u64() && call["finished_at"].is_string(), "{call}");

    let attempts = farcall.get(&format!("/v1/calls/{id}/attempts")).await.json();
    let attempt = &attempts["data"][0];
    let expected = json!({"data": [{
        "number": 1, "kind": "first", "outcome": "success", "status": 200, "started_at": call["started_at"],
        "ended_at": attempt["ended_at"], "error": null,
    }]});
    assert_eq!(attempts, expected);
    assert!(attempt["ended_at"].is_string(), "{attempt}");
}

#[tokio::test]
async fn a_failed_call_has_an_error_and_no_body_without_an_answer() {
    let upstream =
        Upstream::start("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\u{1}\u{2}é").await;
    let farcall = Farcall::start().await;
    let answered = json!({"url": upstream.url(), "retry": 0}).to_string();
    let answered = id_of(&farcall.post_call("", &answered).await);
    let refused = id_of(&farcall.post_call("", r#"{"url": "http://127.0.0.1:1", "retry": 0}"#).await);
    farcall.until_ended(2).await;

    let call = farcall.get(&format!("/v1/calls/{answered}")).await.json();
    assert_eq!(
        [&call["state"], &call["status"], &call["error"]["kind"]],
        [&json!("failed"), &json!(404), &json!("http_status")]
    );
    assert_eq!(call["body"], "\u{1}\u{2}é");
    let call = farcall.get(&format!("/v1/calls/{refused}")).await.json();
    assert_eq!(
        [&call["state"], &call["status"], &call["error"]["kind"]],
        [&json!("failed"), &Value::Null, &json!("connect")]
    );
    assert_eq!([call.get("headers"), call.get("body"), call.get("body_base64")], [None; 3]);
}

#[tokio::test]
async fn the_same_key_and_content_is_the_same_call() {
    let farcall = Farcall::start().await;
    let first = farcall.post_call("Idempotency-Key: k\n", LATER).await;
    let again = farcall.post_call("Idempotency-Key: k\n", LATER).await;
    assert_eq!((id_of(&again), again.header("idempotent-replayed")), (id_of(&first), Some("true")));
    assert_ne!(id_of(&farcall.post_call("Idempotency-Key: other\n", LATER).await), id_of(&first));
    assert_ne!(id_of(&farcall.post_call("", LATER).await), id_of(&first));

    let with_key = r#"{"url": "http://localhost:1", "delay": 3600, "idempotency_key": "in the document"}"#;
    let first = farcall.post_call("", with_key).await;
    let again = farcall.post_call("Idempotency-Key: in the document\n", with_key).await;
    assert_eq!((id_of(&again), again.header("idempotent-replayed")), (id_of(&first), Some("true")));
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one_call() {
    let farcall = Farcall::start().await;
    let posts = (0..20).map(|_| farcall.post_call("Idempotency-Key: k\n", LATER));
    let mut replies = Vec::new();
    let mut posts: Vec<_> = posts.map(Box::pin).collect();
    // All are sent before any is waited for.
    std::future::poll_fn(|context| {
        posts.retain_mut(|post| match post.as_mut().poll(context) {
            std::task::Poll::Ready(reply) => {
                replies.push(reply);
                false
            }
            std::task::Poll::Pending => true,
        });
        if posts.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let first = id_of(&replies[0]);
    assert!(replies.iter().all(|reply| id_of(reply) == first));
    assert_eq!(replies.iter().filter(|reply| reply.header("idempotent-replayed").is_none()).count(), 1);
    assert_eq!(farcall.get("/healthz").await.json()["accepted"], 1);
}

#[tokio::test]
async fn each_token_has_its_own_keys() {
    let tokens = vec!["first".to_owned(), "second".to_owned()];
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = tokens).start().await;
    let post = async |headers: &str| id_of(&farcall.post_call(headers, LATER).await);
    let first = post("Authorization: Bearer first\nIdempotency-Key: k\n").await;
    assert_eq!(post("Farcall-Token: first\nIdempotency-Key: k\n").await, first);
    assert_ne!(post("Farcall-Token: second\nIdempotency-Key: k\n").await, first);
}

#[tokio::test]
async fn what_is_json_is_accepted() {
    let farcall = Farcall::start().await;
    for headers in [
        "",
        "Content-Type: application/json\n",
        "Content-Type: APPLICATION/JSON ; charset=utf-8\n",
        "Content-Type: application/vnd.acme+json\n",
        "Content-Encoding: identity\n",
        "Prefer: respond-async, return=minimal\n",
    ] {
        assert_eq!(farcall.post_call(headers, LATER).await.status, 202, "{headers}");
    }
    let chunked = format!(
        "POST /v1/calls HTTP/1.1\nHost: [::1]:80\nTransfer-Encoding: chunked\n\n{:x}\n{LATER}\n0\n\n",
        LATER.len()
    );
    assert_eq!(farcall.exchange(&chunked).await.status, 202);
}
