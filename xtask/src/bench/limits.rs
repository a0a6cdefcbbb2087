//! What limits let through and what they cost: how much of its allowance an upstream gets, the worst window that it sees,
//! and the processor time of a limit that never binds.
//!
//! A server is started on calls that wait; the windows are counted by the upstream, from the first arrival on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::figures::Table;
use super::server::{self, Plan, Server};
use super::upstream::Upstream;

const CALLS: u64 = 50_000;
/// Upstreams that share the calls of the limit that never binds.
const UPSTREAMS: u32 = 100;
/// Each gets fewer than that.
const NEVER_BINDS: [&str; 2] = ["10000/1m", "100000/1h"];
const PATIENCE: Duration = Duration::from_secs(60);
const UNLIMITED: &str = "unlimited";
const LIMITED: &str = "limited";

/// Limits, and in how many seconds how many calls are allowed by them.
const BINDING: [(&str, &[&str], u64, u64); 2] =
    [("100/s", &["100/1s"], 10, 1_000), ("10/s + 400/h", &["10/1s", "400/1h"], 40, 400)];

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let calls = bench.calls_or(CALLS);
    let title = format!("limits that bind, and {calls} calls under limits that never do");
    let mut table = Table::new(title, &[LIMITED, UNLIMITED]);
    bench.in_rounds(|round, dir| {
        for (name, limits, seconds, allowed) in BINDING {
            let work = dir.join(allowed.to_string());
            fs::create_dir(&work)?;
            let binding = Binding { name, limits, seconds, allowed };
            binding.run(bench, &work, &mut table)?;
        }
        let mut order = [(LIMITED, &NEVER_BINDS[..]), (UNLIMITED, &[])];
        if round % 2 == 1 {
            order.reverse();
        }
        order.into_iter().try_for_each(|(subject, limits)| unbound(bench, subject, limits, calls, dir, &mut table))
    })?;
    Ok(table)
}

struct Binding {
    name: &'static str,
    limits: &'static [&'static str],
    seconds: u64,
    allowed: u64,
}

impl Binding {
    fn run(&self, bench: &Bench, work: &Path, table: &mut Table) -> Result<()> {
        let &Self { name, limits, seconds, allowed } = self;
        let mut upstream = Upstream::start(&bench.programs)?;
        let dir = work.to_str().context("the scratch directory's name is UTF-8")?;
        let count = (allowed * 2).to_string();
        let args = ["fill", "--dir", dir, "--upstream", &upstream.address, "--calls", &count];
        bench.programs.figures("bench-engine", &args)?;
        // What went out with the calls counts, too.
        let earlier = upstream.tally()?.count;
        upstream.reset()?;
        server::configure_many(work, &upstream.address, &Plan { limits, ..Plan::default() })?;
        let server = Server::start(&bench.programs, work)?;
        upstream.arrived(1, PATIENCE)?;
        thread::sleep(Duration::from_secs(seconds) + Duration::from_millis(500));
        let arrived = upstream.number("within", seconds * 1_000_000)?;
        server.stop()?;
        let hour = upstream.tally()?.count;
        ensure!(limits.len() == 1 || hour + earlier <= allowed, "{hour} calls of {allowed} in an hour");
        let worst = upstream.number("worst", 1_000_000)?;
        let used = arrived as f64 / (allowed - if limits.len() > 1 { earlier } else { 0 }) as f64;
        table.note(LIMITED, &format!("{name}: used of {allowed} in {seconds} s"), "%", used * 100.0);
        table.note(LIMITED, &format!("{name}: worst second"), "calls", worst as f64);
        Ok(())
    }
}

fn unbound(
    bench: &Bench,
    subject: &'static str,
    limits: &[&str],
    calls: u64,
    dir: &Path,
    table: &mut Table,
) -> Result<()> {
    let work = dir.join(subject);
    fs::create_dir(&work)?;
    let mut upstream = Upstream::start(&bench.programs)?;
    let work = work.to_str().context("the scratch directory's name is UTF-8")?;
    let (count, upstreams) = (calls.to_string(), UPSTREAMS.to_string());
    let mut args = vec!["bulk", "--dir", work, "--upstream", &upstream.address, "--calls", &count];
    args.extend(["--upstreams", &upstreams]);
    args.extend(limits.iter().flat_map(|limit| ["--limit", *limit]));
    let figures = bench.programs.figures("bench-engine", &args)?;
    upstream.exactly_once(calls)?;
    let cpu_s = figures["cpu_s"].as_f64().context("no processor time")?;
    table.note(subject, "processor time, never binding", "µs/call", cpu_s * 1e6 / calls as f64);
    Ok(())
}
