//! Python programs with all their packages in fixed versions, installed below the target directory and kept there.
//!
//! Nothing is installed on the machine itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The folder of the programs of these requirements (a file of pip's) in a virtual environment at `venv`. It is made
/// again only when they have changed.
pub(crate) fn programs(requirements: &Path, venv: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    let (programs, stamp) = (venv.join("bin"), venv.join("requirements.txt"));
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(programs);
    }
    println!("installing what {} names into {}", requirements.display(), venv.display());
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is text");
    run(Path::new("python3"), &["-m", "venv", "--clear", &text(venv)?]).context("Debian's package is python3-venv")?;
    let install = ["install", "--quiet", "--disable-pip-version-check", "--requirement", &text(requirements)?];
    run(&programs.join("pip"), &install)?;
    fs::write(stamp, wanted)?;
    Ok(programs)
}

fn run(name: &Path, args: &[&str]) -> Result<()> {
    let status = Command::new(name).args(args).status().with_context(|| format!("cannot run {}", name.display()))?;
    ensure!(status.success(), "{} {} ended with {status}", name.display(), args.join(" "));
    Ok(())
}
