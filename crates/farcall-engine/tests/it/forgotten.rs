//! Undeclared upstreams that come one after another: those that nothing needs are forgotten, and nothing that counts
//! goes with them.

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::{Source, State, Via, WaitReason};
use farcall_engine::config::{LoadOptions, PatchDocument, load};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Engine, Handle, Setting, Submission};
use farcall_store::memory::MemoryStore;

use crate::engine::{OK, Outcome, until};
use crate::upstream::{Step, Upstream};

const AT_ONCE: usize = 500;

/// An origin where nobody listens.
fn dead(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("http://127.{a}.{b}.{c}:9")
}

/// Submits a call to each of these, without retries.
async fn submit(handle: &Handle, urls: impl Iterator<Item = String>) -> Outcome {
    let config = handle.config();
    let submission = |url: String| -> Result<Submission, Box<dyn std::error::Error>> {
        let bytes = Bytes::from(format!(r#"{{"url": "{url}/", "retry": 0}}"#));
        Ok(Submission {
            document: Box::new(parse(&bytes, &Routing::from(config.as_ref()))?),
            bytes,
            source: Source::Bulk,
            via: Via::User,
            file: None,
            scope: String::new(),
            retry_of: None,
            id: None,
        })
    };
    let answers = handle.submit_many(urls.map(submission).collect::<Result<_, _>>()?).await;
    assert!(answers.iter().all(Result::is_ok));
    Ok(())
}

/// Makes one call to each of these dead origins, a few hundred at a time; `look` is told after each few hundred how many
/// upstreams are known. None of them was called before.
async fn call_dead(handle: &Handle, origins: std::ops::Range<u32>, mut look: impl FnMut(usize)) -> Outcome {
    let before = handle.snapshot().census.calls(State::Failed);
    let all: Vec<u32> = origins.clone().collect();
    for some in all.chunks(AT_ONCE) {
        submit(handle, some.iter().map(|&number| dead(number))).await?;
        let ended = before + some.last().map_or(0, |last| u64::from(last + 1 - origins.start));
        until("all ends", || async { (handle.snapshot().census.calls(State::Failed) == ended).then_some(()) }).await;
        let overview = handle.overview().await;
        let told: u64 = overview.upstreams.iter().flat_map(|upstream| &upstream.ended).map(|(_, count)| count).sum();
        assert_eq!(told, handle.snapshot().census.sum(), "what forgotten ones did is told still");
        look(overview.upstreams.len());
    }
    Ok(())
}

async fn stop(engine: Engine) -> Outcome {
    engine.handle().drain().await;
    Ok(engine.join().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_that_nothing_needs_any_more_are_forgotten() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = crate::engine::start(dir.path(), MemoryStore::new())?;
    let (handle, mut last, mut times_fewer) = (engine.handle(), 0, 0);
    call_dead(handle, 0..6_000, |known| {
        times_fewer += u32::from(known < last);
        last = known;
        assert!(known <= 3_000, "{known} upstreams are known");
    })
    .await?;
    assert!(times_fewer > 0, "none was ever forgotten");
    let counted = "farcall_calls_finished_total{upstream=\"undeclared\",state=\"failed\"} 6000";
    let metrics = handle.metrics().await;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    assert!(handle.upstream(&dead(0)).await.is_none(), "the first one is forgotten");
    call_dead(handle, 0..1, |_| ()).await?;
    assert!(handle.upstream(&dead(0)).await.is_some(), "and comes back with its next call");

    // Whoever has the number of one that is gone is counted by its own name.
    let declared = format!("upstreams: {{ shop: {{ base_url: \"{}\" }} }}", dead(7_000));
    std::fs::write(dir.path().join("farcall.yml"), declared)?;
    handle.reload(Arc::new(load(dir.path(), &LoadOptions::default())?.config)).await?;
    call_dead(handle, 7_000..7_001, |_| ()).await?;
    let metrics = handle.metrics().await;
    let counted = "farcall_calls_finished_total{upstream=\"shop\",state=\"failed\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_cool_pauses_and_patches_are_not_forgotten() -> Outcome {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("farcall.yml"), "defaults: { limits: [1/1h] }")?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let limited = upstream.url("/").as_str().trim_end_matches('/').to_owned();
    let engine = crate::engine::start(dir.path(), MemoryStore::new())?;
    let handle = engine.handle();
    submit(handle, std::iter::once(limited.clone())).await?;
    until("its call ends", || async { (handle.snapshot().census.calls(State::Succeeded) == 1).then_some(()) }).await;
    call_dead(handle, 0..2, |_| ()).await?;
    handle.set_upstream(&dead(0), Setting::Pause).await?;
    handle.set_upstream(&dead(1), Setting::Patch(PatchDocument::parse(br#"{"limits": ["7/1h"]}"#)?)).await?;
    call_dead(handle, 2..3_000, |_| ()).await?;
    assert!(handle.upstream(&dead(2)).await.is_none(), "others of their age are forgotten");

    let paused = handle.upstream(&dead(0)).await.ok_or("the paused one is gone")?;
    assert!(paused.is_paused);
    let patched = handle.upstream(&dead(1)).await.ok_or("the patched one is gone")?;
    assert_eq!((patched.patched, patched.limits[0].spec.count.get()), (vec!["limits".to_owned()], 7));
    submit(handle, std::iter::once(limited.clone())).await?;
    let waits = || async { handle.upstream(&limited).await.filter(|upstream| upstream.waiting == 1) };
    let view = until("its second call waits", waits).await;
    assert_eq!((view.wait_reason, view.limits[0].used), (Some(WaitReason::RateLimit), 1));
    assert_eq!(upstream.arrivals().len(), 1);
    stop(engine).await
}
