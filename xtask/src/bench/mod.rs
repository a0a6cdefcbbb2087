//! `cargo xtask bench`: how fast farcall is, beside the floor of its design, in one run on one machine.
//!
//! Machines drift, so what is compared runs alternately, in several rounds, each in a fresh directory; only ratios of one
//! run count. Every scenario checks that each call arrived exactly once, and fails when one did not. A new scenario is a
//! module here and a line in [`SCENARIOS`].

mod bulk;
mod figures;
mod files;
mod flat;
mod folder;
mod gateway;
mod idle;
mod intake;
mod limits;
mod million;
mod mixed;
mod programs;
mod restart;
mod server;
mod upstream;
mod waiting;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use figures::Table;
use programs::Programs;

/// What to measure, and how often.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    /// Only these; all without any.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(SCENARIOS.map(|(name, _)| name)))]
    scenarios: Vec<String>,
    /// Rounds of each scenario, at most 20.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Calls of a round, at most 1,000,000; each scenario has its own number otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    calls: Option<u64>,
    /// Upstreams of the scenario that has many, at most 10,000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    upstreams: Option<u32>,
    /// Write the figures of every round to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the directories of the rounds are made, and removed again; a file system like the one that is asked about.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// What a scenario works with.
struct Bench {
    /// Of the repository.
    root: PathBuf,
    programs: Programs,
    scratch: PathBuf,
    rounds: u32,
    calls: Option<u64>,
    upstreams: Option<u32>,
}

type Scenario = fn(&Bench) -> Result<Table>;

const SCENARIOS: [(&str, Scenario); 13] = [
    ("bulk", bulk::measure),
    ("intake", intake::measure),
    ("files", files::measure),
    ("folder", folder::measure),
    ("idle", idle::measure),
    ("waiting", waiting::measure),
    ("restart", restart::measure),
    ("million", million::measure),
    ("flat", flat::measure),
    ("limits", limits::measure),
    ("gateway", gateway::measure),
    ("tail", gateway::measure_tail),
    ("mixed", mixed::measure),
];

/// Builds the programs, measures, prints the tables.
pub(crate) fn run(root: &Path, wish: &Wish) -> Result<()> {
    let programs = Programs::build(root)?;
    let scratch = wish.scratch.clone().unwrap_or_else(|| programs.scratch());
    let &Wish { rounds, calls, upstreams, .. } = wish;
    let bench = Bench { root: root.to_owned(), programs, scratch, rounds, calls, upstreams };
    let mut results = serde_json::Map::new();
    for (name, measure) in SCENARIOS {
        if wish.scenarios.is_empty() || wish.scenarios.iter().any(|wished| wished == name) {
            let table = measure(&bench).with_context(|| format!("FAILED: {name}"))?;
            println!("\n{name}: {table}");
            results.insert(name.to_owned(), table.to_json());
        }
    }
    if let Some(path) = &wish.json {
        let text = serde_json::to_string_pretty(&json!({ "rounds": wish.rounds, "scenarios": results }))?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Bench {
    fn calls_or(&self, usual: u64) -> u64 {
        self.calls.unwrap_or(usual)
    }

    /// Measures in rounds, each in a new directory that is removed afterwards.
    fn in_rounds(&self, mut round: impl FnMut(u32, &Path) -> Result<()>) -> Result<()> {
        for number in 0..self.rounds {
            let dir = self.scratch.join(format!("{}-{number}", std::process::id()));
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            let done = round(number, &dir);
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            done?;
        }
        Ok(())
    }
}
