//! No unit test sleeps: a test that waits for real time is slow, or flaky, or both.
//!
//! Integration tests may poll the real program. Under tokio's paused clock a sleep takes no time, so a file that uses
//! `start_paused` may sleep through tokio.

use super::source::{Name, Source};
use super::tree::Tree;
use super::{Finding, in_each};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if source.path.iter().any(|part| part == "tests") {
            return Vec::new();
        }
        let sleeps = source.names.iter().filter(|name| name.in_test && sleeps(source, name));
        sleeps
            .map(|name| source.finding(name.line, format!("{} in a unit test; hand the time in", name.text())))
            .collect()
    })
}

fn sleeps(source: &Source, name: &Name) -> bool {
    let real = name.holds(&["thread", "sleep"]);
    let virtual_time = ["sleep", "sleep_until"].iter().any(|sleep| name.holds(&["time", sleep]));
    real || (virtual_time && !source.text.contains("start_paused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(path, text)).len()
    }

    #[test]
    fn a_test_that_sleeps_is_found() {
        let text = "#[test] fn f() { std::thread::sleep(d); }\n#[cfg(test)] mod t { use tokio::time::{self, sleep}; }";
        assert_eq!(found("crates/farcall-engine/src/a.rs", text), 2);
        let real = "#[tokio::test(start_paused = true)] async fn f() { std::thread::sleep(d); }";
        assert_eq!(found("crates/farcall-engine/src/a.rs", real), 1);
    }

    #[test]
    fn virtual_time_integration_tests_and_the_program_itself_are_free() {
        let paused = "#[tokio::test(start_paused = true)] async fn f() { tokio::time::sleep(d).await; }";
        assert_eq!(found("crates/farcall-engine/src/a.rs", paused), 0);
        assert_eq!(found("crates/farcall-engine/src/a.rs", "fn f() { tokio::time::sleep(d); }"), 0);
        assert_eq!(found("crates/farcall-cli/tests/it/a.rs", "#[test] fn f() { std::thread::sleep(d); }"), 0);
    }
}
