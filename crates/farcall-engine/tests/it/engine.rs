//! The whole engine on a real directory: a file in, a response file out.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::{Source, State, Via};
use farcall_engine::config::{Config, LoadOptions, load};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Engine, Options, Submission, SubmitError};
use farcall_store::memory::MemoryStore;
use serde_json::Value;

use crate::upstream::{Step, Upstream};

pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

pub(crate) const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

pub(crate) fn start(dir: &Path, store: MemoryStore) -> Result<Engine, Box<dyn std::error::Error>> {
    let config = Arc::new(load(dir, &LoadOptions::default())?.config);
    let launcher = "/proc/self/exe".into();
    Ok(Engine::start(Box::new(store), Options { directory: dir.to_owned(), config, launcher })?)
}

pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), wait).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub(crate) async fn response(dir: &Path, name: &str) -> Value {
    let path = dir.join("responses").join(name);
    until(name, || async { serde_json::from_slice(&std::fs::read(&path).ok()?).ok() }).await
}

pub(crate) fn drop_file(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let hidden = dir.join(format!(".{name}"));
    std::fs::write(&hidden, text)?;
    std::fs::rename(hidden, dir.join(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_file_is_sent_and_answered_in_a_file() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let engine = start(dir.path(), MemoryStore::new())?;
    let text = format!(r#"{{"base_url": "{}", "end_point": "/orders", "body": {{"n":  1}}}}"#, upstream.url("/"));
    drop_file(dir.path(), "order.json", &text)?;
    let response = response(dir.path(), "order.json").await;
    assert_eq!(response["state"], "succeeded", "{response}");
    assert_eq!(response["body"]["ok"], true);
    until("the request file", || async { std::fs::read(dir.path().join("requests/order.json")).ok() }).await;
    assert_eq!(std::fs::read_to_string(dir.path().join("requests/order.json"))?, text);
    assert!(!dir.path().join("order.json").exists());
    let arrivals = upstream.arrivals();
    assert_eq!(arrivals.len(), 1);
    assert_eq!(arrivals[0].body, br#"{"n":  1}"#);
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_is_rejected_with_its_place() -> Outcome {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("farcall.yml"), "inbox: { settle: 0.1 }\n")?;
    let engine = start(dir.path(), MemoryStore::new())?;
    drop_file(dir.path(), "broken.json", "{\n  \"url\": \"http://127.0.0.1:1\",\n  \"asa\"\n}")?;
    let response = response(dir.path(), "broken.json").await;
    assert_eq!((&response["state"], &response["error"]["line"]), (&"rejected".into(), &4.into()), "{response}");
    until("the rejected file", || async { std::fs::read(dir.path().join("rejected/broken.json")).ok() }).await;
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

fn submission(text: &str, config: &Config) -> Result<Submission, Box<dyn std::error::Error>> {
    let bytes = bytes::Bytes::from(text.to_owned());
    let document = Box::new(parse(&bytes, &Routing::from(config))?);
    Ok(Submission {
        document,
        bytes,
        source: Source::Bulk,
        via: Via::User,
        file: None,
        scope: String::new(),
        retry_of: None,
        id: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_are_each_answered_by_themselves() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let engine = start(dir.path(), MemoryStore::new())?;
    let config = engine.handle().config();
    let plain = format!(r#"{{"url": "{}"}}"#, upstream.url("/plain"));
    let keyed = |n: u32| format!(r#"{{"url": "{}", "idempotency_key": "k", "body": {n}}}"#, upstream.url("/keyed"));
    let texts = [&plain, &keyed(1), &keyed(1), &keyed(2), &plain];
    let submissions = texts.into_iter().map(|text| submission(text, &config)).collect::<Result<Vec<_>, _>>()?;
    let answers = engine.handle().submit_many(submissions).await;
    let [Ok(first), Ok(held), Ok(replay), Err(SubmitError::KeyReused { holder, .. }), Ok(last)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((held.id, held.is_replay, replay.id, replay.is_replay), (*holder, false, *holder, true));
    assert!(first.id != last.id && !first.is_replay && !last.is_replay);
    until("three calls to end", || async {
        (engine.handle().snapshot().census.calls(State::Succeeded) == 3).then_some(())
    })
    .await;
    assert_eq!(upstream.arrivals().len(), 3);
    engine.handle().drain().await;
    let refused = engine.handle().submit_many(vec![submission(&plain, &config)?]).await;
    assert!(matches!(refused[..], [Err(SubmitError::Draining)]), "{refused:?}");
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_blocked_address_fails_at_once_and_uses_up_no_limit() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let inner = format!("{{ base_url: \"{}\", addresses: public, limits: [\"1/1h\"] }}", upstream.url("/"));
    std::fs::write(dir.path().join("farcall.yml"), format!("upstreams:\n  inner: {inner}\n"))?;
    let engine = start(dir.path(), MemoryStore::new())?;
    for name in ["one.json", "two.json"] {
        drop_file(dir.path(), name, r#"{"upstream": "inner", "end_point": "/"}"#)?;
        let response = response(dir.path(), name).await;
        assert_eq!((&response["state"], &response["attempts"]), (&"failed".into(), &1.into()), "{response}");
        assert_eq!(response["error"]["kind"], "blocked_address", "{response}");
    }
    assert_eq!(upstream.connections(), 0);
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}
