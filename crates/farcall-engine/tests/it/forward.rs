//! Calls that somebody waits for, from the handle to a real upstream and back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Source, Via};
use farcall_engine::Engine;
use farcall_engine::forward::{
    AnswerMode, Forward, ForwardBody, ForwardError, ForwardOverrides, ForwardSuccess, Forwarded,
};
use farcall_store::memory::MemoryStore;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::engine::{OK, Outcome, start, until};
use crate::upstream::{Step, Upstream, bounded, ok};

/// An engine with one upstream, called `shop`; `policy` are further keys of it.
fn engine(dir: &Path, upstream: &Upstream, policy: &str) -> Result<Engine, Box<dyn std::error::Error>> {
    let base_url = upstream.url("/v1");
    let text = format!("upstreams:\n  shop: {{ base_url: \"{base_url}\", {policy} }}\n");
    std::fs::write(dir.join("farcall.yml"), text)?;
    start(dir, MemoryStore::new())
}

fn get(target: &str) -> Forward {
    Forward {
        source: Source::Proxy,
        upstream: "shop".to_owned(),
        method: Method::GET,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: ForwardBody::Empty,
        timeout: None,
        overrides: ForwardOverrides::default(),
        answer: AnswerMode::Whole,
        trace: None,
        via: Via::User,
    }
}

async fn text(forwarded: Forwarded) -> Result<String, Box<dyn std::error::Error>> {
    let body = forwarded.body.collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(body.to_bytes().to_vec())?)
}

async fn stop(engine: Engine) -> Outcome {
    engine.handle().drain().await;
    bounded(engine.join()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_sent_at_once_and_its_answer_given_back() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Serve(OK.to_vec())]).await;
    let engine = engine(dir.path(), &upstream, "headers: { x-key: theirs }")?;
    let mut headers = HeaderMap::new();
    headers.insert("x-key", HeaderValue::from_static("the client's"));
    headers.append("x-many", HeaderValue::from_static("1"));
    headers.append("x-many", HeaderValue::from_static("2"));
    let body = ForwardBody::Whole(Bytes::from_static(b"{\"n\": 1}"));
    let forward =
        Forward { method: Method::POST, headers, body, answer: AnswerMode::Streamed, ..get("/orders?a=%20b") };
    let answer = bounded(engine.handle().forward(forward)).await?;
    let id = answer.id;
    assert_eq!((answer.status.as_u16(), answer.attempts), (200, 1));
    assert_eq!(answer.headers[&HeaderName::from_static("content-type")], "application/json");
    assert_eq!(text(answer).await?, r#"{"ok":true}"#);
    let arrivals = upstream.arrivals();
    assert_eq!((arrivals.len(), &arrivals[0].body[..]), (1, &b"{\"n\": 1}"[..]));
    let head = &arrivals[0].head;
    assert!(head.starts_with("POST /v1/orders?a=%20b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-key: theirs\r\n") && !head.contains("client's"), "{head}");
    assert!(head.contains("\r\nx-many: 1\r\nx-many: 2\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nidempotency-key: {id}\r\n")), "{head}");
    assert!(!head.contains("accept-encoding"), "whoever decodes asks for it: {head}");
    assert!(engine.handle().call(id).await?.is_none(), "nothing of it is kept");
    assert_eq!(engine.handle().snapshot().census.accepted, 0);
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_upstream_says_last_is_the_answer_whatever_it_is() -> Outcome {
    let dir = tempfile::tempdir()?;
    let failing = b"HTTP/1.1 500 No\r\ncontent-length: 5\r\n\r\nsorry".to_vec();
    let upstream = Upstream::start(move |connection| match connection {
        0 => vec![Step::Request, Step::Send(failing.clone()), Step::Reset],
        _ => vec![Step::Request, Step::Reset],
    })
    .await;
    let engine = engine(dir.path(), &upstream, "retry: { max: 1, base: 1ms }")?;
    let answer = bounded(engine.handle().forward(get("/a"))).await?;
    assert_eq!((answer.status.as_u16(), answer.attempts), (500, 2));
    assert_eq!(text(answer).await?, "sorry");
    let failed = bounded(engine.handle().forward(get("/b"))).await.expect_err("no answer at all");
    assert!(matches!(failed, ForwardError::Failed { kind: ErrorKind::Reset, attempts: 2, .. }), "{failed:?}");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_word_on_retries_there_are_none() -> Outcome {
    let dir = tempfile::tempdir()?;
    let unavailable = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec();
    let upstream = Upstream::always(vec![Step::Serve(unavailable)]).await;
    let engine = engine(dir.path(), &upstream, "timeout: 20s")?;
    let answer = bounded(engine.handle().forward(get("/a"))).await?;
    assert_eq!((answer.status.as_u16(), answer.attempts, upstream.arrivals().len()), (503, 1, 1));
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_closes_the_upstreams_connection() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Request, Step::AwaitClose]).await;
    let engine = engine(dir.path(), &upstream, "concurrency: 1")?;
    let handle = engine.handle().clone();
    let out = tokio::spawn(async move { handle.forward(get("/slow")).await });
    upstream.until(|seen| seen.arrivals.len() == 1).await;
    let handle = engine.handle().clone();
    let waiting = tokio::spawn(async move { handle.forward(get("/never")).await });
    until("it to wait", || waiting_at_shop(&engine)).await;
    waiting.abort();
    assert!(bounded(waiting).await.is_err_and(|error| error.is_cancelled()));
    out.abort();
    upstream.until(|seen| seen.closed == 1).await;
    until("both to be gone", || async { metric(&engine, "farcall_calls_finished_total", "cancelled", 2).await }).await;
    assert_eq!(upstream.arrivals().len(), 1);
    stop(engine).await
}

/// Something once a call waits.
async fn waiting_at_shop(engine: &Engine) -> Option<()> {
    let overview = engine.handle().overview().await;
    overview.upstreams.iter().any(|upstream| upstream.waiting == 1).then_some(())
}

/// Something once a counter of `shop` stands so.
async fn metric(engine: &Engine, name: &str, state: &str, count: u32) -> Option<()> {
    let wanted = format!("{name}{{upstream=\"shop\",state=\"{state}\"}} {count}");
    engine.handle().metrics().await.lines().any(|line| line == wanted).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_binds_waiting_and_sending() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Request, Step::AwaitClose]).await;
    let engine = engine(dir.path(), &upstream, "concurrency: 1")?;
    let timeout = Some(Duration::from_millis(50));
    let first = engine.handle().forward(Forward { timeout, ..get("/slow") });
    let second = engine.handle().forward(Forward { timeout, ..get("/waits") });
    let (first, second) = bounded(async { tokio::join!(first, second) }).await;
    assert!(matches!(first, Err(ForwardError::Expired { attempts: 1, .. })), "{first:?}");
    assert!(matches!(second, Err(ForwardError::Expired { .. })), "{second:?}");
    upstream.until(|seen| seen.closed == seen.connections).await;
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![]).await;
    let engine = engine(dir.path(), &upstream, "")?;
    let unknown = Forward { upstream: "other".to_owned(), ..get("/") };
    let unknown = bounded(engine.handle().forward(unknown)).await;
    assert!(matches!(&unknown, Err(ForwardError::UnknownUpstream { name }) if name == "other"), "{unknown:?}");
    let out = bounded(engine.handle().forward(get("/%2e%2e/secret"))).await;
    assert!(matches!(out, Err(ForwardError::Rejected(_))), "{out:?}");
    assert_eq!(upstream.connections(), 0);
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn success_can_be_that_the_body_is_json() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Serve(ok("no json"))]).await;
    let engine = engine(dir.path(), &upstream, "")?;
    let success = ForwardSuccess { parses_as_json: true, ..ForwardSuccess::default() };
    let overrides = ForwardOverrides { success, ..ForwardOverrides::default() };
    let answer = bounded(engine.handle().forward(Forward { overrides, ..get("/") })).await?;
    assert_eq!(text(answer).await?, "no json");
    until("a failure", || async { metric(&engine, "farcall_calls_finished_total", "failed", 1).await }).await;
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_when_farcall_stops() -> Outcome {
    let dir = tempfile::tempdir()?;
    let gate = Arc::new(Semaphore::new(0));
    let script = vec![Step::Request, Step::Gate(Arc::clone(&gate)), Step::Send(ok("late"))];
    let upstream = Upstream::always(script).await;
    let engine = engine(dir.path(), &upstream, "concurrency: 1")?;
    let (handle, other) = (engine.handle().clone(), engine.handle().clone());
    let out = tokio::spawn(async move { handle.forward(get("/out")).await });
    upstream.until(|seen| seen.arrivals.len() == 1).await;
    let waiting = tokio::spawn(async move { other.forward(get("/waits")).await });
    until("it to wait", || waiting_at_shop(&engine)).await;
    engine.handle().drain().await;
    let refused = bounded(waiting).await?;
    assert!(matches!(refused, Err(ForwardError::Draining)), "{refused:?}");
    gate.add_permits(1);
    assert_eq!(text(bounded(out).await??).await?, "late");
    bounded(engine.join()).await?;
    Ok(())
}
