//! Every file opens by saying what it owns and what it does not do: 2 to 12 lines of `//!`, from line 1 on.
//!
//! For a file of tests one line is enough: their names say the rest. Also where a file that is no Rust is reported.

use super::tree::Tree;
use super::{Finding, in_each};

const LINES_MIN: usize = 2;
const LINES_MAX: usize = 12;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        let lines = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let message = match lines {
            0 => Some("the file does not open with `//!`: what it owns, and what it does not do".to_owned()),
            1 if source.is_test_file() => None,
            LINES_MIN..=LINES_MAX => None,
            _ => Some(format!("{lines} lines of `//!`, {LINES_MIN} to {LINES_MAX} are wanted")),
        };
        source.broken.iter().cloned().chain(message.map(|message| source.finding(1, message))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check(&Tree::of("crates/farcall-engine/src/a.rs", text)).len()
    }

    #[test]
    fn a_file_that_does_not_say_what_it_owns_is_found() {
        assert_eq!(found("use a;\n//! Late.\n//! Later.\n"), 1);
        assert_eq!(found(""), 1);
        assert_eq!(found("//! One line says little.\n\nuse a;\n"), 1);
        assert_eq!(found(&"//! Too much.\n".repeat(13)), 1);
    }

    #[test]
    fn a_few_lines_are_right() {
        assert_eq!(found("//! What it owns.\n//! And what not.\n\nuse a;\n"), 0);
        assert_eq!(found(&"//! Much.\n".repeat(12)), 0);
    }

    #[test]
    fn tests_may_say_less_but_not_nothing() {
        let count = |text| check(&Tree::of("crates/farcall-engine/src/a/tests.rs", text)).len();
        assert_eq!((count("//! One line.\n"), count("use a;\n")), (0, 1));
    }

    #[test]
    fn a_file_that_does_not_parse_is_found() {
        let broken = super::super::source::Source::new("crates/a/src/b.rs", "//! One.\n//! Two.\nfn f() { ( }\n");
        assert_eq!(check(&Tree { sources: vec![broken], ..Tree::default() }).len(), 1);
    }
}
