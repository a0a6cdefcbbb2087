//! Those beside whom farcall is measured, each one process on a core of its own, as `xtask/peers/` sets them up.
//!
//! Their settings are written with the addresses of the round into its directory.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_gauge::Process;

use super::{HAPROXY, ITS_CORE, NGINX, SMART, is_installed};
use crate::bench::Bench;
use crate::bench::programs::on_core;
use crate::venv;

const PATIENCE: Duration = Duration::from_secs(30);

/// Those that are installed.
pub(super) struct Peers {
    pub(super) running: Vec<Peer>,
}

/// One that runs; killed when it is dropped without [`Peers::stop`].
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) address: String,
    child: Child,
}

impl Peers {
    /// Starts all that are there; they ask the upstream for this path.
    pub(super) fn start(bench: &Bench, dir: &Path, upstream: &str, path: &str) -> Result<Self> {
        let home = bench.root.join("xtask/peers");
        let mut running = Vec::new();
        if is_installed("nginx", "nginx-light")? {
            let config = settings(&home.join("nginx.conf"), dir, upstream)?;
            let mut command = on_core(ITS_CORE, Path::new("nginx"));
            command.arg("-c").arg(&config.file);
            running.push(Peer::start(NGINX, command, config.address)?);
        }
        if is_installed("haproxy", "haproxy")? {
            let config = settings(&home.join("haproxy.cfg"), dir, upstream)?;
            let mut command = on_core(ITS_CORE, Path::new("haproxy"));
            command.arg("-db").arg("-f").arg(&config.file);
            running.push(Peer::start(HAPROXY, command, config.address)?);
        }
        let programs = venv::programs(&home.join("requirements.txt"), &bench.programs.installed())?;
        let address = free_address()?;
        let port = address.rsplit(':').next().context("an address has a port")?;
        let mut command = on_core(ITS_CORE, &programs.join("uvicorn"));
        command
            .args(["smart:app", "--port", port, "--no-access-log", "--log-level", "error"])
            .args(["--loop", "uvloop", "--http", "httptools"])
            .env("UPSTREAM", format!("http://{upstream}{path}"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(&home);
        running.push(Peer::start(SMART, command, address)?);
        Ok(Self { running })
    }

    pub(super) fn stop(self) -> Result<()> {
        for mut peer in self.running {
            peer.child.kill()?;
            peer.child.wait()?;
        }
        Ok(())
    }
}

impl Peer {
    fn start(name: &'static str, mut command: Command, address: String) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut peer = Self { name, address, child: child.with_context(|| format!("cannot run {name}"))? };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(&peer.address).is_err() {
            ensure!(peer.child.try_wait()?.is_none(), "{name} ended at its start");
            ensure!(Instant::now() < until, "{name} does not listen after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(peer)
    }

    pub(super) fn process(&self) -> Process {
        Process::of(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer's settings for this round.
struct Settings {
    file: std::path::PathBuf,
    address: String,
}

fn settings(template: &Path, dir: &Path, upstream: &str) -> Result<Settings> {
    let address = free_address()?;
    let text = fs::read_to_string(template).with_context(|| template.display().to_string())?;
    let dir_text = dir.to_str().context("the scratch directory's name is UTF-8")?;
    let text = text.replace("@dir@", dir_text).replace("@listen@", &address).replace("@upstream@", upstream);
    let file = dir.join(template.file_name().context("a template has a name")?);
    fs::write(&file, text)?;
    Ok(Settings { file, address })
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}
