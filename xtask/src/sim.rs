//! `cargo xtask sim`: runs many seeds of the simulator, or one again.
//!
//! A failure shows the end of the seed's log, what was found, and the command that replays it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};
use clap::Args;

use crate::planted;

/// Which seeds to run.
#[derive(Debug, Args)]
pub(crate) struct Seeds {
    /// How many, side by side on all processors.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this one.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With `--seed`: the lines of its log to show when it fails.
    #[arg(long, default_value_t = 200)]
    lines: usize,
    /// Plant each of the known bugs in a copy of the sources, and show that the seeds find it.
    #[arg(long, conflicts_with_all = ["first", "seed"])]
    planted: bool,
}

/// Runs them, and tells what they came to.
pub(crate) fn run(root: &Path, seeds: &Seeds) -> Result<()> {
    if seeds.planted {
        return planted::run(root, seeds.seeds);
    }
    let begun = Instant::now();
    let done = match seeds.seed {
        Some(seed) => farcall_sim::replay(seed, seeds.lines),
        None => farcall_sim::run_many(seeds.first, seeds.seeds),
    };
    let summary = done.map_err(|failure| anyhow!("a promise is broken\n{failure}"))?;
    println!("{summary}; {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}
