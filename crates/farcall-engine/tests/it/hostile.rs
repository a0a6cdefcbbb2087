//! Upstreams that mean harm, against the whole engine: whatever they send or hold back, the call ends in time, its slot
//! is free again, and the next call is made.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::engine::{drop_file, response, start};
use crate::upstream::{Step, Upstream, ok};
use farcall_store::memory::MemoryStore;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// One attempt may take so long, and its end be noticed so much later on a busy machine: the steps themselves would never end.
const TIMEOUT_MS: u64 = 300;
const LATE_MS_MAX: u64 = 3_000;

/// One connection at a time, one attempt per call.
fn configure(dir: &Path, upstream: &Upstream, more: &str) -> std::io::Result<()> {
    let settings = format!("base_url: \"{}\", concurrency: 1, {more}", upstream.url(""));
    std::fs::write(dir.join("farcall.yml"), format!("upstreams:\n  api: {{ {settings} }}\n"))
}

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// What becomes of one call to an upstream that does this on its first connection, and serves on all others.
async fn end_of(steps: &[Step], more: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let script = steps.to_vec();
    let upstream = Upstream::start(move |connection| match connection {
        0 => [&[Step::Request], &script[..]].concat(),
        _ => vec![Step::Serve(ok("hi"))],
    })
    .await;
    configure(dir.path(), &upstream, more)?;
    let engine = start(dir.path(), MemoryStore::new())?;
    drop_file(dir.path(), "first.json", r#"{"upstream": "api", "end_point": "/", "body": "order"}"#)?;
    drop_file(dir.path(), "second.json", r#"{"upstream": "api", "end_point": "/", "body": "order"}"#)?;
    let first = response(dir.path(), "first.json").await;
    let second = response(dir.path(), "second.json").await;
    let (victim, other) = if first["state"] == "succeeded" { (second, first) } else { (first, second) };
    assert_eq!(other["state"], "succeeded", "{steps:?}: the slot is free again: {other}");
    engine.handle().drain().await;
    engine.join().await?;
    Ok(victim)
}

/// An upstream that stalls after these steps.
async fn check_stalled(steps: &[Step], status: Option<u16>) -> Outcome {
    let script = [steps, &[Step::AwaitClose]].concat();
    let end =
        end_of(&script, &format!("retry: 0, timeout: {}", Duration::from_millis(TIMEOUT_MS).as_secs_f64())).await?;
    assert_eq!((&end["state"], &end["error"]["kind"]), (&"unknown".into(), &"timeout".into()), "{steps:?}: {end}");
    assert_eq!(end["status"].as_u64(), status.map(u64::from), "{end}");
    let took_ms = end["duration_ms"].as_u64().ok_or("no duration")?;
    assert!((TIMEOUT_MS..=TIMEOUT_MS + LATE_MS_MAX).contains(&took_ms), "{steps:?}: {took_ms} ms");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_stalls_anywhere_is_given_up_in_time() -> Outcome {
    check_stalled(&[], None).await?;
    check_stalled(&[send("HTTP/1.1 2")], None).await?;
    check_stalled(&[send("HTTP/1.1 200 OK\r\ncontent-le")], None).await?;
    check_stalled(&[send("HTTP/1.1 103 Early Hints\r\n\r\n")], None).await?;
    check_stalled(&[send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")], Some(200)).await?;
    check_stalled(&[send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")], Some(200)).await?;
    check_stalled(&[send("HTTP/1.1 200 OK\r\n\r\nabc")], Some(200)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_drip_buy_no_time() -> Outcome {
    // Each byte comes in time, and all of them together never do.
    let body = Step::DripFor { byte: b'z', every: Duration::from_millis(20) };
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "] {
        let status = head.ends_with("\r\n\r\n").then_some(200);
        check_stalled(&[send(head), body.clone()], status).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_the_call_and_not_the_engine() -> Outcome {
    let floods = [
        ("HTTP/1.1 200 OK\r\n", "x-field: y\r\n", "too_large"),
        ("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyy", "too_large"),
        ("", "HTTP/1.1 102 Processing\r\n\r\n", "too_large"),
        ("HTTP/1.1 200 OK\r\n\r\n", "zzzzzzzzzzzzzzzz", "too_large"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nz\r\n", "too_large"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "extension", "protocol"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "trailer: x\r\n", "protocol"),
        // A size that never ends takes no memory.
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "0", "timeout"),
    ];
    for (start, flood, kind) in floods {
        let steps = [send(start), Step::SendForever(flood.repeat(100).into_bytes())];
        let end = end_of(&steps, "retry: 0, max_response: 100KiB, timeout: 2").await?;
        assert_eq!(end["error"]["kind"], kind, "{start:?} and {flood:?} without end: {end}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ideas_of_a_bodys_end_are_no_answer_to_build_on() -> Outcome {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi!HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for steps in [[send(both), Step::AwaitClose], [send(smuggled), Step::AwaitClose]] {
        let dir = tempfile::tempdir()?;
        let script = steps.to_vec();
        let upstream = Upstream::start(move |connection| match connection {
            0 => [&[Step::Request], &script[..]].concat(),
            _ => vec![Step::Serve(ok("hi"))],
        })
        .await;
        configure(dir.path(), &upstream, "retry: 0")?;
        let engine = start(dir.path(), MemoryStore::new())?;
        for name in ["first.json", "second.json"] {
            drop_file(dir.path(), name, r#"{"upstream": "api", "end_point": "/", "body": "order"}"#)?;
            let response = response(dir.path(), name).await;
            assert_ne!(response["body"], "poison", "{response}");
        }
        assert_eq!(upstream.connections(), 2, "the first connection carries nothing more");
        engine.handle().drain().await;
        engine.join().await?;
    }
    Ok(())
}

/// A 429 with this header, and another answer on the next connection.
async fn throttled(header: &str, more: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let reply = format!("HTTP/1.1 429 Slow\r\n{header}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let upstream = Upstream::start(move |connection| match connection {
        0 => vec![Step::Request, send(&reply)],
        _ => vec![Step::Serve(ok("hi"))],
    })
    .await;
    configure(dir.path(), &upstream, more)?;
    let engine = start(dir.path(), MemoryStore::new())?;
    drop_file(dir.path(), "call.json", r#"{"upstream": "api", "end_point": "/", "body": "order"}"#)?;
    let response = response(dir.path(), "call.json").await;
    engine.handle().drain().await;
    engine.join().await?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_kept_in_every_form_and_garbage_is_none() -> Outcome {
    const QUICK: &str = "retry: { max: 1, wait: 0.01, retry_after_max: 1h }";
    // Thirty years apart from our clock, and a second apart from each other.
    let dated = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:38 GMT";
    for header in ["retry-after: 1", dated] {
        let response = throttled(header, QUICK).await?;
        let took_ms = response["duration_ms"].as_u64().ok_or("no duration")?;
        assert_eq!((&response["state"], &response["attempts"]), (&"succeeded".into(), &2.into()), "{response}");
        assert!((1_000..3_000).contains(&took_ms), "{header:?}: {took_ms} ms");
    }
    let past = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:36 GMT";
    for header in ["retry-after: 0", "retry-after: -5", "retry-after: soon", "retry-after: 1e9", "retry-after:", past] {
        let response = throttled(header, QUICK).await?;
        let took_ms = response["duration_ms"].as_u64().ok_or("no duration")?;
        assert_eq!((&response["state"], &response["attempts"]), (&"succeeded".into(), &2.into()), "{response}");
        assert!(took_ms < 1_000, "{header:?}: {took_ms} ms");
    }
    for header in
        ["retry-after: 315360000", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT", "retry-after: 99999999999999999999"]
    {
        let response = throttled(header, QUICK).await?;
        assert_eq!(response["error"]["kind"], "retry_after_too_long", "{header:?}: {response}");
        assert_eq!((&response["state"], &response["status"]), (&"failed".into(), &429.into()), "{response}");
    }
    Ok(())
}
