//! Calls handed over by people's other ways in: one by one and many at a time over HTTP, and as a batch; until each has
//! arrived. Accepted are calls whose answer has come; a batch answers when all have ended.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_gauge::Process;

use super::Bench;
use super::figures::Table;
use super::server::{self, Server};
use super::upstream::Upstream;

const CALLS: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);
const BULK: &str = "bulk";
const POSTS: &str = "posts, 64 at a time";
const BATCH: &str = "batch";
/// How often a running batch's memory and processor time are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let mut table = Table::new(format!("{calls} calls by every other way in"), &[BULK, POSTS, BATCH]);
    bench.in_rounds(|round, dir| {
        let mut subjects = [BULK, POSTS, BATCH];
        subjects.rotate_left(round as usize % 3);
        subjects.into_iter().try_for_each(|subject| {
            let work = dir.join(subject.split(',').next().unwrap_or_default());
            fs::create_dir(&work)?;
            match subject {
                BULK => over_http(bench, calls, &work, ("bulk", subject), &mut table),
                POSTS => over_http(bench, calls, &work, ("posts", subject), &mut table),
                _ => as_batch(bench, calls, &work, &mut table),
            }?;
            Ok(fs::remove_dir_all(&work)?)
        })
    })?;
    Ok(table)
}

fn over_http(bench: &Bench, calls: u64, work: &Path, (way, subject): (&str, &str), table: &mut Table) -> Result<()> {
    let mut upstream = Upstream::start(&bench.programs)?;
    server::configure(work, &upstream.address)?;
    let server = Server::start(&bench.programs, work)?;
    let process = server.process();
    let cpu_before = process.cpu()?;
    let (listens, count) = (server.address(), calls.to_string());
    let args = [way, "--server", &listens, "--upstream", &upstream.address, "--calls", &count];
    let figures = bench.programs.figures("bench-client", &args)?;
    let value = |name: &str| figures[name].as_f64().with_context(|| format!("no figure {name}"));
    let tally = upstream.arrived(calls, PATIENCE)?;
    let cpu = process.cpu()? - cpu_before;
    upstream.exactly_once(calls)?;
    let memory = process.memory()?;
    server.stop()?;
    let total_s = (tally.last_us as f64 - value("begun_us")?) / 1e6;
    table.note(subject, "accepted", "calls/s", calls as f64 / value("accept_s")?);
    table.note(subject, "end to end", "calls/s", calls as f64 / total_s);
    table.note(subject, "processor time", "µs/call", cpu.as_secs_f64() * 1e6 / calls as f64);
    table.note(subject, "client's processor time", "µs/call", value("cpu_s")? * 1e6 / calls as f64);
    table.note(subject, "peak memory", "MiB", memory.peak_kib as f64 / 1024.0);
    Ok(())
}

fn as_batch(bench: &Bench, calls: u64, work: &Path, table: &mut Table) -> Result<()> {
    let mut upstream = Upstream::start(&bench.programs)?;
    server::configure(work, &upstream.address)?;
    let (input, output) = (work.join("in.ndjson"), work.join("out.ndjson"));
    write_lines(&input, calls, &upstream.address)?;
    let begun = Instant::now();
    let mut child = bench.programs.command("farcall");
    child.arg("batch").arg(&input).arg("--out").arg(&output).arg("--dir").arg(work).args(["-q", "--concurrency", "64"]);
    let (cpu, peak_kib) = watch(&mut child)?;
    let total_s = begun.elapsed().as_secs_f64();
    upstream.exactly_once(calls)?;
    let results = fs::read(&output)?.iter().filter(|&&byte| byte == b'\n').count();
    ensure!(results as u64 == calls, "{results} results of {calls} lines");
    table.note(BATCH, "end to end", "calls/s", calls as f64 / total_s);
    table.note(BATCH, "processor time", "µs/call", cpu.as_secs_f64() * 1e6 / calls as f64);
    table.note(BATCH, "peak memory", "MiB", peak_kib as f64 / 1024.0);
    Ok(())
}

/// Runs a program to its end: its processor time, and its peak memory in KiB, both as of the last look.
fn watch(command: &mut Command) -> Result<(Duration, u64)> {
    let mut child = command.stdin(Stdio::null()).spawn().context("cannot run farcall batch")?;
    let process = Process::of(child.id());
    let mut last = (Duration::ZERO, 0);
    loop {
        if let (Ok(cpu), Ok(memory)) = (process.cpu(), process.memory()) {
            last = (cpu.max(last.0), memory.peak_kib.max(last.1));
        }
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "farcall batch ended with {status}");
            return Ok(last);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn write_lines(path: &Path, calls: u64, upstream: &str) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let text = "x".repeat(389);
    for number in 0..calls {
        writeln!(file, r#"{{"url":"http://{upstream}/?n={number}","method":"POST","body":{{"text":"{text}"}}}}"#)?;
    }
    Ok(file.flush()?)
}
