//! The core names nothing that waits, reads, writes or knows the time, its own tests included.
//!
//! What it may depend on is a matter of `directions`; this is about the standard library, which needs no entry in a
//! manifest. Its `clippy.toml` says the same of types and methods however they are reached.

use super::tree::Tree;
use super::{Finding, in_each};

const FORBIDDEN: [&[&str]; 9] = [
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "os"],
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if source.package() != "farcall-core" {
            return Vec::new();
        }
        let forbidden = source.names.iter().filter(|name| FORBIDDEN.iter().any(|path| name.begins(path)));
        forbidden.map(|name| source.finding(name.line, format!("the core must not name {}", name.text()))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(path, text)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_core_that_reaches_outside_is_found() {
        let text = "use std::{fs::File, time::{Duration, Instant}};\n#[test] fn f() { std::thread::sleep(x); }";
        assert_eq!(
            found("crates/farcall-core/src/a.rs", text),
            [
                "the core must not name std::fs::File",
                "the core must not name std::time::Instant",
                "the core must not name std::thread::sleep",
            ]
        );
    }

    #[test]
    fn durations_its_own_instant_and_other_crates_are_free() {
        let text = "use std::time::Duration; use crate::time::Instant; use std::collections::BTreeMap;";
        assert_eq!(found("crates/farcall-core/src/a.rs", text), [""; 0]);
        assert_eq!(found("crates/farcall-engine/src/a.rs", "use std::fs;"), [""; 0]);
    }
}
