//! Memory of an engine in process whose calls wait behind a limit, and how fast it accepts them.
//!
//! One attempt a day is allowed: the first call is sent, the others stay.

use std::fs;

use anyhow::{Context as _, Result};

use super::Bench;
use super::figures::Table;
use super::upstream::Upstream;

const CALLS: u64 = 20_000;

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let mut table = Table::new(format!("{calls} calls that wait behind a limit"), &["farcall"]);
    bench.in_rounds(|_, dir| {
        let work = dir.join("work");
        fs::create_dir(&work)?;
        let upstream = Upstream::start(&bench.programs)?;
        let work = work.to_str().context("the scratch directory's name is UTF-8")?;
        let args = ["fill", "--dir", work, "--upstream", &upstream.address, "--calls", &calls.to_string()];
        let figures = bench.programs.figures("bench-engine", &args)?;
        let value = |name: &str| figures[name].as_f64().with_context(|| format!("no figure {name}"));
        table.note("farcall", "accepted", "calls/s", calls as f64 / value("accept_s")?);
        table.note("farcall", "processor time", "µs/call", value("cpu_s")? * 1e6 / calls as f64);
        table.note("farcall", "resident memory", "MiB", value("resident_kib")? / 1024.0);
        table.note("farcall", "peak memory", "MiB", value("peak_kib")? / 1024.0);
        Ok(())
    })?;
    Ok(table)
}
