//! `farcall serve` on a directory of a round: started, watched, and stopped by the signal users stop it with.
//!
//! Ready it is when `/healthz` answers 200.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_gauge::{Process, now_us};
use serde_json::{Map, Value, json};

use super::programs::Programs;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed when it is dropped without [`Server::stop`].
pub(super) struct Server {
    child: Child,
    port: u16,
    /// When its process was started and when it first answered, on the clock of `bench_gauge`.
    pub(super) spawned_us: u64,
    pub(super) ready_us: u64,
}

/// Writes a configuration whose upstream is named `bench`, with 64 attempts at a time and no limits.
pub(super) fn configure(dir: &Path, upstream: &str) -> Result<()> {
    // JSON is YAML.
    let upstream = json!({ "base_url": format!("http://{upstream}"), "concurrency": 64 });
    Ok(fs::write(dir.join("farcall.yml"), json!({ "upstreams": { "bench": upstream } }).to_string())?)
}

/// What a server is configured for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) upstreams: u32,
    /// Several are declared.
    pub(super) declared: bool,
    pub(super) limits: &'a [&'a str],
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { upstreams: 1, declared: false, limits: &[] }
    }
}

/// Writes a configuration for the upstreams that `bench-engine` names, with 64 attempts at a time over all of them.
pub(super) fn configure_many(dir: &Path, first: &str, plan: &Plan<'_>) -> Result<()> {
    let (host, port) = first.rsplit_once(':').context("an address with a port")?;
    let host = u32::from(host.parse::<Ipv4Addr>()?);
    let named = |number: u32| {
        let name = if plan.upstreams == 1 { "bench".to_owned() } else { format!("u{number}") };
        let address = Ipv4Addr::from(host + number / 250 * 256 + number % 250);
        (name, json!({ "base_url": format!("http://{address}:{port}") }))
    };
    let declared = if plan.declared || plan.upstreams == 1 { plan.upstreams } else { 0 };
    let upstreams: Map<String, Value> = (0..declared).map(named).collect();
    let defaults = json!({ "concurrency": (64 / plan.upstreams).max(1), "limits": plan.limits, "addresses": "any" });
    Ok(fs::write(dir.join("farcall.yml"), json!({ "defaults": defaults, "upstreams": upstreams }).to_string())?)
}

impl Server {
    /// Starts it and waits until it answers.
    pub(super) fn start(programs: &Programs, dir: &Path) -> Result<Self> {
        Self::run(programs.command("farcall"), dir)
    }

    /// The same, on this core alone.
    pub(super) fn start_on(programs: &Programs, core: u32, dir: &Path) -> Result<Self> {
        Self::run(programs.pinned(core, "farcall"), dir)
    }

    fn run(mut command: Command, dir: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let spawned_us = now_us();
        let child = command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "-q"])
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run farcall")?;
        let mut server = Self { child, port, spawned_us, ready_us: 0 };
        let until = Instant::now() + PATIENCE;
        while !is_ready(port) {
            ensure!(server.child.try_wait()?.is_none(), "farcall serve ended at its start");
            ensure!(Instant::now() < until, "farcall serve is not ready after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
        server.ready_us = now_us();
        Ok(server)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Ends it as a crash would.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it as users do.
    pub(super) fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "cannot stop farcall serve");
        let status = self.child.wait()?;
        ensure!(status.success(), "farcall serve ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(port: u16) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
