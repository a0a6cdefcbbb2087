//! Only `settings.rs` and `secret.rs` read the environment: what a program does is seen from its arguments.
//!
//! Tests and the tools of this workspace may.

use super::tree::Tree;
use super::{Finding, in_each};

const READS: [&str; 8] = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var", "home_dir", "temp_dir"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if matches!(source.file_name(), "settings.rs" | "secret.rs") || source.package() == "xtask" {
            return Vec::new();
        }
        let reads =
            source.names.iter().filter(|name| !name.in_test && READS.iter().any(|read| name.holds(&["env", read])));
        reads
            .map(|name| {
                let message = format!("{} reads the environment; only settings.rs and secret.rs may", name.text());
                source.finding(name.line, message)
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(path, text)).len()
    }

    #[test]
    fn another_reader_of_the_environment_is_found() {
        assert_eq!(found("crates/farcall-cli/src/main.rs", "fn f() { std::env::var(\"HOME\"); env::vars_os(); }"), 2);
        assert_eq!(found("crates/farcall-engine/src/a.rs", "use std::env::{current_exe, var_os};"), 1);
    }

    #[test]
    fn the_two_that_may_tests_and_arguments_are_free() {
        let text = "fn f() { std::env::var(\"HOME\"); }";
        assert_eq!(found("crates/farcall-cli/src/settings.rs", text), 0);
        assert_eq!(found("crates/farcall-engine/src/secret.rs", text), 0);
        assert_eq!(found("crates/farcall-cli/tests/it/a.rs", text), 0);
        assert_eq!(found("crates/farcall-cli/src/main.rs", "fn f() { std::env::args_os(); env!(\"X\"); }"), 0);
    }
}
