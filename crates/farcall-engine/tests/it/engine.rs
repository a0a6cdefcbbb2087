//! The whole engine on a real directory: a file in, a response file out.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farcall_engine::config::{LoadOptions, load};
use farcall_engine::{Engine, Options};
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
