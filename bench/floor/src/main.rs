//! The floor: what the durable path costs when nothing is promised but durability.
//!
//! Calls are inserted into SQLite with `synchronous=FULL`, 100 to a commit; then they are claimed by the thousand, sent
//! on keep-alive connections, and their status is written in group commits. No limits, no retries, no answers kept, no
//! intake: a ceiling for farcall's design on this machine, not a product. Its figures are printed as JSON.
#![expect(clippy::print_stdout, reason = "stdout is where its figures go")]

mod send;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use bench_gauge::{Process, now_us};
use clap::Parser;
use mimalloc::MiMalloc;
use serde_json::json;

use store::Floor;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// One run.
#[derive(Debug, Parser)]
struct Args {
    /// An empty directory.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    upstream: SocketAddr,
    #[arg(long, default_value_t = 100_000)]
    calls: u32,
    /// Calls in a commit.
    #[arg(long, default_value_t = 100)]
    batch: u32,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a body.
    #[arg(long, default_value_t = 400)]
    body: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let own = Process::own();
    let cpu_before = own.cpu()?;
    let begun_us = now_us();
    let mut floor = Floor::open(&args.dir.join("floor.db"))?;
    floor.insert(args.calls, args.batch, args.body)?;
    let stored_us = now_us();
    send::deliver(floor, args.upstream, args.connections)?;
    let done_us = now_us();
    let seconds = |us: u64| us as f64 / 1e6;
    println!(
        "{}",
        json!({
            "accept_s": seconds(stored_us - begun_us),
            "deliver_s": seconds(done_us - stored_us),
            "total_s": seconds(done_us - begun_us),
            "cpu_s": (own.cpu()? - cpu_before).as_secs_f64(),
            "peak_kib": own.memory()?.peak_kib,
        })
    );
    Ok(())
}
