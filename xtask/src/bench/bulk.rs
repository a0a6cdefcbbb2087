//! Many durable calls handed to the engine in process, a thousand at a time, beside the floor.
//!
//! farcall accepts and delivers at once, the floor first one and then the other; end to end is from the first call
//! handed over to the last end that is durable, for both.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Bench;
use super::figures::Table;
use super::upstream::Upstream;

const CALLS: u64 = 100_000;
const SUBJECTS: [&str; 2] = ["farcall", "floor"];

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let mut table = Table::new(format!("{calls} durable calls in process, 64 in flight"), &SUBJECTS);
    bench.in_rounds(|round, dir| {
        // Neither is always the one that finds the machine warm.
        let mut order = SUBJECTS;
        if round % 2 == 1 {
            order.reverse();
        }
        order.into_iter().try_for_each(|subject| run(bench, subject, calls, dir, &mut table))
    })?;
    Ok(table)
}

fn run(bench: &Bench, subject: &'static str, calls: u64, dir: &Path, table: &mut Table) -> Result<()> {
    let dir = dir.join(subject);
    fs::create_dir(&dir)?;
    let mut upstream = Upstream::start(&bench.programs)?;
    let dir = dir.to_str().context("the scratch directory's name is UTF-8")?;
    let count = calls.to_string();
    let args = ["--dir", dir, "--upstream", &upstream.address, "--calls", &count];
    let figures = match subject {
        "farcall" => bench.programs.figures("bench-engine", &[&["bulk"], &args[..]].concat())?,
        _ => bench.programs.figures("bench-floor", &args)?,
    };
    let tally = upstream.exactly_once(calls)?;
    let value = |name: &str| figures[name].as_f64().with_context(|| format!("no figure {name}"));
    let calls = calls as f64;
    let delivered_s = (tally.last_us - tally.first_us) as f64 / 1e6;
    table.note(subject, "accepted", "calls/s", calls / value("accept_s")?);
    table.note(subject, "delivered", "calls/s", calls / delivered_s);
    table.note(subject, "end to end", "calls/s", calls / value("total_s")?);
    table.note(subject, "processor time", "µs/call", value("cpu_s")? * 1e6 / calls);
    table.note(subject, "peak memory", "MiB", value("peak_kib")? / 1024.0);
    table.note(subject, "upstream's processor time", "µs/call", upstream.cpu_s()? * 1e6 / calls);
    note_threads(table, subject, &figures["threads_s"], calls);
    Ok(())
}

fn note_threads(table: &mut Table, subject: &str, threads: &Value, calls: f64) {
    for (name, seconds) in threads.as_object().into_iter().flatten() {
        let per_call = seconds.as_f64().unwrap_or_default() * 1e6 / calls;
        if per_call >= 0.1 {
            table.note(subject, &format!("  of it {name}"), "µs/call", per_call);
        }
    }
}
