//! `cargo xtask faults`: the long form of the tests that kill, cut the power and break the disk.
//!
//! The tests themselves are those of `cargo xtask test`; here they run more rounds, and at every boundary.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// How long to go on.
#[derive(Debug, Args)]
pub(crate) struct Rounds {
    /// Kills and power cuts at random moments; at every boundary the power is cut as well.
    #[arg(long, default_value_t = 30)]
    rounds: u64,
    /// Only tests whose names hold one of these.
    #[arg(default_values_t = ["crash", "power", "disk_", "memory", "stopping"].map(str::to_owned))]
    tests: Vec<String>,
}

/// Runs them, one after the other so that none is slowed down by another.
pub(crate) fn run(root: &Path, rounds: &Rounds) -> Result<()> {
    let begun = Instant::now();
    let status = Command::new("cargo")
        .args(["test", "--locked", "--package=farcall-cli", "--test=it", "--", "--nocapture", "--test-threads=1"])
        .args(&rounds.tests)
        .env("FARCALL_TEST_ROUNDS", rounds.rounds.to_string())
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "a promise is broken");
    println!("{} rounds; {:.0} s", rounds.rounds, begun.elapsed().as_secs_f64());
    Ok(())
}
