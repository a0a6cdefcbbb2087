//! No file over 500 lines, no function over 70: what is longer holds two ideas.
//!
//! These are the limits; the aims, 400 and 25, are left to the author.

use super::tree::Tree;
use super::{Finding, in_each};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        let lines = source.text.lines().count();
        let file = (lines > FILE_LINES_MAX).then(|| {
            source.finding(FILE_LINES_MAX + 1, format!("the file has {lines} lines, at most {FILE_LINES_MAX}"))
        });
        let functions =
            source.functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX).map(|function| {
                let message =
                    format!("fn {} has {} lines, at most {FUNCTION_LINES_MAX}", function.name, function.lines);
                source.finding(function.line, message)
            });
        file.into_iter().chain(functions).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        check(&Tree::of("crates/farcall-engine/src/a.rs", text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(found(&"//\n".repeat(500)), [""; 0]);
        assert_eq!(
            found(&"//\n".repeat(501)),
            ["crates/farcall-engine/src/a.rs:501: the file has 501 lines, at most 500"]
        );
    }

    #[test]
    fn a_long_function_is_found_where_it_begins() {
        let function =
            |lines: usize| format!("\nimpl A {{\n    fn long() {{\n{}    }}\n}}\n", "//\n".repeat(lines - 2));
        assert_eq!(found(&function(70)), [""; 0]);
        assert_eq!(found(&function(71)), ["crates/farcall-engine/src/a.rs:3: fn long has 71 lines, at most 70"]);
    }
}
