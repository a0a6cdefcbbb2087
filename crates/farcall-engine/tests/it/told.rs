//! What upstreams say of their quota, against the whole engine: how soon the next call is made.

use std::path::Path;
use std::time::Duration;

use farcall_store::memory::MemoryStore;
use serde_json::Value;

use super::engine::{Outcome, drop_file, response, start};
use crate::upstream::{Step, Upstream, ok};

fn configure(dir: &Path, upstream: &Upstream, more: &str) -> std::io::Result<()> {
    let settings = format!("base_url: \"{}\", concurrency: 1, {more}", upstream.url(""));
    std::fs::write(dir.join("farcall.yml"), format!("upstreams:\n  api: {{ {settings} }}\n"))
}

fn said(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

fn moment(response: &Value, key: &str) -> Result<jiff::Timestamp, Box<dyn std::error::Error>> {
    Ok(response[key].as_str().ok_or("no such moment")?.parse()?)
}

/// How long after the first call's end, whose answer has these headers, the second is begun.
async fn pause_after(headers: &str) -> Result<Duration, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let answer = said("200 OK", headers);
    let upstream = Upstream::start(move |connection| match connection {
        0 => vec![Step::Request, Step::Send(answer.clone())],
        _ => vec![Step::Serve(ok("hi"))],
    })
    .await;
    configure(dir.path(), &upstream, "retry: 0")?;
    let engine = start(dir.path(), MemoryStore::new())?;
    for name in ["first.json", "second.json"] {
        drop_file(dir.path(), name, r#"{"upstream": "api", "end_point": "/"}"#)?;
    }
    let (one, other) = (response(dir.path(), "first.json").await, response(dir.path(), "second.json").await);
    engine.handle().drain().await;
    engine.join().await?;
    assert_eq!((&one["state"], &other["state"]), (&"succeeded".into(), &"succeeded".into()), "{headers}");
    let (ended, began) = ((moment(&one, "finished_at")?, moment(&other, "finished_at")?), "started_at");
    let (first, second) = if ended.0 < ended.1 { (&one, &other) } else { (&other, &one) };
    Ok(moment(second, began)?.duration_since(moment(first, "finished_at")?).try_into().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_remains_is_kept_in_every_form() -> Outcome {
    // Years apart from our clock.
    let date = "date: Sun, 06 Nov 2011 08:49:37 GMT";
    for headers in [
        "ratelimit: \"default\";r=0;t=1".to_owned(),
        "ratelimit-remaining: 0\r\nratelimit-reset: 1".to_owned(),
        format!("{date}\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1320569378"),
        format!("{date}\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1320569378000"),
        format!("{date}\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: Sun, 06 Nov 2011 08:49:38 GMT"),
        format!(
            "{date}\r\nanthropic-ratelimit-requests-remaining: 0\r\nanthropic-ratelimit-requests-reset: 2011-11-06T08:49:38Z"
        ),
        "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1000ms".to_owned(),
        "x-shopify-shop-api-call-limit: 40/40".to_owned(),
    ] {
        let pause = pause_after(&headers).await?;
        assert!((Duration::from_millis(990)..Duration::from_secs(5)).contains(&pause), "{headers}: {pause:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_holds_nobody_up() -> Outcome {
    for headers in [
        "x-ratelimit-limit: 0\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 3600",
        "x-ratelimit-remaining: -1\r\nx-ratelimit-reset: 3600",
        "x-ratelimit-remaining: unlimited\r\nx-ratelimit-reset: 3600",
        "date: Sun, 06 Nov 2011 08:49:37 GMT\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1320568600",
        "age: 60\r\nratelimit: \"default\";r=0;t=3600",
        "ratelimit: \"default\";r=1;t=3600",
    ] {
        let pause = pause_after(headers).await?;
        assert!(pause < Duration::from_millis(900), "{headers}: {pause:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away_until_the_reset_comes_back_then_without_using_up_a_retry() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|connection| match connection {
        0 | 1 => {
            let headers = "ratelimit-limit: 10\r\nratelimit-remaining: 0\r\nratelimit-reset: 1";
            vec![Step::Request, Step::Send(said("429 Too Many Requests", headers))]
        }
        _ => vec![Step::Serve(ok("hi"))],
    })
    .await;
    configure(dir.path(), &upstream, "retry: { max: 1, wait: 0.01 }")?;
    let engine = start(dir.path(), MemoryStore::new())?;
    drop_file(dir.path(), "call.json", r#"{"upstream": "api", "end_point": "/"}"#)?;
    let response = response(dir.path(), "call.json").await;
    engine.handle().drain().await;
    engine.join().await?;
    assert_eq!((&response["state"], &response["attempts"]), (&"succeeded".into(), &3.into()), "{response}");
    let took_ms = response["duration_ms"].as_u64().ok_or("no duration")?;
    assert!((2_000..10_000).contains(&took_ms), "{took_ms} ms");
    Ok(())
}
