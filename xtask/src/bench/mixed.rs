//! One quota that everybody asks for at once: call files, posted calls, the proxy and a program with permits, with retries
//! and hedges, beside a server that is killed in between. How much of the quota was used, and the worst windows.
//!
//! Counted by the upstream, whose answers fail or come late now and then. Windows as the contract promises them: none may
//! ever be over, the kill included, or the scenario fails.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::figures::Table;
use super::server::Server;
use super::upstream::Upstream;

const FARCALL: &str = "farcall";
const LIMITS: [&str; 2] = ["50/1s", "300/10s"];
/// The same, and what of it is allowed in [`LASTS`].
const WINDOWS: [(u64, u64); 2] = [(50, 1_000_000), (300, 10_000_000)];
const LASTS: Duration = Duration::from_secs(100);
/// The server is killed after so long, and started again.
const KILLED_AFTER: Duration = Duration::from_secs(45);
const ALLOWED: u64 = 3_000;
/// More than the quota has for all of them.
const FILES: u64 = 1_200;
const POSTERS: u32 = 4;
const VISITORS: u32 = 8;
const LEASERS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// 5 % of the answers are 500, 5 % come after 400 ms.
const PATH: &str = "/ok?slow=5&slow_ms=400&fast_ms=5&fail=5";

/// What a client does again and again.
type Act = fn(&Crowd) -> Result<()>;

/// What all clients share.
struct Crowd {
    socket: PathBuf,
    upstream: String,
    is_over: AtomicBool,
    /// Answers of 200 by the proxy, calls accepted, requests sent on a permit.
    counts: [AtomicU64; 3],
}

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let title = format!("{} together, asked for by everybody for {LASTS:?}, with a kill", LIMITS.join(" and "));
    let mut table = Table::new(title, &[FARCALL]);
    bench.in_rounds(|_, dir| run(bench, dir, &mut table))?;
    Ok(table)
}

fn run(bench: &Bench, dir: &Path, table: &mut Table) -> Result<()> {
    let work = dir.join("work");
    fs::create_dir(&work)?;
    let mut upstream = Upstream::start(&bench.programs)?;
    configure(&work, &upstream.address)?;
    drop_files(&work, &upstream.address)?;
    let server = Server::start(&bench.programs, &work)?;
    upstream.arrived(1, PATIENCE)?;
    let socket = work.join(".farcall/farcall.sock");
    let crowd = Arc::new(Crowd {
        socket,
        upstream: upstream.address.clone(),
        is_over: AtomicBool::new(false),
        counts: Default::default(),
    });
    let clients = crowd.start();
    thread::sleep(KILLED_AFTER);
    server.kill()?;
    let server = Server::start(&bench.programs, &work)?;
    thread::sleep(LASTS - KILLED_AFTER);
    let arrived = upstream.number("within", u64::try_from(LASTS.as_micros())?)?;
    crowd.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().ok().context("a client broke down")?;
    }
    server.stop()?;
    for (count, window_us) in WINDOWS {
        let worst = upstream.number("worst", window_us)?;
        table.note(FARCALL, &format!("worst {} s, of {count}", window_us / 1_000_000), "calls", worst as f64);
        ensure!(worst <= count, "{worst} arrivals in {window_us} µs, where {count} are allowed");
    }
    table.note(FARCALL, &format!("used of {ALLOWED}"), "%", arrived as f64 * 100.0 / ALLOWED as f64);
    for (name, count) in ["through the proxy", "posted", "on permits"].iter().zip(&crowd.counts) {
        table.note(FARCALL, name, "calls", count.load(Ordering::Relaxed) as f64);
    }
    Ok(())
}

fn configure(dir: &Path, upstream: &str) -> Result<()> {
    let bench = json!({
        "base_url": format!("http://{upstream}"), "limits": LIMITS, "hedge": { "after": "100ms", "extra": 1 },
        "retry": { "max": 2, "base": "50ms" },
    });
    Ok(fs::write(dir.join("farcall.yml"), json!({ "upstreams": { "bench": bench } }).to_string())?)
}

fn drop_files(dir: &Path, upstream: &str) -> Result<()> {
    let text = json!({ "url": format!("http://{upstream}{PATH}") }).to_string();
    (0..FILES).try_for_each(|number| Ok(fs::write(dir.join(format!("file-{number}.json")), &text)?))
}

impl Crowd {
    fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let kinds: [(u32, Act); 3] = [(VISITORS, Self::visit), (POSTERS, Self::post), (LEASERS, Self::lease)];
        let start = |act: Act| {
            let crowd = Arc::clone(self);
            thread::spawn(move || {
                while !crowd.is_over.load(Ordering::Relaxed) {
                    // While the server is away nobody is answered.
                    if act(&crowd).is_err() {
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            })
        };
        kinds.into_iter().flat_map(|(count, act)| (0..count).map(move |_| act)).map(start).collect()
    }

    /// Through the proxy, and waits for the answer.
    fn visit(&self) -> Result<()> {
        let (status, _) = self.ask("GET", &format!("/proxy/bench{PATH}"), "Farcall-Timeout: 20000\r\n", "")?;
        self.count(0, status == 200);
        Ok(())
    }

    /// A durable call, and waits until it has ended, or for a while.
    fn post(&self) -> Result<()> {
        let call = json!({ "url": format!("http://{}{PATH}", self.upstream) }).to_string();
        let headers = "Content-Type: application/json\r\nPrefer: wait=5\r\n";
        let (status, _) = self.ask("POST", "/v1/calls", headers, &call)?;
        self.count(1, status == 200 || status == 202);
        Ok(())
    }

    /// Asks for a permit, and sends by itself.
    fn lease(&self) -> Result<()> {
        let headers = "Content-Type: application/json\r\n";
        let (status, lease) = self.ask("POST", "/v1/upstreams/bench/permits", headers, "{}")?;
        ensure!((200..300).contains(&status), "no permit: {status} {lease}");
        let mut stream = TcpStream::connect(&self.upstream)?;
        write!(stream, "GET {PATH} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
        answer(&mut stream)?;
        self.count(2, true);
        let lease: Value = serde_json::from_str(&lease)?;
        let id = lease["id"].as_str().context("a permit has an id")?;
        self.ask("POST", &format!("/v1/upstreams/bench/permits/{id}/release"), headers, "{}")?;
        Ok(())
    }

    fn count(&self, kind: usize, did: bool) {
        self.counts[kind].fetch_add(u64::from(did), Ordering::Relaxed);
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        answer(&mut stream)
    }
}

/// The status and the body of an answer that ends with its connection.
fn answer(stream: &mut impl std::io::Read) -> Result<(u16, String)> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no answer")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
