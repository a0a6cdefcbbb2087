//! `ARCHITECTURE.md` names every crate and stays short enough to be read in one sitting.
//!
//! Whether what it says is true remains for its readers to judge.

use std::path::Path;

use super::Finding;
use super::tree::Tree;

const LINES_MAX: usize = 300;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let finding = |line, message| Finding { path: Path::new("ARCHITECTURE.md").to_owned(), line, message };
    let missing = tree
        .packages
        .iter()
        .filter(|package| !names(&tree.architecture, &package.name))
        .map(|package| finding(1, format!("the crate {} is not on the map", package.name)));
    let lines = tree.architecture.lines().count();
    let long = (lines > LINES_MAX).then(|| finding(LINES_MAX + 1, format!("{lines} lines, at most {LINES_MAX}")));
    missing.chain(long).collect()
}

/// Whether a crate is named, and not only another one whose name begins with it.
fn names(text: &str, package: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').any(|word| word == package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(architecture: &str) -> Vec<String> {
        let tree = Tree { architecture: architecture.to_owned(), ..Tree::of_package("farcall", &[]) };
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_crate_that_is_not_on_the_map_is_found() {
        assert_eq!(found("`farcall/` is the library"), [""; 0]);
        assert_eq!(found("only farcall-core and farcalls"), ["ARCHITECTURE.md:1: the crate farcall is not on the map"]);
    }

    #[test]
    fn a_map_that_grew_too_long_is_found() {
        assert_eq!(found(&"farcall\n".repeat(300)), [""; 0]);
        assert_eq!(found(&"farcall\n".repeat(301)), ["ARCHITECTURE.md:301: 301 lines, at most 300"]);
    }
}
