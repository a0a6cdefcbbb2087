//! Calls that somebody waits for, from the handle to a real upstream and back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Source, State, Via, WaitReason};
use farcall_engine::Engine;
use farcall_engine::forward::{
    AnswerMode, Forward, ForwardBody, ForwardError, ForwardOverrides, ForwardSuccess, Forwarded,
};
use farcall_engine::listing::CallFilter;
use farcall_engine::watch::Next;
use farcall_store::memory::MemoryStore;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::engine::{OK, Outcome, start, until};
use crate::upstream::{Step, Upstream, bounded, ok};

/// An engine with one upstream, called `shop`; `policy` are further keys of it.
fn engine(dir: &Path, upstream: &Upstream, policy: &str) -> Result<Engine, Box<dyn std::error::Error>> {
    configure(dir, upstream, policy)?;
    start(dir, MemoryStore::new())
}

fn configure(dir: &Path, upstream: &Upstream, policy: &str) -> std::io::Result<()> {
    let base_url = upstream.url("/v1");
    let text = format!("upstreams:\n  shop: {{ base_url: \"{base_url}\", {policy} }}\n");
    std::fs::write(dir.join("farcall.yml"), text)
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
    // Its end may be heard a moment later than that of its body.
    let handle = engine.handle();
    bounded(async {
        while handle.call(id).await.is_ok_and(|found| found.is_some()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_seen_while_it_runs_and_followed_to_its_end() -> Outcome {
    let dir = tempfile::tempdir()?;
    let gate = Arc::new(Semaphore::new(0));
    let script = vec![Step::Request, Step::Gate(Arc::clone(&gate)), Step::Send(ok("late"))];
    let upstream = Upstream::always(script).await;
    let engine = engine(dir.path(), &upstream, "")?;
    let mut events = engine.handle().events();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
    let handle = engine.handle().clone();
    let out = tokio::spawn(async move { handle.forward(Forward { headers, ..get("/seen") }).await });
    upstream.until(|seen| seen.arrivals.len() == 1).await;
    let page = engine.handle().list(&CallFilter::default(), None, 10).await?;
    let [listed] = &page.calls[..] else { panic!("{page:?}") };
    let id = listed.record.id;
    let seen = engine.handle().call(id).await?.expect("a call that runs");
    assert_eq!((seen.record.progress.state, seen.record.source), (State::Running, Source::Proxy));
    assert_eq!((seen.record.upstream.as_deref(), seen.record.attempts), (Some("shop"), 1));
    assert_eq!(seen.request_headers, [("authorization".to_owned(), "***".to_owned())]);
    let failed = CallFilter { states: vec![State::Failed], ..CallFilter::default() };
    assert!(engine.handle().list(&failed, None, 10).await?.calls.is_empty());
    assert!(engine.handle().metrics().await.contains("farcall_calls{state=\"running\"} 1"));
    gate.add_permits(1);
    assert_eq!(text(bounded(out).await??).await?, "late");
    assert!(engine.handle().call(id).await?.is_none());
    let mut heard = Vec::new();
    while heard.last() != Some(&"ended") {
        match bounded(events.next()).await {
            Some(Next::Event(event)) if event.call == id => heard.push(event.what.as_str()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, ["accepted", "started", "ended"]);
    stop(engine).await
}

/// Something once a call waits.
async fn waiting_at_shop(engine: &Engine) -> Option<()> {
    let overview = engine.handle().overview().await;
    overview.upstreams.iter().any(|upstream| upstream.waiting == 1).then_some(())
}

fn streamed(target: &str) -> Forward {
    Forward { answer: AnswerMode::Streamed, ..get(target) }
}

/// The next piece of a body; nothing at its end.
async fn piece(forwarded: &mut Forwarded) -> Option<Result<Bytes, String>> {
    let frame = bounded(forwarded.body.frame()).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|error| error.to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_given_on_as_it_comes() -> Outcome {
    let dir = tempfile::tempdir()?;
    let gate = Arc::new(Semaphore::new(0));
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = |text: &str| Step::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes());
    let end = Step::Send(b"0\r\nx-sum: 3\r\n\r\n".to_vec());
    let wait = || Step::Gate(Arc::clone(&gate));
    let script = vec![
        Step::Request,
        Step::Send(head),
        wait(),
        chunk("one"),
        wait(),
        chunk("two"),
        wait(),
        end,
        Step::Serve(ok("next")),
    ];
    let upstream = Upstream::always(script).await;
    let engine = engine(dir.path(), &upstream, "")?;
    let mut answer = bounded(engine.handle().forward(streamed("/events"))).await?;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    for expected in ["one", "two"] {
        gate.add_permits(1);
        assert_eq!(piece(&mut answer).await, Some(Ok(Bytes::from(expected))));
    }
    gate.add_permits(1);
    let trailers = bounded(answer.body.frame()).await.expect("trailers").map_err(|error| error.to_string())?;
    assert_eq!(trailers.trailers_ref().map(|trailers| &trailers["x-sum"]), Some(&HeaderValue::from_static("3")));
    assert!(bounded(answer.body.frame()).await.is_none());
    drop(answer);
    until("its end", || async { metric(&engine, "farcall_calls_finished_total", "succeeded", 1).await }).await;
    let again = bounded(engine.handle().forward(streamed("/again"))).await?;
    assert_eq!((text(again).await?.as_str(), upstream.connections()), ("next", 1), "the connection is used again");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_any_size_takes_as_much_memory_as_its_reader_leaves() -> Outcome {
    const BYTES: usize = 64 << 20;
    let dir = tempfile::tempdir()?;
    let mut large = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n").into_bytes();
    large.resize(large.len() + BYTES, b'x');
    let upstream = Upstream::always(vec![Step::Request, Step::Send(large)]).await;
    let engine = engine(dir.path(), &upstream, "max_response: 1MiB")?;
    let mut answer = bounded(engine.handle().forward(streamed("/large"))).await?;
    let (mut bytes, mut largest) = (0, 0);
    while let Some(piece) = piece(&mut answer).await {
        let piece = piece?.len();
        (bytes, largest) = (bytes + piece, largest.max(piece));
    }
    assert_eq!(bytes, BYTES);
    assert!(largest <= 256 << 10, "{largest}");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_no_whole_one() -> Outcome {
    let dir = tempfile::tempdir()?;
    let gate = Arc::new(Semaphore::new(0));
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".to_vec();
    let script = vec![Step::Request, Step::Send(half), Step::Gate(Arc::clone(&gate)), Step::Reset];
    let upstream = Upstream::always(script).await;
    let engine = engine(dir.path(), &upstream, "retry: 3")?;
    let mut answer = bounded(engine.handle().forward(streamed("/"))).await?;
    assert_eq!(piece(&mut answer).await, Some(Ok(Bytes::from_static(b"half"))));
    gate.add_permits(1);
    assert!(matches!(piece(&mut answer).await, Some(Err(_))));
    until("its end", || async { metric(&engine, "farcall_calls_finished_total", "failed", 1).await }).await;
    assert_eq!(upstream.arrivals().len(), 1);
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drops_a_body_closes_the_upstreams_connection() -> Outcome {
    let dir = tempfile::tempdir()?;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
    let endless = vec![Step::Request, Step::Send(head), Step::SendForever(vec![b'x'; 10_000])];
    let upstream = Upstream::always(endless).await;
    let engine = engine(dir.path(), &upstream, "")?;
    let mut answer = bounded(engine.handle().forward(streamed("/"))).await?;
    assert!(piece(&mut answer).await.is_some_and(|piece| piece.is_ok()));
    drop(answer);
    upstream.until(|seen| seen.closed == 1).await;
    until("its end", || async { metric(&engine, "farcall_calls_finished_total", "cancelled", 1).await }).await;
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_tried_again_is_not_given_on() -> Outcome {
    let dir = tempfile::tempdir()?;
    let busy = b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy".to_vec();
    let upstream = Upstream::start(move |connection| match connection {
        0 => vec![Step::Request, Step::Send(busy.clone())],
        _ => vec![Step::Serve(ok("done"))],
    })
    .await;
    let engine = engine(dir.path(), &upstream, "retry: { max: 1, base: 1ms }")?;
    let answer = bounded(engine.handle().forward(streamed("/"))).await?;
    assert_eq!((answer.status.as_u16(), answer.attempts), (200, 2));
    assert_eq!(text(answer).await?, "done");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_cuts_a_body_off_and_so_does_a_silent_upstream() -> Outcome {
    let dir = tempfile::tempdir()?;
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf".to_vec();
    let upstream = Upstream::always(vec![Step::Request, Step::Send(half), Step::AwaitClose]).await;
    let engine = engine(dir.path(), &upstream, "timeout: 100ms")?;
    let timeout = Some(Duration::from_millis(50));
    let mut bound = bounded(engine.handle().forward(Forward { timeout, ..streamed("/bound") })).await?;
    let mut silent = bounded(engine.handle().forward(streamed("/silent"))).await?;
    for answer in [&mut bound, &mut silent] {
        assert_eq!(piece(answer).await, Some(Ok(Bytes::from_static(b"half"))));
        assert!(matches!(piece(answer).await, Some(Err(_))));
    }
    for state in ["expired", "failed"] {
        until(state, || async { metric(&engine, "farcall_calls_finished_total", state, 1).await }).await;
    }
    upstream.until(|seen| seen.closed == 2).await;
    stop(engine).await
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
async fn a_restart_remembers_what_windows_over_a_second_have_counted() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let store = MemoryStore::new();
    let policy = "limits: [\"2/1h\"]";
    configure(dir.path(), &upstream, policy)?;
    let first = start(dir.path(), store.attach())?;
    for _ in 0..2 {
        assert_eq!(bounded(first.handle().forward(get("/"))).await?.status, 200);
    }
    stop(first).await?;
    let second = start(dir.path(), store.attach())?;
    let timeout = Some(Duration::from_millis(50));
    let third = bounded(second.handle().forward(Forward { timeout, ..get("/") })).await;
    assert!(matches!(third, Err(ForwardError::Refused { reason: WaitReason::RateLimit, .. })), "{third:?}");
    assert_eq!(upstream.arrivals().len(), 2);
    stop(second).await
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
