//! Requests that somebody waits for: through farcall's proxy and its smart route, beside nginx, HAProxy and Requestko's
//! design, and straight to the upstream.
//!
//! Whoever is measured has a core of its own; the upstream and the load (wrk) share the other. Each is asked in turn within a
//! round. Peers that are not installed are named and left out; without wrk nothing can be measured.

mod load;
mod peers;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench_gauge::Process;
use serde_json::json;

use super::Bench;
use super::figures::Table;
use super::server::Server;
use super::upstream::Upstream;
use load::{Load, Wrk};
use peers::{Peer, Peers};

const DIRECT: &str = "straight";
const NGINX: &str = "nginx";
const HAPROXY: &str = "HAProxy";
const SMART: &str = "Requestko's design";
const PROXY: &str = "farcall, proxy";
const ROUTE: &str = "farcall, smart route";
const SUBJECTS: [&str; 6] = [PROXY, ROUTE, DIRECT, NGINX, HAPROXY, SMART];
/// Where whoever is measured runs, and where the upstream and the load do.
const ITS_CORE: u32 = 0;
const OUR_CORE: u32 = 1;
const CONNECTIONS: [u32; 3] = [1, 64, 256];
const LASTS: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);
/// Connections, length and path of the run whose answers take long now and then.
const TAIL_CONNECTIONS: u32 = 32;
const TAIL_LASTS: Duration = Duration::from_secs(5);

/// Who answers, and where.
struct Subject {
    name: &'static str,
    url: String,
    /// Whose processor time counts; nobody's of the way straight to the upstream.
    process: Option<Process>,
}

/// What is asked of everybody.
struct Asked {
    path: &'static str,
    connections: &'static [u32],
    lasts: Duration,
    /// What the upstream's policy says of hedges to the proxy.
    hedge: serde_json::Value,
}

/// A quick upstream.
pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let hedge = json!({ "after": "300ms", "extra": 2 });
    let asked = Asked { path: "/ok", connections: &CONNECTIONS, lasts: LASTS, hedge };
    run(bench, "requests that somebody waits for, each subject on one core", &asked)
}

/// An upstream of which 1 % of the answers take a second and the others 5 ms.
pub(super) fn measure_tail(bench: &Bench) -> Result<Table> {
    let path = "/ok?slow=1&slow_ms=1000&fast_ms=5";
    let hedge = json!({ "after": "p95", "extra": 1 });
    let asked = Asked { path, connections: &[TAIL_CONNECTIONS], lasts: TAIL_LASTS, hedge };
    run(bench, "1 % of the answers take 1 s and the others 5 ms; the proxy hedges at p95, the routes at 300 ms", &asked)
}

fn run(bench: &Bench, title: &str, asked: &Asked) -> Result<Table> {
    let wrk = Wrk::find(&bench.root)?;
    let mut table = Table::new(title.to_owned(), &SUBJECTS);
    bench.in_rounds(|_, dir| {
        let mut upstream = Upstream::start_on(&bench.programs, OUR_CORE)?;
        let peers = Peers::start(bench, dir, &upstream.address, asked.path)?;
        let work = dir.join("work");
        fs::create_dir(&work)?;
        configure(&work, &upstream.address, asked)?;
        let server = Server::start_on(&bench.programs, ITS_CORE, &work)?;
        for subject in subjects(&server, &peers, &upstream.address, asked.path) {
            wrk.run(&Load { url: &subject.url, connections: 1, lasts: WARM_UP })?;
            for &connections in asked.connections {
                let load = Load { url: &subject.url, connections, lasts: asked.lasts };
                one(&wrk, &load, &subject, &mut upstream, &mut table)?;
            }
        }
        peers.stop()?;
        server.stop()
    })?;
    Ok(table)
}

fn subjects(server: &Server, peers: &Peers, upstream: &str, path: &str) -> Vec<Subject> {
    let at =
        |name, address: &str, path: &str, process| Subject { name, url: format!("http://{address}{path}"), process };
    let mut all = vec![
        at(DIRECT, upstream, path, None),
        at(PROXY, &server.address(), &format!("/proxy/bench{path}"), Some(server.process())),
        at(ROUTE, &server.address(), "/api/smart?timeout=5000", Some(server.process())),
    ];
    all.extend(peers.running.iter().map(|peer: &Peer| {
        let path = if peer.name == SMART { "/api/smart?timeout=5000" } else { path };
        at(peer.name, &peer.address, path, Some(peer.process()))
    }));
    all
}

fn one(wrk: &Wrk, load: &Load<'_>, subject: &Subject, upstream: &mut Upstream, table: &mut Table) -> Result<()> {
    let cpu = || subject.process.as_ref().map(Process::cpu).transpose();
    upstream.reset()?;
    let before = cpu()?;
    let run = wrk.run(load)?;
    let used = cpu()?.zip(before).map(|(after, before)| after - before);
    ensure!(run.requests > 0 && run.refused == 0 && run.broken == 0, "{}: {run:?}", subject.name);
    let arrived = upstream.tally()?.count;
    let (name, connections) = (subject.name, load.connections);
    let mut note = |figure: &str, unit, value| table.note(name, &format!("{connections}: {figure}"), unit, value);
    note("rate", "requests/s", run.requests as f64 / run.took.as_secs_f64());
    note("median", "ms", run.median_ms);
    note("99 %", "ms", run.p99_ms);
    note("99.9 %", "ms", run.p999_ms);
    note("upstream's requests per request", "", arrived as f64 / run.requests as f64);
    if let Some(used) = used {
        note("processor time", "µs", used.as_secs_f64() * 1e6 / run.requests as f64);
    }
    Ok(())
}

/// With a limit that is never reached, and hedges and deadlines armed.
fn configure(dir: &Path, upstream: &str, asked: &Asked) -> Result<()> {
    let bench = json!({ "base_url": format!("http://{upstream}"), "limits": ["1000000/1s"], "hedge": asked.hedge });
    let success = json!({ "statuses": [200], "content_type": "application/json" });
    let hedge = json!({ "after": "300ms", "extra": 2 });
    let smart =
        json!({ "style": "smart", "upstream": "bench", "path": asked.path, "hedge": hedge, "success": success });
    let config = json!({ "upstreams": { "bench": bench }, "routes": { "/api/smart": smart } });
    Ok(fs::write(dir.join("farcall.yml"), config.to_string())?)
}

/// Whether a program is there, and what it is called in Debian otherwise.
fn is_installed(program: &str, package: &str) -> Result<bool> {
    let found = Command::new("which").arg(program).output().context("cannot run which")?.status.success();
    if !found {
        eprintln!("NOT MEASURED: {program} is not installed (apt-get install {package})");
    }
    Ok(found)
}
