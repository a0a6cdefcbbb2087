//! A server started on an inbox in which very many call files lie: how soon it answers and sends, and its memory.
//!
//! Taken is a part of them only; then the server is killed and started again, on what it took and on the rest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Bench;
use super::figures::Table;
use super::server::{self, Server};
use super::upstream::Upstream;

const FILES: u64 = 1_000_000;
/// At most so many are taken before the kill, and again after it.
const TAKEN: u64 = 5_000;
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let files = bench.calls_or(FILES);
    let mut table =
        Table::new(format!("a server started on {files} call files in its inbox"), &["first", "after a kill"]);
    bench.in_rounds(|_, dir| {
        let mut upstream = Upstream::start(&bench.programs)?;
        server::configure(dir, &upstream.address)?;
        fill(dir, files, &upstream.address)?;
        ["first", "after a kill"]
            .into_iter()
            .try_for_each(|start| run(bench, start, files, dir, &mut upstream, &mut table))
    })?;
    Ok(table)
}

fn run(bench: &Bench, start: &str, files: u64, dir: &Path, upstream: &mut Upstream, table: &mut Table) -> Result<()> {
    upstream.reset()?;
    let server = Server::start(&bench.programs, dir)?;
    let (memory, cpu) = (server.process().memory()?, server.process().cpu()?);
    upstream.arrived(1, PATIENCE)?;
    let first_us = upstream.number("after", server.spawned_us)?;
    let tally = upstream.arrived(TAKEN.min(files / 4), PATIENCE)?;
    ensure!(tally.count == tally.distinct, "calls arrived twice: {tally:?}");
    let since_spawn = |us: u64| (us - server.spawned_us) as f64 / 1e3;
    let mib = |kib: u64| kib as f64 / 1024.0;
    table.note(start, "ready after", "ms", since_spawn(server.ready_us));
    table.note(start, "processor time until ready", "ms", cpu.as_secs_f64() * 1e3);
    table.note(start, "first send after", "ms", since_spawn(first_us));
    table.note(start, "peak memory until ready", "MiB", mib(memory.peak_kib));
    table.note(start, "peak memory", "MiB", mib(server.process().memory()?.peak_kib));
    Ok(())
}

/// Small files, made where they are taken from.
fn fill(dir: &Path, files: u64, upstream: &str) -> Result<()> {
    for number in 0..files {
        let text =
            format!(r#"{{"base_url":"http://{upstream}","end_point":"/files?n={number}","method":"POST","body":1}}"#);
        fs::write(dir.join(format!("{number:07}.json")), text)?;
    }
    Ok(())
}
