//! `cargo xtask schemathesis`: thousands of requests made from the API's own description, right ones and wrong ones,
//! against the real server, each answer compared with what the description says.
//!
//! All checks of schemathesis, links followed (`xtask/schemathesis/` has its configuration and what it is told beside the
//! document). The server works in a directory of its own with tokens, and whatever it calls is `upstream`, on loopback.
//! With a fixed seed, and bounded in examples and time; what cannot be run fails.

mod server;
mod traffic;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use server::Server;
use traffic::Traffic;
use upstream::Upstream;

use crate::venv;

const TOKEN: &str = "a token for schemathesis";
/// Where everything of this is, in the repository.
const HOME: &str = "xtask/schemathesis";
/// Much longer than it takes; whoever hangs is ended.
const TIME_MAX: Duration = Duration::from_secs(300);

/// How much to try.
#[derive(Debug, Args)]
pub(crate) struct Trial {
    /// Requests per operation and phase at most, instead of what the configuration says.
    #[arg(long)]
    examples: Option<u32>,
    /// Which requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only operations with this id.
    #[arg(long)]
    operation: Option<String>,
}

impl Default for Trial {
    fn default() -> Self {
        Self { examples: None, seed: 1, operation: None }
    }
}

/// Builds the server, starts it, and lets schemathesis try it.
pub(crate) fn run(root: &Path, trial: &Trial) -> Result<()> {
    let target = target(root)?;
    let requirements = root.join(HOME).join("requirements.txt");
    let program = venv::programs(&requirements, &target.join("schemathesis/venv"))?.join("schemathesis");
    let built = Command::new("cargo")
        .args(["build", "--locked", "--quiet", "--package=farcall-cli"])
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "farcall was not built");
    let upstream = Upstream::start()?;
    let server =
        Server::start(&target.join("debug/farcall"), &target.join("schemathesis/home"), &upstream.url(), TOKEN)?;
    let traffic = Traffic::start(server.port(), &upstream.url());
    let tried = try_it(root, &program, &server, &upstream, trial);
    drop(traffic);
    let ended = server.stop();
    tried?;
    ended
}

fn try_it(root: &Path, program: &Path, server: &Server, upstream: &Upstream, trial: &Trial) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(["--config-file", "schemathesis.toml", "run", &format!("{}/openapi.json", server.url())])
        .args(["--seed", &trial.seed.to_string()])
        .args(trial.examples.iter().flat_map(|count| ["--max-examples".to_owned(), count.to_string()]))
        .args(trial.operation.iter().flat_map(|id| ["--include-operation-id", id]))
        .env("FARCALL_TEST_UPSTREAM", upstream.url())
        .env("FARCALL_TEST_TOKEN", TOKEN)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root.join(HOME));
    let mut child = command.spawn().context("cannot run schemathesis")?;
    let status = within(&mut child, TIME_MAX)?;
    ensure!(status, "schemathesis found what stands above; the server's log is {}", server.log().display());
    Ok(())
}

/// Whether a program ends well in so long.
fn within(child: &mut Child, longest: Duration) -> Result<bool> {
    let until = Instant::now() + longest;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    bail!("schemathesis did not end within {longest:?}");
}

/// Where cargo builds.
fn target(root: &Path) -> Result<PathBuf> {
    let metadata = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot run cargo")?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata wrote no JSON")?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata named no target directory")?.into())
}
