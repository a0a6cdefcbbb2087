//! farcall's engine in process, as its command line runs it but without one: many durable calls handed to its `Handle`.
//!
//! `bulk` waits until all have ended, `fill` lets them wait behind a limit and leaves them in the directory, `steady`
//! goes on with what `fill` left and lets as many wait as before while it delivers. Figures are printed as JSON. A single
//! upstream is named `bench`; of several each is an origin of its own, declared (`u0`, `u1`, ...) only on request.
#![expect(clippy::print_stdout, reason = "stdout is where its figures go")]

mod feed;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bench_gauge::{Process, now_us};
use clap::Parser;
use farcall_core::call::State;
use farcall_engine::config::{LoadOptions, load};
use farcall_engine::{Engine, Handle, Options};
use farcall_store::sqlite::SqliteStore;
use mimalloc::MiMalloc;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// One run.
#[derive(Debug, Parser)]
struct Args {
    #[arg(value_enum)]
    task: Task,
    /// An empty directory; its `farcall.yml` is written.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    upstream: SocketAddr,
    /// How many, at neighbouring addresses.
    #[arg(long, default_value_t = 1)]
    upstreams: u32,
    /// Several are declared.
    #[arg(long)]
    declared: bool,
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Attempts at a time.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Bytes of a body.
    #[arg(long, default_value_t = 400)]
    body: usize,
    /// Calls that have ended before it begins to measure; `steady` alone.
    #[arg(long, default_value_t = 5_000)]
    warm_up: u64,
    /// Calls that wait; `steady` alone.
    #[arg(long, default_value_t = 0)]
    waiting: u64,
    /// End as if killed, without closing the store; `fill` alone.
    #[arg(long)]
    abandon: bool,
    /// The upstream's limits, for example `10/1s`.
    #[arg(long)]
    limit: Vec<String>,
    /// Seconds after which it gives up.
    #[arg(long, default_value_t = 120)]
    patience: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Task {
    /// Until all calls have succeeded.
    Bulk,
    /// Until all calls are accepted.
    Fill,
    /// Until so many more have ended.
    Steady,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(run(&args));
    runtime.shutdown_background();
    println!("{}", figures?);
    Ok(())
}

async fn run(args: &Args) -> Result<Value> {
    let own = Process::own();
    let begun_us = now_us();
    let engine = start(args)?;
    let started_us = now_us();
    let handle = engine.handle();
    let calls = args.sent();
    let patience = Duration::from_secs(args.patience);
    if args.task == Task::Steady {
        let warm_up = feed::keep_open(handle, &calls, args.open(), args.warm_up);
        tokio::time::timeout(patience, warm_up).await.context("not warm in time")??;
    }
    let (cpu_before, threads_before) = (own.cpu()?, own.cpu_by_thread()?);
    let measured_us = now_us();
    match args.task {
        Task::Bulk | Task::Fill => feed::submit(handle, &calls, 0..args.calls).await?,
        Task::Steady => {
            let delivering = feed::keep_open(handle, &calls, args.open(), args.calls);
            tokio::time::timeout(patience, delivering).await.context("not all calls ended in time")??;
        }
    }
    let accepted_us = now_us();
    if args.task == Task::Bulk {
        let ended = tokio::time::timeout(patience, all_succeeded(handle, args.calls));
        ended.await.context("not all calls ended in time")??;
    }
    let done_us = now_us();
    let cpu = own.cpu()? - cpu_before;
    let threads = spent(&own.cpu_by_thread()?, &threads_before);
    let memory = own.memory()?;
    if args.abandon {
        // Its threads go with the process.
        std::mem::forget(engine);
    } else {
        handle.drain().await;
        engine.join().await?;
    }
    let seconds = |us: u64| us as f64 / 1e6;
    Ok(json!({
        "start_s": seconds(started_us - begun_us),
        "accept_s": seconds(accepted_us - measured_us),
        "total_s": seconds(done_us - measured_us),
        "cpu_s": cpu.as_secs_f64(),
        "threads_s": threads,
        "resident_kib": memory.resident_kib,
        "peak_kib": memory.peak_kib,
    }))
}

impl Args {
    fn sent(&self) -> feed::Calls {
        feed::Calls { upstream: self.upstream, upstreams: self.upstreams, body_bytes: self.body }
    }

    /// Calls that wait, and those that are out.
    fn open(&self) -> u64 {
        self.waiting + u64::from(self.concurrency)
    }
}

fn start(args: &Args) -> Result<Engine> {
    std::fs::write(args.dir.join("farcall.yml"), configuration(args))?;
    let config = Arc::new(load(&args.dir, &LoadOptions::default())?.config);
    let store = open(&args.dir)?;
    let options = Options { directory: args.dir.clone(), config, launcher: "/proc/self/exe".into() };
    Ok(Engine::start(Box::new(store), options)?)
}

fn open(dir: &Path) -> Result<SqliteStore> {
    Ok(SqliteStore::open(&dir.join(".farcall"))?)
}

fn configuration(args: &Args) -> String {
    let limits = match args.task {
        Task::Fill => json!(["1/1d"]),
        Task::Bulk | Task::Steady => json!(args.limit),
    };
    let calls = args.sent();
    // In all about as many are out as with one.
    let concurrency = (args.concurrency / args.upstreams).max(1);
    let named = |number: u32| {
        let name = if args.upstreams == 1 { "bench".to_owned() } else { format!("u{number}") };
        (name, json!({ "base_url": format!("http://{}", calls.address(number)) }))
    };
    let declared = if args.declared || args.upstreams == 1 { args.upstreams } else { 0 };
    let upstreams: serde_json::Map<String, Value> = (0..declared).map(named).collect();
    let defaults = json!({ "concurrency": concurrency, "limits": limits, "addresses": "any" });
    // JSON is YAML.
    json!({ "defaults": defaults, "upstreams": upstreams }).to_string()
}

async fn all_succeeded(handle: &Handle, calls: u64) -> Result<()> {
    let mut snapshots = handle.snapshots();
    loop {
        let census = snapshots.borrow_and_update().census;
        let succeeded = census.calls(State::Succeeded);
        if succeeded == calls {
            return Ok(());
        }
        let ended: u64 = State::ALL.iter().filter(|state| state.is_end()).map(|state| census.calls(*state)).sum();
        if ended > succeeded {
            bail!("{} calls did not succeed", ended - succeeded);
        }
        snapshots.changed().await.context("the engine has ended")?;
    }
}

fn spent(now: &BTreeMap<String, Duration>, before: &BTreeMap<String, Duration>) -> BTreeMap<String, f64> {
    let since = |name: &String, time: &Duration| time.saturating_sub(before.get(name).copied().unwrap_or_default());
    now.iter().map(|(name, time)| (name.clone(), since(name, time).as_secs_f64())).collect()
}
