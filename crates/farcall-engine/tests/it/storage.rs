//! The engine on a store in trouble: nothing acknowledged is lost, nothing is sent unrecorded, and all goes on by itself.

use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{Source, State, Via};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Handle, StoreHealth, Submission, SubmitError};
use farcall_store::memory::{Fault, MemoryStore, Trouble};
use farcall_store::port::Fate;

use crate::engine::{OK, Outcome, drop_file, response, start, until};
use crate::upstream::{Step, Upstream};

async fn submit(handle: &Handle, url: &impl std::fmt::Display) -> Result<farcall_engine::Accepted, SubmitError> {
    let bytes = Bytes::from(format!(r#"{{"url": "{url}", "method": "POST"}}"#));
    let document = Box::new(parse(&bytes, &Routing::from(handle.config().as_ref())).expect("a valid call"));
    let source = Source::Api;
    handle
        .submit(Submission {
            document,
            bytes,
            source,
            via: Via::User,
            file: None,
            scope: String::new(),
            retry_of: None,
            id: None,
        })
        .await
}

async fn health(handle: &Handle, wanted: StoreHealth) {
    let mut snapshots = handle.snapshots();
    let seen = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(|seen| seen.store == wanted)).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "the store is never told to be {wanted:?}");
}

async fn ended(handle: &Handle, state: State, count: u64) {
    until("the end", || async { (handle.snapshot().census.calls(state) == count).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_calls_leaves_files_alone_and_is_over_when_there_is_space() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let store = MemoryStore::new();
    let troubles = store.troubles();
    let engine = start(dir.path(), store)?;
    let handle = engine.handle().clone();
    troubles.set(Trouble::Full);
    let refused = submit(&handle, &upstream.url("/")).await;
    assert!(matches!(refused, Err(SubmitError::NoSpace)), "{refused:?}");
    drop_file(dir.path(), "order.json", &format!(r#"{{"url": "{}"}}"#, upstream.url("/")))?;
    let mut inbox = handle.inbox().ok_or("it watches a directory")?;
    inbox.wait_for(|status| status.waiting == 1).await?;
    assert_eq!(upstream.arrivals().len(), 0);
    assert!(dir.path().join("order.json").exists());
    troubles.set(Trouble::None);
    assert_eq!(response(dir.path(), "order.json").await["state"], "succeeded");
    let census = handle.snapshot().census;
    assert_eq!((census.accepted, census.sum()), (1, 1), "what was refused never was");
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_finds_no_space_is_kept_and_nothing_is_sent_twice() -> Outcome {
    let dir = tempfile::tempdir()?;
    let store = MemoryStore::new();
    let troubles = store.troubles();
    let filled = troubles.clone();
    let upstream = Upstream::start(move |_| {
        filled.set(Trouble::Full);
        vec![Step::Serve(OK.to_vec())]
    })
    .await;
    let engine = start(dir.path(), store)?;
    let handle = engine.handle().clone();
    let accepted = submit(&handle, &upstream.url("/")).await?;
    health(&handle, StoreHealth::Full).await;
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.census.calls(State::Running), snapshot.census.sum()), (1, 1), "as it is on disk");
    assert!(matches!(submit(&handle, &upstream.url("/")).await, Err(SubmitError::NoSpace)));
    troubles.set(Trouble::None);
    ended(&handle, State::Succeeded, 1).await;
    health(&handle, StoreHealth::Ok).await;
    let view = handle.call(accepted.id).await?.ok_or("it was accepted")?;
    assert_eq!(view.response.map(|answer| answer.body), Some(Bytes::from_static(b"{\"ok\":true}")));
    assert_eq!(upstream.arrivals().len(), 1);
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_unknown_end_is_looked_up_and_not_repeated() -> Outcome {
    for (fault, is_kept) in
        [(Fault::Broken(Fate::Kept), true), (Fault::Broken(Fate::Lost), false), (Fault::Panic, false)]
    {
        let dir = tempfile::tempdir()?;
        let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
        let mut store = MemoryStore::new();
        store.inject(fault, 0);
        let engine = start(dir.path(), store)?;
        let handle = engine.handle().clone();
        let first = submit(&handle, &upstream.url("/")).await;
        assert_eq!(first.is_ok(), is_kept, "{fault:?}: {first:?}");
        until("a store that works", || async { submit(&handle, &upstream.url("/")).await.ok() }).await;
        let count = u64::from(is_kept) + 1;
        ended(&handle, State::Succeeded, count).await;
        assert_eq!(upstream.arrivals().len() as u64, count);
        engine.handle().drain().await;
        engine.join().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stays_broken_is_told_to_have_failed_and_goes_on_when_it_can() -> Outcome {
    let dir = tempfile::tempdir()?;
    let store = MemoryStore::new();
    let troubles = store.troubles();
    let broken = troubles.clone();
    let upstream = Upstream::start(move |_| {
        broken.set(Trouble::Broken);
        vec![Step::Serve(OK.to_vec())]
    })
    .await;
    let engine = start(dir.path(), store)?;
    let handle = engine.handle().clone();
    submit(&handle, &upstream.url("/")).await?;
    health(&handle, StoreHealth::Recovering).await;
    assert!(matches!(submit(&handle, &upstream.url("/")).await, Err(SubmitError::StoreFailed)));
    health(&handle, StoreHealth::Failed).await;
    assert!(handle.snapshot().store_error.is_some_and(|error| error.contains("the disk failed")));
    troubles.set(Trouble::None);
    ended(&handle, State::Succeeded, 1).await;
    assert_eq!(upstream.arrivals().len(), 1);
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_cannot_store_what_it_holds_ends_with_an_error() -> Outcome {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("farcall.yml"), "server: { drain_timeout: 0.2 }\n")?;
    for trouble in [Trouble::Full, Trouble::Broken] {
        let store = MemoryStore::new();
        let troubles = store.troubles();
        let upstream = Upstream::start(move |_| {
            troubles.set(trouble);
            vec![Step::Serve(OK.to_vec())]
        })
        .await;
        let engine = start(dir.path(), store)?;
        submit(engine.handle(), &upstream.url("/")).await?;
        let wanted = if trouble == Trouble::Full { StoreHealth::Full } else { StoreHealth::Recovering };
        health(engine.handle(), wanted).await;
        engine.handle().drain().await;
        let ended = tokio::time::timeout(Duration::from_secs(20), engine.join()).await?;
        assert!(ended.is_err(), "{trouble:?}");
    }
    Ok(())
}
