//! A server started on a directory in which many calls wait: how soon it answers, and how soon it sends again.
//!
//! The calls were held back by a limit that the server's configuration does not have any more.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::figures::Table;
use super::server::{self, Server};
use super::upstream::Upstream;

const CALLS: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let mut table = Table::new(format!("a server started on {calls} waiting calls"), &["farcall"]);
    bench.in_rounds(|_, dir| run(bench, calls, dir, &mut table))?;
    Ok(table)
}

fn run(bench: &Bench, calls: u64, dir: &Path, table: &mut Table) -> Result<()> {
    let work = dir.join("work");
    fs::create_dir(&work)?;
    let mut upstream = Upstream::start(&bench.programs)?;
    let folder = work.to_str().context("the scratch directory's name is UTF-8")?;
    let args = ["fill", "--dir", folder, "--upstream", &upstream.address, "--calls", &calls.to_string()];
    bench.programs.figures("bench-engine", &args)?;
    // The limit let one through.
    let before = upstream.tally()?;
    ensure!(before.count <= 1, "the limit let {} calls through", before.count);
    upstream.reset()?;
    server::configure(&work, &upstream.address)?;
    let server = Server::start(&bench.programs, &work)?;
    let first = upstream.arrived(1, PATIENCE)?;
    let resident_kib = server.process().memory()?.resident_kib;
    let all = upstream.arrived(calls - before.count, PATIENCE)?;
    upstream.exactly_once(calls - before.count)?;
    let spawned_us = server.spawned_us;
    table.note("farcall", "ready after", "ms", (server.ready_us - spawned_us) as f64 / 1e3);
    table.note("farcall", "first send after", "ms", (first.first_us - spawned_us) as f64 / 1e3);
    table.note(
        "farcall",
        "delivered from then on",
        "calls/s",
        calls as f64 * 1e6 / (all.last_us - first.first_us) as f64,
    );
    table.note("farcall", "resident memory when ready", "MiB", resident_kib as f64 / 1024.0);
    table.note("farcall", "peak memory", "MiB", server.process().memory()?.peak_kib as f64 / 1024.0);
    server.stop()
}
