//! Call files dropped into the inbox of a running server, until each has its response file.
//!
//! Durable is a file when it has left the inbox, through when its response file stands; both are counted by looking at the
//! directories now and then, which costs the machine a little.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::figures::Table;
use super::server::{self, Server};
use super::upstream::Upstream;

const FILES: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let files = bench.calls_or(FILES);
    let mut table = Table::new(format!("{files} call files renamed into the inbox of a server"), &["farcall"]);
    bench.in_rounds(|_, dir| run(bench, files, dir, &mut table))?;
    Ok(table)
}

fn run(bench: &Bench, files: u64, dir: &Path, table: &mut Table) -> Result<()> {
    let mut upstream = Upstream::start(&bench.programs)?;
    let (work, staged) = (dir.join("work"), dir.join("staged"));
    fs::create_dir(&work)?;
    server::configure(&work, &upstream.address)?;
    stage(&staged, files, &upstream.address)?;
    let server = Server::start(&bench.programs, &work)?;
    let process = server.process();
    let (cpu_before, threads_before) = (process.cpu()?, process.cpu_by_thread()?);
    let begun = Instant::now();
    for number in 0..files {
        let name = format!("{number:07}.json");
        fs::rename(staged.join(&name), work.join(name))?;
    }
    let dropped_s = begun.elapsed().as_secs_f64();
    let durable_s = until(begun, || Ok(waiting(&work)? == 0))?;
    let through_s = until(begun, || Ok(fs::read_dir(work.join("responses"))?.count() as u64 == files))?;
    let (cpu, threads) = (process.cpu()? - cpu_before, process.cpu_by_thread()?);
    upstream.exactly_once(files)?;
    let memory = process.memory()?;
    server.stop()?;
    let count = files as f64;
    table.note("farcall", "dropped", "files/s", count / dropped_s);
    table.note("farcall", "durable", "files/s", count / durable_s);
    table.note("farcall", "through to response files", "files/s", count / through_s);
    table.note("farcall", "processor time", "µs/file", cpu.as_secs_f64() * 1e6 / count);
    note_threads(table, &threads, &threads_before, count);
    table.note("farcall", "peak memory", "MiB", memory.peak_kib as f64 / 1024.0);
    Ok(())
}

fn note_threads(
    table: &mut Table,
    threads: &BTreeMap<String, Duration>,
    before: &BTreeMap<String, Duration>,
    count: f64,
) {
    for (name, time) in threads {
        let spent = time.saturating_sub(before.get(name).copied().unwrap_or_default());
        let per_file = spent.as_secs_f64() * 1e6 / count;
        if per_file >= 0.1 {
            table.note("farcall", &format!("  of it {name}"), "µs/file", per_file);
        }
    }
}

/// Writes the files beside the inbox, on the same file system.
fn stage(staged: &Path, files: u64, upstream: &str) -> Result<()> {
    fs::create_dir(staged)?;
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(389));
    for number in 0..files {
        let text = format!(
            r#"{{"base_url":"http://{upstream}","end_point":"/files?n={number}","method":"POST","body":{body}}}"#
        );
        fs::write(staged.join(format!("{number:07}.json")), text)?;
    }
    Ok(())
}

/// Call files that are still in the inbox.
fn waiting(work: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(work)? {
        count += u64::from(entry?.file_name().to_str().is_some_and(|name| name.ends_with(".json")));
    }
    Ok(count)
}

/// Seconds from the beginning until it is so.
fn until(begun: Instant, is_so: impl Fn() -> Result<bool>) -> Result<f64> {
    while !is_so()? {
        ensure!(begun.elapsed() < PATIENCE, "not done after {PATIENCE:?}");
        thread::sleep(LOOK_EVERY);
    }
    Ok(begun.elapsed().as_secs_f64())
}
