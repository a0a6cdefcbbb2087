//! `cargo xtask tidy`: the rules of the house that a tool can check, one file per rule.
//!
//! Every rule looks at the whole tree and returns all it finds; nothing stops at the first. The same function runs as
//! a test on this repository, so `cargo test` alone keeps the house in order.

mod architecture;
mod banned_crates;
mod clock;
mod core_names;
mod directions;
mod environment;
mod exits;
mod lengths;
mod module_docs;
mod module_names;
mod sleeps;
mod source;
mod tree;
mod unfinished;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use source::Source;
use tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// From the root of the workspace.
    path: PathBuf,
    /// Counted from 1.
    line: usize,
    message: String,
}

/// Every rule; each has a test that shows it failing.
const RULES: [fn(&Tree) -> Vec<Finding>; 12] = [
    architecture::check,
    banned_crates::check,
    clock::check,
    core_names::check,
    directions::check,
    environment::check,
    exits::check,
    lengths::check,
    module_docs::check,
    module_names::check,
    sleeps::check,
    unfinished::check,
];

/// Checks the tree at `root` and prints what is wrong.
pub(crate) fn run(root: &Path) -> Result<()> {
    let findings = findings(root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 thing is not tidy"),
        count => bail!("{count} things are not tidy"),
    }
}

/// All that breaks a rule in the tree at `root`, in order of place.
fn findings(root: &Path) -> Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    Ok(findings)
}

/// What a rule that looks at one file at a time finds in all of them.
fn in_each(tree: &Tree, rule: impl Fn(&Source) -> Vec<Finding>) -> Vec<Finding> {
    tree.sources.iter().flat_map(rule).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() -> Result<()> {
        let findings: Vec<String> = findings(&crate::root())?.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
        Ok(())
    }

    #[test]
    fn a_finding_names_its_place_as_editors_read_it() {
        let finding = Finding { path: "crates/a/src/b.rs".into(), line: 7, message: "too long".to_owned() };
        assert_eq!(finding.to_string(), "crates/a/src/b.rs:7: too long");
    }
}
