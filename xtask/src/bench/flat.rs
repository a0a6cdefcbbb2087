//! Whether a call costs the same however many wait and however many upstreams there are: processor time per call in
//! process, intake included, and its ratio to the smallest.
//!
//! In each measurement as many calls wait at its end as at its beginning: for each that ends one is submitted. About 64
//! are out at a time, but never fewer than one of each upstream, up to the engine's own bound.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Bench;
use super::figures::Table;
use super::upstream::Upstream;

/// Calls that end while it is measured.
const CALLS: u64 = 30_000;
/// Calls that wait, and upstreams; each line is compared with its first.
const LINES: [&[(u64, u32)]; 2] =
    [&[(10, 1), (1_000, 1), (100_000, 1), (1_000_000, 1)], &[(100_000, 1), (100_000, 100), (100_000, 10_000)]];

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let title = format!("processor time per call over {calls} calls, beside waiting calls and upstreams");
    let mut table = Table::new(title, &["farcall"]);
    bench.in_rounds(|round, dir| {
        let mut points: Vec<(u64, u32)> = LINES.concat();
        points.dedup();
        points.sort_unstable();
        points.dedup();
        if round % 2 == 1 {
            points.reverse();
        }
        let mut costs = Vec::new();
        for &(waiting, upstreams) in &points {
            let work = dir.join(format!("{waiting}-{upstreams}"));
            fs::create_dir(&work)?;
            let [cost, peak_mib] = run(bench, calls, waiting, upstreams, &work)?;
            fs::remove_dir_all(&work)?;
            costs.push(((waiting, upstreams), cost, peak_mib));
        }
        costs.sort_unstable_by_key(|&(point, ..)| point);
        for ((waiting, upstreams), cost, peak_mib) in &costs {
            let name = format!("{waiting} waiting, {upstreams} upstreams");
            table.note("farcall", &name, "µs/call", *cost);
            table.note("farcall", &format!("  peak memory, {waiting}/{upstreams}"), "MiB", *peak_mib);
        }
        for line in LINES {
            let cost = |point| costs.iter().find(|(known, ..)| *known == point).map_or(f64::NAN, |&(_, cost, _)| cost);
            for &point in &line[1..] {
                let name = format!("  {}/{} to {}/{}", point.0, point.1, line[0].0, line[0].1);
                table.note("farcall", &name, "ratio", cost(point) / cost(line[0]));
            }
        }
        Ok(())
    })?;
    Ok(table)
}

/// Processor time in µs per call, and peak memory in MiB.
fn run(bench: &Bench, calls: u64, waiting: u64, upstreams: u32, work: &Path) -> Result<[f64; 2]> {
    let upstream = Upstream::start(&bench.programs)?;
    let dir = work.to_str().context("the scratch directory's name is UTF-8")?;
    let (count, waiting, upstreams) = (calls.to_string(), waiting.to_string(), upstreams.to_string());
    let shared = ["--dir", dir, "--upstream", &upstream.address, "--upstreams", &upstreams];
    bench.programs.figures("bench-engine", &[&["fill", "--calls", &waiting], &shared[..]].concat())?;
    // Every upstream has been called before it is measured.
    let warm_up = (u64::from(upstreams.parse::<u32>()?) * 2).max(5_000).to_string();
    let steady = ["steady", "--calls", &count, "--waiting", &waiting, "--warm-up", &warm_up];
    let figures = bench.programs.figures("bench-engine", &[&steady, &shared[..]].concat())?;
    let value = |name: &str| figures[name].as_f64().with_context(|| format!("no figure {name}"));
    Ok([value("cpu_s")? * 1e6 / calls as f64, value("peak_kib")? / 1024.0])
}
