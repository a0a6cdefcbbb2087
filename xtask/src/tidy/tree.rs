//! All that the rules look at, read once: Rust files, the crates with what they depend on, and some documents.
//!
//! The one part of tidy that touches files and asks cargo; the rules are pure functions of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::source::Source;

/// The repository.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) sources: Vec<Source>,
    pub(super) packages: Vec<Package>,
    /// Empty when there is none.
    pub(super) architecture: String,
    /// The names of all crates that are built, tests included.
    pub(super) built: Vec<String>,
    /// Where a crate is pinned; it also holds crates that nothing builds.
    pub(super) lock: String,
}

/// A crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// From the root of the workspace.
    pub(super) manifest: PathBuf,
    /// What its library or program is made of; tests and tools may use more.
    pub(super) dependencies: Vec<String>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        for folder in ["bench", "crates", "xtask"] {
            collect_rust_files(&root.join(folder), &mut paths)?;
        }
        paths.sort();
        let sources = paths.iter().map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Source::new(path.strip_prefix(root)?, text))
        });
        Ok(Self {
            sources: sources.collect::<Result<_>>()?,
            packages: packages(root)?,
            architecture: fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default(),
            built: built(root)?,
            lock: fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?,
        })
    }
}

fn collect_rust_files(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect_rust_files(&path, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let output = cargo(root, &["metadata", "--no-deps", "--offline", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&output).context("cargo metadata wrote no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata named no packages")?;
    packages.iter().map(|package| read_package(root, package).context("cargo metadata has another form")).collect()
}

fn read_package(root: &Path, package: &Value) -> Option<Package> {
    let dependencies = package["dependencies"].as_array()?.iter().filter(|dependency| dependency["kind"] != "dev");
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        manifest: Path::new(package["manifest_path"].as_str()?).strip_prefix(root).ok()?.to_owned(),
        dependencies: dependencies
            .map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
    })
}

fn built(root: &Path) -> Result<Vec<String>> {
    let output = cargo(root, &["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}"])?;
    let mut names: Vec<String> = output.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("cargo").args(args).current_dir(root).output().context("cannot run cargo")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo {} failed: {}", args.join(" "), stderr.trim());
    String::from_utf8(output.stdout).context("cargo wrote no UTF-8")
}

#[cfg(test)]
impl Tree {
    /// A tree of one file.
    pub(super) fn of(path: &str, text: &str) -> Self {
        Self { sources: vec![super::source::sample(path, text)], ..Self::default() }
    }

    /// A tree of one crate and nothing in it.
    pub(super) fn of_package(name: &str, dependencies: &[&str]) -> Self {
        let package = Package {
            name: name.to_owned(),
            manifest: Path::new("crates").join(name).join("Cargo.toml"),
            dependencies: dependencies.iter().map(|&dependency| dependency.to_owned()).collect(),
        };
        Self { packages: vec![package], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_read_whole() -> Result<()> {
        let tree = Tree::read(&crate::root())?;
        let xtask = tree.packages.iter().find(|package| package.name == "xtask").context("xtask is a crate")?;
        assert_eq!(xtask.manifest, Path::new("xtask/Cargo.toml"));
        assert!(xtask.dependencies.contains(&"proc-macro2".to_owned()));
        assert!(!xtask.dependencies.contains(&"tempfile".to_owned()), "tests may use more");
        let own = Path::new("xtask/src/tidy/tree.rs");
        assert!(tree.sources.iter().any(|source| source.path == own && source.text.contains("read whole")));
        assert!(tree.sources.iter().any(|source| source.path.starts_with("crates/farcall-core/src")));
        assert!(tree.built.contains(&"clap".to_owned()) && tree.lock.contains("name = \"clap\""));
        Ok(())
    }
}
