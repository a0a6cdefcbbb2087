//! Only `main.rs` ends the process: everything else returns, so that what it holds is closed in order.
//!
//! Tests may end helper processes of their own.

use super::tree::Tree;
use super::{Finding, in_each};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if source.file_name() == "main.rs" {
            return Vec::new();
        }
        let exits = source
            .names
            .iter()
            .filter(|name| !name.in_test && (name.holds(&["process", "exit"]) || name.holds(&["process", "abort"])));
        exits
            .map(|name| source.finding(name.line, format!("{} ends the process; only main.rs may", name.text())))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_outside_main_is_found() {
        let text = "use std::process;\nfn f() {\n    process::exit(1);\n}";
        let found = check(&Tree::of("crates/farcall-cli/src/commands/run.rs", text));
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3]);
        let imported = check(&Tree::of("crates/farcall-engine/src/run.rs", "use std::process::{Command, abort};"));
        assert_eq!(imported.len(), 1);
    }

    #[test]
    fn main_may_and_modules_of_that_name_are_free() {
        assert_eq!(check(&Tree::of("crates/farcall-cli/src/main.rs", "fn f() { std::process::exit(1); }")), []);
        assert_eq!(check(&Tree::of("crates/farcall-engine/src/a.rs", "use process::{Exit, ExitCode};")), []);
    }
}
