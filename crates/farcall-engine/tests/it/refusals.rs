//! Calls that somebody waits for and that are not taken on: told at once why, and when to come again.

use std::time::Duration;

use farcall_core::call::{Source, Via, WaitReason};
use farcall_engine::Engine;
use farcall_engine::forward::{AnswerMode, Forward, ForwardBody, ForwardError, ForwardOverrides};
use farcall_store::memory::MemoryStore;
use http::{HeaderMap, Method};

use crate::engine::{OK, Outcome, start};
use crate::upstream::{Step, Upstream, bounded};

const NO: &[u8] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn engine(
    answer: &[u8],
    policy: &str,
) -> Result<(Engine, Upstream, tempfile::TempDir), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Serve(answer.to_vec())]).await;
    let text = format!("upstreams:\n  shop: {{ base_url: \"{}\", {policy} }}\n", upstream.url("/v1"));
    std::fs::write(dir.path().join("farcall.yml"), text)?;
    Ok((start(dir.path(), MemoryStore::new())?, upstream, dir))
}

fn get(timeout: Option<Duration>) -> Forward {
    Forward {
        source: Source::Proxy,
        upstream: "shop".to_owned(),
        method: Method::GET,
        target: "/x".to_owned(),
        headers: HeaderMap::new(),
        body: ForwardBody::Empty,
        timeout,
        overrides: ForwardOverrides::default(),
        answer: AnswerMode::Whole,
        trace: None,
        via: Via::User,
    }
}

async fn stop(engine: Engine) -> Outcome {
    engine.handle().drain().await;
    bounded(engine.join()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_an_upstream_that_is_left_alone() -> Outcome {
    let (engine, _upstream, _dir) = engine(NO, "breaker: { calls: 2, open: 1h }").await?;
    for _ in 0..2 {
        assert_eq!(
            bounded(engine.handle().forward(get(None))).await?.status.as_u16(),
            500,
            "its answer is given as it is"
        );
    }
    match bounded(engine.handle().forward(get(None))).await {
        Err(ForwardError::Refused { reason: WaitReason::BreakerOpen, retry_after }) => {
            assert!(retry_after > Duration::from_secs(3_000), "{retry_after:?}");
        }
        other => return Err(format!("{other:?}").into()),
    }
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_served_in_time_is_told_so_at_once() -> Outcome {
    let (engine, _upstream, _dir) = engine(OK, "limits: [\"1/1h\"]").await?;
    assert_eq!(bounded(engine.handle().forward(get(None))).await?.status.as_u16(), 200);
    match bounded(engine.handle().forward(get(Some(Duration::from_secs(60))))).await {
        Err(ForwardError::Refused { reason: WaitReason::RateLimit, retry_after }) => {
            assert!(retry_after > Duration::from_secs(3_000), "{retry_after:?}");
        }
        other => return Err(format!("{other:?}").into()),
    }
    stop(engine).await
}
