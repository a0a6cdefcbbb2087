//! Permits for programs that make their requests themselves: waited for, lent, given back, left to expire.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use farcall_core::call::Priority;
use farcall_engine::permit::{Lease, PermitError, PermitWish, Release};
use farcall_engine::{Engine, Handle, UpstreamView};
use farcall_store::memory::MemoryStore;
use http::{HeaderMap, HeaderValue};
use tokio::task::JoinHandle;

use crate::engine::{Outcome, drop_file, response, start, until};
use crate::upstream::{Step, Upstream, bounded, ok};

fn engine(dir: &Path, base_url: &str, policy: &str) -> Result<Engine, Box<dyn std::error::Error>> {
    engine_on(dir, base_url, policy, MemoryStore::new())
}

fn engine_on(
    dir: &Path,
    base_url: &str,
    policy: &str,
    store: MemoryStore,
) -> Result<Engine, Box<dyn std::error::Error>> {
    let text = format!("upstreams:\n  shop: {{ base_url: \"{base_url}\", {policy} }}\n");
    std::fs::write(dir.join("farcall.yml"), text)?;
    start(dir, store)
}

fn wish() -> PermitWish {
    PermitWish {
        upstream: "shop".to_owned(),
        cost: NonZeroU32::MIN,
        priority: Priority::default(),
        lease: Duration::from_secs(60),
    }
}

/// Somebody who waits for a permit.
fn waiting(handle: &Handle) -> JoinHandle<Result<Lease, PermitError>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.permit(wish()).await })
}

async fn shop(handle: &Handle) -> UpstreamView {
    handle.upstream("shop").await.expect("it is declared")
}

async fn until_waiting(handle: &Handle, count: u64) {
    until("those who wait", || async { (shop(handle).await.waiting == count).then_some(()) }).await;
}

async fn stop(engine: Engine) -> Outcome {
    engine.handle().drain().await;
    bounded(engine.join()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_holds_its_slots_of_every_window_until_it_is_given_back_unsent() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = engine(dir.path(), "http://127.0.0.1:9", "limits: [\"3/1h\", \"9/2h\"]")?;
    let handle = engine.handle();
    let large = bounded(handle.permit(PermitWish { cost: NonZeroU32::new(2).ok_or("two")?, ..wish() })).await?;
    let small = bounded(handle.permit(wish())).await?;
    assert_eq!((large.cost, small.cost, &*small.upstream), (2, 1, "shop"));
    let used = |view: &UpstreamView| view.limits.iter().map(|limit| limit.used).collect::<Vec<_>>();
    assert_eq!(used(&shop(handle).await), [3, 3]);
    let third = waiting(handle);
    until_waiting(handle, 1).await;
    assert!(!handle.release("other", small.id, Release::default()).await, "it is lent for another upstream");
    assert!(handle.release("shop", small.id, Release { unsent: true, ..Release::default() }).await);
    let third = bounded(third).await??;
    assert!(!handle.release("shop", small.id, Release::default()).await, "it was given back");
    assert!(handle.release("shop", third.id, Release::default()).await);
    assert!(handle.release("shop", large.id, Release { status: Some(200), ..Release::default() }).await);
    assert_eq!(used(&shop(handle).await), [3, 3], "what was sent counts");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_permits_share_the_limits() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let engine = engine(dir.path(), upstream.url("").as_str(), "limits: [\"1/1h\"]")?;
    let lent = bounded(engine.handle().permit(wish())).await?;
    drop_file(dir.path(), "call.json", r#"{"upstream": "shop", "end_point": "/"}"#)?;
    until_waiting(engine.handle(), 1).await;
    assert_eq!(upstream.arrivals().len(), 0);
    assert!(engine.handle().release("shop", lent.id, Release { unsent: true, ..Release::default() }).await);
    assert_eq!(response(dir.path(), "call.json").await["state"], "succeeded");
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_that_is_left_to_expire_counts_as_sent() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = engine(dir.path(), "http://127.0.0.1:9", "limits: [\"1/1h\"], concurrency: 1")?;
    let handle = engine.handle();
    let lent = bounded(handle.permit(PermitWish { lease: Duration::from_millis(20), ..wish() })).await?;
    assert_eq!(lent.expires_at.since(lent.granted_at), Duration::from_millis(20));
    until("its end", || async { (shop(handle).await.in_flight == 0).then_some(()) }).await;
    assert!(!handle.release("shop", lent.id, Release { unsent: true, ..Release::default() }).await);
    let second = waiting(handle);
    until_waiting(handle, 1).await;
    assert_eq!(shop(handle).await.limits[0].used, 1);
    second.abort();
    until_waiting(handle, 0).await;
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hangs_up_gives_the_place_back() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = engine(dir.path(), "http://127.0.0.1:9", "concurrency: 1")?;
    let handle = engine.handle();
    let first = bounded(handle.permit(wish())).await?;
    let impatient = waiting(handle);
    until_waiting(handle, 1).await;
    let patient = waiting(handle);
    until_waiting(handle, 2).await;
    impatient.abort();
    until_waiting(handle, 1).await;
    assert!(handle.release("shop", first.id, Release::default()).await);
    let lent = bounded(patient).await??;
    assert!(handle.release("shop", lent.id, Release::default()).await);
    assert_eq!(shop(handle).await.in_flight, 0);
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_program_tells_of_the_answer_is_heard() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = engine(dir.path(), "http://127.0.0.1:9", "")?;
    let handle = engine.handle();
    let told = |status, name: &'static str, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Release { unsent: false, status: Some(status), headers }
    };
    let lent = bounded(handle.permit(wish())).await?;
    assert!(handle.release("shop", lent.id, told(200, "ratelimit", "\"default\";r=7;t=60")).await);
    assert_eq!(shop(handle).await.told.map(|(remaining, _)| remaining), Some(7));
    let lent = bounded(handle.permit(wish())).await?;
    assert!(handle.release("shop", lent.id, told(429, "retry-after", "3600")).await);
    assert!(shop(handle).await.closed_until.is_some());
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_none_for_upstreams_that_are_not_declared_nor_while_farcall_stops() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = engine(dir.path(), "http://127.0.0.1:9", "concurrency: 1")?;
    let handle = engine.handle().clone();
    let unknown = bounded(handle.permit(PermitWish { upstream: "other".to_owned(), ..wish() })).await;
    assert!(matches!(unknown, Err(PermitError::UnknownUpstream { .. })), "{unknown:?}");
    let lent = bounded(handle.permit(wish())).await?;
    let second = waiting(&handle);
    until_waiting(&handle, 1).await;
    let draining = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.drain().await })
    };
    assert!(matches!(bounded(second).await?, Err(PermitError::Draining)));
    assert!(handle.release("shop", lent.id, Release::default()).await, "what is lent may be given back");
    draining.await?;
    bounded(engine.join()).await?;
    assert!(matches!(bounded(handle.permit(wish())).await, Err(PermitError::Draining)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lent_counts_over_a_restart() -> Outcome {
    let dir = tempfile::tempdir()?;
    let store = MemoryStore::new();
    let first = engine_on(dir.path(), "http://127.0.0.1:9", "limits: [\"3/1h\"]", store.attach())?;
    let given_back = bounded(first.handle().permit(wish())).await?;
    let unsent = bounded(first.handle().permit(wish())).await?;
    bounded(first.handle().permit(PermitWish { lease: Duration::from_secs(1), ..wish() })).await?;
    assert!(first.handle().release("shop", given_back.id, Release::default()).await);
    assert!(first.handle().release("shop", unsent.id, Release { unsent: true, ..Release::default() }).await);
    stop(first).await?;
    let second = engine_on(dir.path(), "http://127.0.0.1:9", "limits: [\"3/1h\"]", store.attach())?;
    assert_eq!(shop(second.handle()).await.limits[0].used, 2, "one was given back, one was out");
    assert!(!second.handle().release("shop", given_back.id, Release::default()).await);
    let third = bounded(second.handle().permit(wish())).await?;
    let fourth = waiting(second.handle());
    until_waiting(second.handle(), 1).await;
    fourth.abort();
    assert!(second.handle().release("shop", third.id, Release::default()).await);
    stop(second).await
}
