//! Only `clock.rs` reads time; everything else is handed it, so that it can be tested on a virtual clock.
//!
//! Tests and the tools of this workspace may look at a clock; the simulator may not need to.

use super::tree::Tree;
use super::{Finding, in_each};

/// The last two segments of a path that reads a clock.
const READS: [[&str; 2]; 5] =
    [["Instant", "now"], ["SystemTime", "now"], ["Timestamp", "now"], ["Zoned", "now"], ["Uuid", "now_v7"]];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if source.file_name() == "clock.rs" || matches!(source.package(), "xtask" | "farcall-sim") {
            return Vec::new();
        }
        let reads = source.names.iter().filter(|name| {
            !name.in_test && (READS.iter().any(|read| name.holds(read)) || name.holds(&["clock_gettime"]))
        });
        reads
            .map(|name| source.finding(name.line, format!("{} reads a clock; only clock.rs may", name.text())))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(path, text)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_second_reader_of_the_clock_is_found() {
        let text = "use rustix::time::clock_gettime; fn f() { g!(std::time::Instant::now()); jiff::Zoned::now(); }";
        assert_eq!(
            found("crates/farcall-engine/src/run.rs", text),
            [
                "rustix::time::clock_gettime reads a clock; only clock.rs may",
                "std::time::Instant::now reads a clock; only clock.rs may",
                "jiff::Zoned::now reads a clock; only clock.rs may",
            ]
        );
    }

    #[test]
    fn the_clock_itself_tests_and_tools_may_read_it() {
        let text = "fn f() { Instant::now(); }";
        assert_eq!(found("crates/farcall-engine/src/clock.rs", text), [""; 0]);
        assert_eq!(found("crates/farcall-cli/tests/it/a.rs", text), [""; 0]);
        assert_eq!(found("xtask/src/test.rs", text), [""; 0]);
        assert_eq!(found("crates/farcall-engine/src/a.rs", "#[test] fn f() { Instant::now(); }"), [""; 0]);
        assert_eq!(found("crates/farcall-engine/src/a.rs", "fn f() { clock::now(); }"), [""; 0]);
    }
}
