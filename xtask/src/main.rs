//! The project's own tools: `cargo xtask tidy` checks how the code looks, `cargo xtask test` everything, `cargo xtask
//! sim` runs the simulator, `cargo xtask faults` cuts the power many times, `cargo xtask bench` measures, `cargo xtask
//! openapi` writes the description of the API.
//!
//! Nothing here is part of the product. One module per command; a command that finds something wrong says so on
//! stderr and ends with status 1.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tools talk to a terminal")]

mod bench;
mod faults;
mod openapi;
mod planted;
mod schemathesis;
mod sim;
mod test;
mod tidy;
mod venv;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Tools for working on farcall.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Check what rustfmt and clippy cannot: lengths, directions of imports, names, documents.
    Tidy,
    /// Check formatting, tidiness and lints, and run every test.
    Test,
    /// Kill, cut the power and break the disk under the real program, more often than the tests have time for.
    Faults(faults::Rounds),
    /// Write docs/openapi.json, the description of the API, as the server tells it.
    Openapi,
    /// Try the real server with requests made from the description of its API.
    Schemathesis(schemathesis::Trial),
    /// Run seeds of the simulator, or replay one.
    Sim(sim::Seeds),
    /// Measure farcall beside the floor of its design.
    Bench(bench::Wish),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Tidy => tidy::run(&root()),
        Task::Test => test::run(&root()),
        Task::Faults(rounds) => faults::run(&root(), &rounds),
        Task::Openapi => openapi::run(&root()),
        Task::Schemathesis(trial) => schemathesis::run(&root(), &trial),
        Task::Sim(seeds) => sim::run(&root(), &seeds),
        Task::Bench(wish) => bench::run(&root(), &wish),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the whole workspace.
fn root() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir
}
