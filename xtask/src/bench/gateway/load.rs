//! wrk, which makes the load: as many requests as are answered on so many connections, for so long.
//!
//! It is measured by a program of others, so that nobody is measured by their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{OUR_CORE, is_installed};
use crate::bench::programs::on_core;

/// Whoever is not answered for so long is counted as broken.
const PATIENCE: &str = "8s";
/// A request may tell the proxy how long it has, in milliseconds.
const DEADLINE: &str = "Farcall-Timeout: 5000";

/// wrk, and the script by which it tells what it measured.
#[derive(Debug)]
pub(super) struct Wrk {
    script: PathBuf,
}

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) url: &'a str,
    pub(super) connections: u32,
    pub(super) lasts: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) requests: u64,
    pub(super) took: Duration,
    /// Answers of 400 and more.
    pub(super) refused: u64,
    /// Requests without an answer.
    pub(super) broken: u64,
    pub(super) median_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
}

impl Wrk {
    /// # Errors
    /// When it is not installed.
    pub(super) fn find(root: &Path) -> Result<Self> {
        ensure!(is_installed("wrk", "wrk")?, "the load is made by wrk");
        Ok(Self { script: root.join("xtask/peers/wrk.lua") })
    }

    pub(super) fn run(&self, load: &Load<'_>) -> Result<Ran> {
        let output = on_core(OUR_CORE, Path::new("wrk"))
            .args(["--threads", "1", "--connections", &load.connections.to_string(), "--timeout", PATIENCE])
            .args(["--duration", &format!("{}s", load.lasts.as_secs()), "--header", DEADLINE, "--script"])
            .arg(&self.script)
            .arg(load.url)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run wrk")?;
        ensure!(output.status.success(), "wrk {} ended with {}", load.url, output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().rev().find(|line| line.starts_with('{')).context("wrk told no figures")?;
        read(&serde_json::from_str(figures).context("wrk's figures are no JSON")?).context("wrk left figures out")
    }
}

fn read(figures: &Value) -> Option<Ran> {
    let number = |name: &str| figures[name].as_u64();
    let ms = |name| number(name).map(|us| us as f64 / 1e3);
    Some(Ran {
        requests: number("requests")?,
        took: Duration::from_micros(number("took_us")?),
        refused: number("refused")?,
        broken: number("broken")?,
        median_ms: ms("p50")?,
        p99_ms: ms("p99")?,
        p999_ms: ms("p999")?,
    })
}
