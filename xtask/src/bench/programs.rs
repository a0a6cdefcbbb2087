//! The programs that are measured: built as users build them, run one at a time, their figures read from stdout.
//!
//! The release profile, as `cargo build --release` has it: nothing is tuned for the benchmark alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const PACKAGES: [&str; 5] = ["farcall-cli", "bench-client", "bench-engine", "bench-floor", "bench-upstream"];

/// A program on one core alone; its process is the one that is started.
pub(super) fn on_core(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// Where the built programs are.
#[derive(Debug)]
pub(super) struct Programs {
    target: PathBuf,
}

impl Programs {
    /// Builds all of them with the release profile.
    pub(super) fn build(root: &Path) -> Result<Self> {
        let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
        let status = Command::new("cargo")
            .args(["build", "--release", "--locked", "--quiet"])
            .args(packages)
            .current_dir(root)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the programs were not built");
        let metadata = Command::new("cargo")
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(root)
            .output()
            .context("cannot run cargo")?;
        let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata wrote no JSON")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata named no target directory")?;
        Ok(Self { target: target.into() })
    }

    /// A place for the rounds' directories, on the file system that everything was built on.
    pub(super) fn scratch(&self) -> PathBuf {
        self.target.join("bench-rounds")
    }

    pub(super) fn command(&self, name: &str) -> Command {
        Command::new(self.target.join("release").join(name))
    }

    /// The same, on this core alone.
    pub(super) fn pinned(&self, core: u32, name: &str) -> Command {
        on_core(core, &self.target.join("release").join(name))
    }

    /// Where things are kept that are installed for measuring.
    pub(super) fn installed(&self) -> PathBuf {
        self.target.join("bench-peers")
    }

    /// Runs a program to its end; its stdout is the figures.
    pub(super) fn figures(&self, name: &str, args: &[&str]) -> Result<Value> {
        let output = self
            .command(name)
            .args(args)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {name}"))?;
        ensure!(output.status.success(), "{name} {} ended with {}", args.join(" "), output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("{name} wrote no figures"))
    }
}
