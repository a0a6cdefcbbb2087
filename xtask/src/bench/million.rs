//! A server killed on very many waiting calls and started again, for one upstream and for very many: how soon it goes on,
//! and the memory it takes over the start and while it delivers.
//!
//! The calls were accepted by an engine that ended without closing its store. Started is twice: with the store in the
//! kernel's cache, and after that was dropped. Delivered is a part of them only, counted from the first arrival.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::figures::Table;
use super::server::{self, Plan, Server};
use super::upstream::Upstream;

const CALLS: u64 = 1_000_000;
const UPSTREAMS: u32 = 10_000;
/// At most so many are delivered.
const DELIVERED: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(120);

const ONE: &str = "one upstream";
const ORIGINS: &str = "many origins";
const DECLARED: &str = "many declared";

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let (calls, many) = (bench.calls_or(CALLS), bench.upstreams.unwrap_or(UPSTREAMS));
    let title = format!("a server killed on {calls} waiting calls, for 1 and for {many} upstreams");
    let mut table = Table::new(title, &[ONE, ORIGINS, DECLARED]);
    bench.in_rounds(|round, dir| {
        let mut subjects = [(ONE, 1, false), (ORIGINS, many, false), (DECLARED, many, true)];
        subjects.rotate_left(round as usize % 3);
        subjects.into_iter().try_for_each(|(subject, upstreams, declared)| {
            let plan = Plan { upstreams, declared, ..Plan::default() };
            let work = dir.join(subject.replace(' ', "-"));
            fs::create_dir(&work)?;
            run(bench, subject, calls, &plan, &work, &mut table)?;
            Ok(fs::remove_dir_all(&work)?)
        })
    })?;
    Ok(table)
}

fn run(bench: &Bench, subject: &str, calls: u64, plan: &Plan, work: &Path, table: &mut Table) -> Result<()> {
    let mut upstream = Upstream::start(&bench.programs)?;
    fill(bench, calls, plan, work, &upstream.address, subject, table)?;
    upstream.reset()?;
    server::configure_many(work, &upstream.address, plan)?;
    for temperature in ["warm", "cold"] {
        if temperature == "cold" {
            drop_caches(work)?;
        }
        let before = upstream.tally()?;
        let server = Server::start(&bench.programs, work)?;
        let memory = server.process().memory()?;
        let cpu_ready = server.process().cpu()?;
        upstream.arrived(before.count + 1, PATIENCE)?;
        let first_us = upstream.number("after", server.spawned_us)?;
        let since_spawn = |us: u64| (us - server.spawned_us) as f64 / 1e3;
        table.note(subject, &format!("ready after, {temperature}"), "ms", since_spawn(server.ready_us));
        table.note(subject, &format!("first send after, {temperature}"), "ms", since_spawn(first_us));
        if temperature == "warm" {
            table.note(subject, "processor time until ready", "ms", cpu_ready.as_secs_f64() * 1e3);
            table.note(subject, "resident memory when ready", "MiB", memory.resident_kib as f64 / 1024.0);
            table.note(subject, "peak memory until ready", "MiB", memory.peak_kib as f64 / 1024.0);
            deliver(subject, &mut upstream, &server, calls, table)?;
        }
    }
    Ok(())
}

/// Accepts the calls; an upstream's limit lets one through.
fn fill(
    bench: &Bench,
    calls: u64,
    plan: &Plan,
    work: &Path,
    upstream: &str,
    subject: &str,
    table: &mut Table,
) -> Result<()> {
    let dir = work.to_str().context("the scratch directory's name is UTF-8")?;
    let (count, upstreams) = (calls.to_string(), plan.upstreams.to_string());
    let mut args = vec!["fill", "--dir", dir, "--upstream", upstream, "--calls", &count, "--upstreams", &upstreams];
    args.push("--abandon");
    if plan.declared {
        args.push("--declared");
    }
    let figures = bench.programs.figures("bench-engine", &args)?;
    let value = |name: &str| figures[name].as_f64().with_context(|| format!("no figure {name}"));
    table.note(subject, "accepted", "calls/s", calls as f64 / value("accept_s")?);
    table.note(subject, "peak memory while accepting", "MiB", value("peak_kib")? / 1024.0);
    Ok(())
}

fn deliver(subject: &str, upstream: &mut Upstream, server: &Server, calls: u64, table: &mut Table) -> Result<()> {
    let process = server.process();
    let before = upstream.tally()?;
    let cpu_before = process.cpu()?;
    let wanted = DELIVERED.min(calls / 2);
    let after = upstream.arrived(before.count + wanted, PATIENCE)?;
    let cpu = process.cpu()? - cpu_before;
    ensure!(after.count == after.distinct, "calls arrived twice: {after:?}");
    let delivered = (after.count - before.count) as f64;
    let memory = process.memory()?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    table.note(subject, "processor time, delivering", "µs/call", cpu.as_secs_f64() * 1e6 / delivered);
    table.note(subject, "resident memory, delivering", "MiB", mib(memory.resident_kib));
    table.note(subject, "proportional memory, delivering", "MiB", mib(memory.proportional_kib));
    table.note(subject, "peak memory", "MiB", mib(memory.peak_kib));
    Ok(())
}

/// Of the store alone; other programs keep theirs.
fn drop_caches(work: &Path) -> Result<()> {
    for entry in fs::read_dir(work.join(".farcall"))? {
        let path = entry?.path();
        if path.is_file() {
            let source = format!("if={}", path.display());
            let dd = Command::new("dd").args([&source, "iflag=nocache", "count=0", "status=none"]).status()?;
            ensure!(dd.success(), "dd cannot drop the cache of {}", path.display());
        }
    }
    Ok(())
}
