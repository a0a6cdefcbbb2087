//! Redirects that the engine follows: whom a hop believes, how it gets there, and where it must not lead.

use std::path::Path;

use farcall_engine::Engine;
use farcall_store::memory::MemoryStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use super::in_own_process;
use super::network::{Everywhere, hold, in_own_network, serve_names};
use super::tls::Authority;
use crate::engine::{Outcome, drop_file, response, start};
use crate::upstream::{Step, Upstream, ok};

/// An answer of 307 that leads there.
fn leads_to(location: &Url) -> Vec<u8> {
    format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// What becomes of a GET of this URL.
async fn called(dir: &Path, name: &str, url: &str) -> std::io::Result<Value> {
    drop_file(dir, name, &format!(r#"{{"url": "{url}"}}"#))?;
    Ok(response(dir, name).await)
}

fn engine(dir: &Path, config: &str) -> Result<Engine, Box<dyn std::error::Error>> {
    std::fs::write(dir.join("farcall.yml"), config)?;
    start(dir, MemoryStore::new())
}

async fn stop(engine: Engine) -> Outcome {
    engine.handle().drain().await;
    Ok(engine.join().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_from_https_to_http() -> Outcome {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new("ours");
    let plain = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let answer = leads_to(&plain.url("/there"));
    let secure = Upstream::tls(authority.server("127.0.0.1"), vec![Step::Serve(answer)]).await;
    let config = format!(
        "defaults: {{ redirects: 5 }}\nupstreams:\n  secure: {{ base_url: \"{}\", tls: {{ ca: {:?} }} }}\n  \
         plain: {{ base_url: \"{}\" }}\n",
        secure.url("/"),
        authority.file(),
        plain.url("/")
    );
    let engine = engine(dir.path(), &config)?;
    let response = called(dir.path(), "down.json", secure.url("/x").as_str()).await?;
    assert_eq!((&response["state"], &response["status"]), (&"failed".into(), &307.into()), "{response}");
    assert_eq!(response["error"]["kind"], "blocked_address", "{response}");
    let message = "the answer redirects from https to http, which is refused";
    assert_eq!(response["error"]["message"], message);
    assert_eq!((plain.connections(), response["attempts"].as_u64()), (0, Some(1)));
    stop(engine).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_believes_whom_the_upstream_it_goes_to_believes() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let there = Upstream::tls(theirs.server("127.0.0.1"), vec![Step::Serve(ok("hi"))]).await;
    let answer = leads_to(&there.url("/there"));
    let home = Upstream::tls(ours.server("127.0.0.1"), vec![Step::Serve(answer)]).await;
    let config = |theirs: &Path| {
        format!(
            "defaults: {{ redirects: 5, retry: 0 }}\nupstreams:\n  \
             home: {{ base_url: \"{}\", tls: {{ ca: {:?} }} }}\n  there: {{ base_url: \"{}\", tls: {{ ca: {theirs:?} }} }}\n",
            home.url("/"),
            ours.file(),
            there.url("/")
        )
    };
    let trusting = engine(dir.path(), &config(&theirs.file()))?;
    let response = called(dir.path(), "a.json", home.url("/").as_str()).await?;
    assert_eq!((&response["state"], &response["body"]), (&"succeeded".into(), &"hi".into()), "{response}");
    stop(trusting).await?;
    let wary = engine(dir.path(), &config(&ours.file()))?;
    let response = called(dir.path(), "b.json", home.url("/").as_str()).await?;
    assert_eq!((&response["state"], &response["error"]["kind"]), (&"failed".into(), &"tls".into()), "{response}");
    assert_eq!(there.arrivals().len(), 1);
    stop(wary).await
}

/// A part of its own origin that no upstream is declared for is reached as the rest of that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hop_within_an_origin_goes_the_way_of_its_upstream() -> Outcome {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new("ours");
    let moved = b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let steps = vec![Step::Request, Step::Send(moved.to_vec()), Step::Request, Step::Send(ok("hi"))];
    let upstream = Upstream::tls(authority.server("127.0.0.1"), steps).await;
    let base = upstream.url("/api");
    let config =
        format!("upstreams:\n  api: {{ base_url: \"{base}\", redirects: 1, tls: {{ ca: {:?} }} }}\n", authority.file());
    let engine = engine(dir.path(), &config)?;
    let response = called(dir.path(), "a.json", upstream.url("/api/x").as_str()).await?;
    assert_eq!((&response["state"], &response["body"]), (&"succeeded".into(), &"hi".into()), "{response}");
    assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 2), "on the same connection");
    stop(engine).await
}

/// Undeclared places that an answer names: what they are called, and where they lie.
const INSIDE: [&str; 9] = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://[::1]/",
    "http://[::ffff:10.1.2.3]/",
    "http://10.1.2.3/",
    "http://169.254.169.254/latest/meta-data/",
    "http://localhost/",
    "http://inner.test/",
    "http://mixed.test/",
];

#[test]
fn a_public_upstream_leads_nobody_inside() {
    in_own_network("http::redirects::hops_reach_public_addresses_only");
}

#[test]
#[ignore = "needs a network of its own; started by another test"]
fn hops_reach_public_addresses_only() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    runtime.block_on(reach_public_addresses_only()).expect("the engine runs");
}

async fn reach_public_addresses_only() -> Outcome {
    hold(&["8.8.8.8/32", "9.9.9.9/32", "10.1.2.3/32", "169.254.169.254/32"]);
    serve_names(|name, count| {
        let addresses: &[&str] = match name {
            "public.test" => &["9.9.9.9"],
            "inner.test" => &["10.1.2.3"],
            "mixed.test" => &["9.9.9.9", "10.1.2.3"],
            "rebound.test" if count == 0 => &["9.9.9.9"],
            "rebound.test" => &["127.0.0.1"],
            _ => &[],
        };
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    });
    let everywhere = Everywhere::listen(80).await;
    let _upstream = redirecting("8.8.8.8:81").await?;
    let dir = tempfile::tempdir()?;
    // Whoever runs farcall may reach anything; an answer may not make them.
    let config = "defaults: { redirects: 3, retry: 0, addresses: any }\n\
                  upstreams:\n  api: { base_url: \"http://8.8.8.8:81\" }\n";
    let engine = engine(dir.path(), config)?;
    for (number, location) in INSIDE.iter().enumerate() {
        let response = called(dir.path(), &format!("{number}.json"), &format!("http://8.8.8.8:81/?{location}")).await?;
        let kind = &response["error"]["kind"];
        assert_eq!((&response["state"], kind), (&"failed".into(), &"blocked_address".into()), "{location}: {response}");
    }
    assert!(everywhere.called().is_empty(), "{:?}", everywhere.called());
    for (number, location) in ["http://public.test/", "http://rebound.test/"].iter().enumerate() {
        let response =
            called(dir.path(), &format!("p{number}.json"), &format!("http://8.8.8.8:81/?{location}")).await?;
        assert_eq!(response["state"], "succeeded", "{location}: {response}");
    }
    let public: std::net::IpAddr = "9.9.9.9".parse()?;
    assert_eq!(everywhere.called(), [public, public]);
    stop(engine).await
}

/// Sends whoever asks to the URL in the query.
async fn redirecting(address: &str) -> std::io::Result<JoinSet<()>> {
    let listener = TcpListener::bind(address).await?;
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let target = head.split_whitespace().nth(1).unwrap_or_default();
            let location = target.split_once('?').map_or("", |(_, query)| query);
            let answer =
                format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(listening)
}

/// Proxies of the environment are ignored by hops, too.
#[test]
fn no_proxy_of_the_environment_sees_a_hop() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = format!("http://{}", proxy.local_addr().expect("a bound socket has an address"));
    let environment = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, address.as_str()));
    in_own_process("http::redirects::a_hop_goes_straight", &environment);
    proxy.set_nonblocking(true).expect("a socket can be changed");
    assert!(proxy.accept().is_err(), "nobody came");
}

#[test]
#[ignore = "needs an environment of its own; started by another test"]
fn a_hop_goes_straight() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let went = runtime.block_on(async {
        let there = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
        let home = Upstream::always(vec![Step::Serve(leads_to(&there.url("/")))]).await;
        let dir = tempfile::tempdir()?;
        let config = format!(
            "upstreams:\n  home: {{ base_url: \"{}\", redirects: 1 }}\n  there: {{ base_url: \"{}\" }}\n",
            home.url("/"),
            there.url("/")
        );
        let engine = engine(dir.path(), &config)?;
        let response = called(dir.path(), "a.json", home.url("/").as_str()).await?;
        assert_eq!(response["body"], "hi", "{response}");
        stop(engine).await
    });
    went.expect("the engine runs");
}
