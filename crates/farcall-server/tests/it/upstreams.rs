//! Upstreams looked at, paused, resumed and patched.

use farcall_store::memory::{MemoryStore, Trouble};
use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};
use crate::http::Reply;
use crate::upstream::Upstream;

const SHOP: &str = r#"
upstreams:
  shop:
    base_url: https://shop.example/admin
    rate_second: 10
    limits: ["400/1h"]
    retry: { max: 3, wait: 2 }
    timeout: 90
    success: { statuses: ["200-299", 404], content_type: application/json }
    headers: { Authorization: "Bearer ${file:token}", X-Plain: visible }
    callback_fail: { url: "https://hooks.example/secret-path" }
"#;

async fn with_shop() -> Farcall {
    let setup = Setup::new();
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "s3cret").expect("writable");
    setup.with_file(&SHOP.replace("${file:token}", &format!("${{file:{}}}", token.path().display()))).start().await
}

/// A problem's status, code and key, and whether its place is told.
#[track_caller]
fn check(reply: &Reply, status: u16, code: &str, key: Option<&str>) -> Value {
    let problem = reply.json();
    assert_eq!((reply.status, &problem["code"]), (status, &json!(code)), "{problem}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem.get("key"), key.map(|key| json!(key)).as_ref(), "{problem}");
    problem
}

async fn wait_reason(farcall: &Farcall, call: &Value) -> Value {
    farcall.get(&format!("/v1/calls/{}", call["id"].as_str().expect("an id"))).await.json()["wait_reason"].clone()
}

#[tokio::test]
async fn an_upstream_shows_its_policy_and_no_secret() {
    let farcall = with_shop().await;
    let reply = farcall.get("/v1/upstreams/shop").await;
    let shop = reply.json();
    assert_eq!((&shop["name"], &shop["declared"], &shop["state"]), (&json!("shop"), &json!(true), &json!("open")));
    assert_eq!(shop["base_url"], "https://shop.example/admin");
    let limits = json!([
        {"limit": "10/1s", "window_ms": 1_000, "capacity": 10, "used": shop["limits"][0]["used"],
         "next_free_at": shop["limits"][0]["next_free_at"]},
        {"limit": "400/1h", "window_ms": 3_600_000, "capacity": 400, "used": 0, "next_free_at": null},
    ]);
    assert_eq!(shop["limits"], limits);
    assert_eq!(shop["concurrency"], json!({"capacity": 16, "used": 0}));
    let policy = &shop["policy"];
    assert_eq!(policy["limits"], json!(["10/1s", "400/1h"]));
    assert_eq!((&policy["timeout_ms"], &policy["retry"]["wait_ms"]), (&json!(90_000), &json!(2_000)));
    assert_eq!(policy["success"], json!({"statuses": ["200-299", "404"], "content_type": "application/json"}));
    assert_eq!(policy["headers"]["x-plain"], "***");
    let authorization = policy["headers"]["authorization"].as_str().expect("a text");
    assert!(authorization.starts_with("Bearer ${file:") && authorization.ends_with('}'), "{authorization}");
    assert_eq!(policy["callback_fail"], json!({"origin": "https://hooks.example", "signed": false}));
    for secret in ["s3cret", "visible", "secret-path"] {
        assert!(!reply.text().contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn declared_upstreams_are_listed_before_the_origins_that_calls_brought_in() {
    let farcall = with_shop().await;
    let document = r#"{"url": "http://localhost:1/x", "delay": 3600}"#;
    assert_eq!(farcall.post_call("", document).await.status, 202);
    let names = |listed: Value| -> Vec<(Value, Value)> {
        let upstreams = listed["data"].as_array().expect("a list").clone();
        upstreams.into_iter().map(|upstream| (upstream["name"].clone(), upstream["declared"].clone())).collect()
    };
    let listed = names(farcall.get("/v1/upstreams").await.json());
    // That of the callback is brought in by the configuration.
    let expected = [
        (json!("shop"), json!(true)),
        (json!("http://localhost:1"), json!(false)),
        (json!("https://hooks.example"), json!(false)),
    ];
    assert_eq!(listed, expected);
    let origin = farcall.get("/v1/upstreams/http%3A%2F%2Flocalhost%3A1").await.json();
    assert_eq!((&origin["name"], &origin["base_url"]), (&json!("http://localhost:1"), &Value::Null));
    for unknown in ["GET /v1/upstreams/nobody", "POST /v1/upstreams/nobody/pause", "GET /v1/upstreams/%FF"] {
        let (method, path) = unknown.split_once(' ').expect("two words");
        check(&farcall.send(method, path, "").await, 404, "not_found", None);
    }
    check(&farcall.send("PATCH", "/v1/upstreams/nobody", "{}").await, 404, "not_found", None);
}

#[tokio::test]
async fn a_paused_upstream_keeps_its_calls_until_it_is_resumed_also_over_a_restart() {
    let upstream = Upstream::start("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let file = format!("upstreams: {{ local: {{ base_url: {} }} }}", upstream.url());
    let store = MemoryStore::new();
    let (second, third) = (store.attach(), store.attach());
    let on = |store: MemoryStore| Setup::new().with_file(&file).with(|setup| setup.store = Box::new(store)).start();
    let farcall = on(store).await;
    let paused = farcall.send("POST", "/v1/upstreams/local/pause", "").await.json();
    assert_eq!((&paused["state"], &paused["paused"]), (&json!("paused"), &json!(true)));
    let call = farcall.post_call("", &format!(r#"{{"url": "{}/x"}}"#, upstream.url())).await.json();
    assert_eq!(wait_reason(&farcall, &call).await, "paused");
    farcall.stop().await;

    let farcall = on(second).await;
    assert_eq!(farcall.get("/v1/upstreams/local").await.json()["state"], "paused");
    assert_eq!(wait_reason(&farcall, &call).await, "paused");
    assert_eq!(upstream.connections(), 0);
    let resumed = farcall.send("POST", "/v1/upstreams/local/resume", "").await.json();
    assert_eq!((&resumed["state"], &resumed["paused"]), (&json!("open"), &json!(false)));
    farcall.until_ended(1).await;
    assert_eq!(upstream.connections(), 1);
    farcall.stop().await;

    let farcall = on(third).await;
    assert_eq!(farcall.get("/v1/upstreams/local").await.json()["state"], "open");
}

#[tokio::test]
async fn resuming_opens_an_upstream_that_asked_everybody_to_wait() {
    let answer =
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::start(answer).await;
    let file = format!("upstreams: {{ local: {{ base_url: {}, retry: {{ throttle_max: 1 }} }} }}", upstream.url());
    let farcall = Setup::new().with_file(&file).start().await;
    let call = farcall.post_call("", &format!(r#"{{"url": "{}/x"}}"#, upstream.url())).await.json();
    crate::http::bounded(async {
        while wait_reason(&farcall, &call).await != "cooldown" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let closed = farcall.get("/v1/upstreams/local").await.json();
    assert!(closed["state"] == "closed" && closed["closed_until"].is_string(), "{closed}");
    let opened = farcall.send("POST", "/v1/upstreams/local/resume", "").await.json();
    assert_eq!((&opened["state"], &opened["closed_until"]), (&json!("open"), &Value::Null));
    farcall.until_ended(1).await;
    assert_eq!(upstream.connections(), 2, "the call that was told to wait went on at once");
}

#[tokio::test]
async fn a_patch_holds_over_a_restart_and_can_be_taken_back() {
    let store = MemoryStore::new();
    let (second, third) = (store.attach(), store.attach());
    let file = "upstreams: { shop: { base_url: https://shop.example, rate_second: 10, timeout: 5 } }";
    let on = |store, file: &str| Setup::new().with_file(file).with(|setup| setup.store = Box::new(store)).start();
    let farcall = on(store, file).await;
    let body = r#"{"rate_second": 5, "timeout": "1m30s", "retry": {"max": 1, "statuses": [500]}, "deadline": 60,
        "success": {"statuses": [200]}, "smooth": true, "strict": true, "jitter": 0, "concurrency": 2, "on_unknown": "retry"}"#;
    let patched = farcall.send("PATCH", "/v1/upstreams/shop", body).await.json();
    let keys = [
        "concurrency",
        "deadline",
        "jitter",
        "on_unknown",
        "rate_second",
        "retry",
        "smooth",
        "strict",
        "success",
        "timeout",
    ];
    assert_eq!(patched["patched"], json!(keys));
    let policy = &patched["policy"];
    assert_eq!((&policy["limits"], &policy["timeout_ms"]), (&json!(["5/1s"]), &json!(90_000)));
    assert_eq!((&policy["retry"]["max"], &policy["retry"]["statuses"]), (&json!(1), &json!(["500"])));
    assert_eq!(patched["concurrency"]["capacity"], 2);
    assert_eq!(patched["spacing"]["interval_ms"], 200);
    let back = farcall.send("PATCH", "/v1/upstreams/shop", r#"{"timeout": null, "smooth": null}"#).await.json();
    assert_eq!((&back["policy"]["timeout_ms"], &back["spacing"]), (&json!(5_000), &Value::Null));
    farcall.stop().await;

    // The file changes one patched key, and another that is not.
    let changed = "upstreams: { shop: { base_url: https://shop.example, rate_second: 20, timeout: 6 } }";
    let farcall = on(second, changed).await;
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!((&shop["policy"]["limits"], &shop["policy"]["timeout_ms"]), (&json!(["20/1s"]), &json!(6_000)));
    assert_eq!((&shop["concurrency"]["capacity"], &shop["policy"]["retry"]["max"]), (&json!(2), &json!(1)));
    assert!(!shop["patched"].as_array().expect("a list").contains(&json!("rate_second")));
    // What is stored after it is stored later.
    assert_eq!(farcall.send("PATCH", "/v1/upstreams/shop", "{}").await.status, 200);
    // What is set after it is stored after it.
    assert_eq!(farcall.send("PATCH", "/v1/upstreams/shop", "{}").await.status, 200);
    farcall.stop().await;

    // As it was: the patch that gave way does not come back.
    let farcall = on(third, file).await;
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!((&shop["policy"]["limits"], &shop["concurrency"]["capacity"]), (&json!(["10/1s"]), &json!(2)));
}

#[tokio::test]
async fn a_patch_that_cannot_be_is_refused_whole_with_its_place() {
    let farcall = with_shop().await;
    let patch = async |body: &str| farcall.send("PATCH", "/v1/upstreams/shop", body).await;
    let refused = check(
        &patch("{\"timeout\": 1,\n \"base_url\": \"https://other.example\"}").await,
        422,
        "invalid_policy",
        Some("base_url"),
    );
    assert_eq!((&refused["line"], &refused["column"]), (&json!(2), &json!(2)), "{refused}");
    let refused = check(&patch(r#"{"limits": ["5/1s", "0/1s"]}"#).await, 422, "invalid_policy", Some("limits"));
    assert_eq!((&refused["line"], &refused["column"]), (&json!(1), &json!(21)), "{refused}");
    check(&patch(r#"{"rate_secnd": 5}"#).await, 422, "invalid_policy", Some("rate_secnd"));
    check(&patch(r#"{"timeout": 1, "timeout": 2}"#).await, 422, "invalid_policy", Some("timeout"));
    check(&patch(r#"{"wait": 1, "retry": {"base": 2}}"#).await, 422, "invalid_policy", Some("retry"));
    check(&patch(r#"{"hedge": {"extra": 1}}"#).await, 422, "invalid_policy", Some("hedge"));
    check(&patch(r#"{"hedge": {"after": "p20"}}"#).await, 422, "invalid_policy", Some("hedge"));
    check(&patch(r#"{"timeout": 1, "hedge": {"after": 1}}"#).await, 422, "invalid_policy", Some("hedge"));
    check(&patch("[1]").await, 400, "malformed_document", None);
    check(&patch("{\"timeout\": 1").await, 400, "malformed_document", None);
    check(&patch("limits: [5/1s]").await, 400, "malformed_document", None);
    let shop = farcall.get("/v1/upstreams/shop").await.json();
    assert_eq!((&shop["patched"], &shop["policy"]["timeout_ms"]), (&json!([]), &json!(90_000)));
    assert_eq!(patch(r#"{"wait": 9}"#).await.status, 200);
    let refused = patch(r#"{"retry": {"base": 2}}"#).await;
    let refused = check(&refused, 422, "invalid_policy", Some("retry"));
    assert!(refused.get("line").is_none(), "the other key stands in no text of this request: {refused}");
}

#[tokio::test]
async fn an_origin_is_patched_for_itself_alone() {
    let farcall = Setup::new().with_file("defaults: { rate_second: 9, addresses: any }").start().await;
    for port in [1, 2] {
        let document = format!(r#"{{"url": "http://localhost:{port}/x", "delay": 3600}}"#);
        assert_eq!(farcall.post_call("", &document).await.status, 202);
    }
    let path = |port| format!("/v1/upstreams/http%3A%2F%2Flocalhost%3A{port}");
    let patched = farcall.send("PATCH", &path(1), r#"{"rate_second": 2}"#).await.json();
    assert_eq!(patched["policy"]["limits"], json!(["2/1s"]));
    assert_eq!(farcall.get(&path(2)).await.json()["policy"]["limits"], json!(["9/1s"]));
}

#[tokio::test]
async fn a_pause_that_cannot_be_stored_holds_and_is_told_when_it_is() {
    let store = MemoryStore::new();
    let troubles = store.troubles();
    let file = "upstreams: { shop: { base_url: https://shop.example } }";
    let farcall = Setup::new().with_file(file).with(|setup| setup.store = Box::new(store)).start().await;
    troubles.set(Trouble::Full);
    let handle = farcall.handle().clone();
    let pausing = tokio::spawn(async move { handle.set_upstream("shop", farcall_engine::Setting::Pause).await });
    crate::http::bounded(async {
        while farcall.get("/v1/upstreams/shop").await.json()["state"] != "paused" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!pausing.is_finished(), "nobody is told before it is stored");
    troubles.set(Trouble::None);
    let paused = crate::http::bounded(pausing).await.expect("it does not panic").expect("it is stored");
    assert!(paused.is_paused);
}

#[tokio::test]
async fn a_change_is_answered_when_what_was_leaving_has_arrived() {
    for (method, path, body) in
        [("PATCH", "/v1/upstreams/local", r#"{"rate_second": 1}"#), ("POST", "/v1/upstreams/local/pause", "")]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let file = format!("upstreams: {{ local: {{ base_url: 'http://{address}', rate_second: 10, jitter: 1.5 }} }}");
        let farcall = Setup::new().with_file(&file).start().await;
        farcall.post_call("", r#"{"upstream": "local", "end_point": "/x"}"#).await;
        // It is never answered, so that it has arrived is certain only when the delay cannot be longer.
        let (mut stream, _) = crate::http::bounded(listener.accept()).await.expect("a connection");
        let mut first = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.expect("a request");
        let arrived = std::time::Instant::now();
        assert_eq!(farcall.send(method, path, body).await.status, 200);
        let waited = arrived.elapsed();
        assert!(waited >= std::time::Duration::from_millis(1_300), "{method} {path} was answered after {waited:?}");
    }
}
