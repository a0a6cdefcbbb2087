//! The server that is tried: started on a directory of its own, looked at afterwards, and stopped as users do.
//!
//! What it is asked is not known here.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when it is dropped without [`Server::stop`].
pub(super) struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// On an empty directory; calls of every host go to `upstream`.
    pub(super) fn start(program: &Path, home: &Path, upstream: &str, token: &str) -> Result<Self> {
        if home.exists() {
            fs::remove_dir_all(home)?;
        }
        fs::create_dir_all(home)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        // JSON is YAML.
        let config = json!({
            "server": { "listen": format!("127.0.0.1:{port}"), "tokens": [token] },
            "defaults": { "proxy": upstream },
            "upstreams": { "local": { "base_url": upstream } },
        });
        fs::write(home.join("farcall.yml"), config.to_string())?;
        let log = home.join("log");
        let child = Command::new(program)
            .arg("serve")
            .arg(home)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut server = Self { child, port, log };
        let until = Instant::now() + PATIENCE;
        while server.health().is_err() {
            ensure!(server.child.try_wait()?.is_none(), "farcall serve ended: {}", server.said());
            ensure!(Instant::now() < until, "farcall serve is not ready after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// It has lost no call and broken down nowhere, and ends in order.
    pub(super) fn stop(mut self) -> Result<()> {
        let health = self.health()?;
        let calls = health["calls"].as_object().context("calls by state")?.values().filter_map(Value::as_u64);
        let (accepted, pruned) = (health["accepted"].as_u64(), health["pruned"].as_u64());
        ensure!(accepted == pruned.map(|pruned| pruned + calls.sum::<u64>()), "calls are missing: {health}");
        ensure!(health["status"] == "ok", "it is not well: {health}");
        println!("the server has accepted {} calls", accepted.unwrap_or_default());
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "cannot stop farcall serve");
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < until, "farcall serve goes on after SIGTERM");
            thread::sleep(Duration::from_millis(10));
        };
        let said = self.said();
        ensure!(status.success(), "farcall serve ended with {status}: {said}");
        let bad: Vec<&str> = said.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
        ensure!(bad.is_empty(), "the server's log has:\n{}", bad.join("\n"));
        Ok(())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn health(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
