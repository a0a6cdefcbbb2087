//! A server with nothing to do: the memory it holds and the processor time it takes.
//!
//! Empty directory, TCP port and socket open, inbox watched.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::figures::Table;
use super::server::Server;

const SETTLE: Duration = Duration::from_secs(1);
const WATCHED: Duration = Duration::from_secs(10);

pub(super) fn measure(bench: &Bench) -> Result<Table> {
    let mut table = Table::new(format!("a server with nothing to do, over {WATCHED:?}"), &["farcall"]);
    bench.in_rounds(|_, dir| {
        let work = dir.join("work");
        fs::create_dir(&work)?;
        let server = Server::start(&bench.programs, &work)?;
        thread::sleep(SETTLE);
        let process = server.process();
        let before = process.cpu()?;
        thread::sleep(WATCHED);
        let cpu = process.cpu()? - before;
        let memory = process.memory()?;
        table.note("farcall", "ready after", "ms", (server.ready_us - server.spawned_us) as f64 / 1e3);
        table.note("farcall", "resident memory", "MiB", memory.resident_kib as f64 / 1024.0);
        table.note("farcall", "proportional memory", "MiB", memory.proportional_kib as f64 / 1024.0);
        table.note("farcall", "processor time", "ms/s", cpu.as_secs_f64() * 1e3 / WATCHED.as_secs_f64());
        server.stop()
    })?;
    Ok(table)
}
