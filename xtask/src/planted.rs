//! `cargo xtask sim --planted`: the simulator must find every bug that is planted on purpose.
//!
//! Each file in `crates/farcall-sim/planted` is a patch with one bug and a line that says what it is. All are applied in
//! turn to a copy of the sources below `target/`, never to the sources themselves. A bug that survives the seeds is a
//! hole in the simulator, and fails the command; so does a patch that does not fit the sources any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// Fewer bugs than this are no proof.
const BUGS_MIN: usize = 10;

/// Plants every bug, and shows each found within `seeds`.
pub(crate) fn run(root: &Path, seeds: u64) -> Result<()> {
    let patches = patches(root)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let copy = Copy { dir: target.join("planted"), seeds };
    copy.make(root)?;
    ensure!(copy.seeds_find()? == "survived", "the simulator finds something without any planted bug");
    let mut survivors = Vec::new();
    for patch in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let begun = Instant::now();
        copy.apply(patch, &[])?;
        let found = copy.seeds_find();
        copy.apply(patch, &["--reverse"])?;
        let found = found.with_context(|| format!("{name} cannot be built"))?;
        println!("{name:<44} {:.0} s  {}", begun.elapsed().as_secs_f64(), shortened(&found));
        if found == "survived" {
            survivors.push(name.into_owned());
        }
    }
    ensure!(survivors.is_empty(), "not found within {seeds} seeds: {}", survivors.join(", "));
    println!("{} planted bugs, all found within {seeds} seeds", patches.len());
    Ok(())
}

/// Every patch, in the order of the names.
fn patches(root: &Path) -> Result<Vec<PathBuf>> {
    let dir = root.join("crates/farcall-sim/planted");
    let mut patches: Vec<PathBuf> = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    ensure!(patches.len() >= BUGS_MIN, "{} planted bugs are too few", patches.len());
    Ok(patches)
}

/// A copy of the sources.
struct Copy {
    dir: PathBuf,
    seeds: u64,
}

impl Copy {
    fn make(&self, root: &Path) -> Result<()> {
        let sources = self.dir.join("sources");
        if sources.exists() {
            fs::remove_dir_all(&sources)?;
        }
        fs::create_dir_all(&sources)?;
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            let is_source = name != "target" && !name.as_encoded_bytes().starts_with(b".");
            if is_source {
                copy(&root.join(&name), &sources.join(&name))
                    .with_context(|| format!("cannot copy {}", name.display()))?;
            }
        }
        Ok(())
    }

    fn apply(&self, patch: &Path, extra: &[&str]) -> Result<()> {
        let output = Command::new("git")
            .args(["apply", "-p1", "-C1", "--recount"])
            .args(extra)
            .arg(patch)
            .current_dir(self.dir.join("sources"))
            // Else git takes the copy for a part of the repository around it.
            .env("GIT_CEILING_DIRECTORIES", &self.dir)
            .output()
            .context("cannot run git")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} does not fit the sources any more: {said}", patch.display());
        Ok(())
    }

    /// What the seeds say of the copy as it is.
    fn seeds_find(&self) -> Result<String> {
        let output = self.cargo()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn cargo(&self) -> Result<Output> {
        Command::new("cargo")
            .args(["run", "--quiet", "--locked", "--package", "farcall-sim", "--example", "seeds", "--"])
            .arg(self.seeds.to_string())
            .current_dir(self.dir.join("sources"))
            .env("CARGO_TARGET_DIR", self.dir.join("build"))
            .output()
            .context("cannot run cargo")
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn shortened(found: &str) -> String {
    found.chars().take(150).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_still_fits_the_sources() -> Result<()> {
        let root = crate::root();
        for patch in patches(&root)? {
            let output = Command::new("git")
                .args(["apply", "--check", "-p1", "-C1", "--recount"])
                .arg(&patch)
                .current_dir(&root)
                .output()?;
            assert!(output.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
