//! No module named after nothing: what is in `util` could be anything, so everything ends up there.
//!
//! Looks at files, folders and modules within files.

use super::source::Source;
use super::tree::Tree;
use super::{Finding, in_each};

const BANNED: [&str; 8] = ["common", "util", "utils", "types", "helpers", "helper", "misc", "manager"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        let file = module_of(source).filter(|name| BANNED.contains(name));
        let file = file.map(|name| source.finding(1, format!("a module named {name} says nothing of what it holds")));
        file.into_iter().chain(inline(source)).collect()
    })
}

/// The module that a file or a folder makes.
fn module_of(source: &Source) -> Option<&str> {
    let name = source.path.file_stem()?.to_str()?;
    if name == "mod" { source.path.parent()?.file_name()?.to_str() } else { Some(name) }
}

/// Modules within a file.
fn inline(source: &Source) -> impl Iterator<Item = Finding> {
    source.names.windows(2).filter_map(|pair| {
        let (keyword, name) = (pair[0].text(), pair[1].text());
        (keyword == "mod" && BANNED.contains(&&*name))
            .then(|| source.finding(pair[1].line, format!("a module named {name} says nothing of what it holds")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        assert_eq!(found("crates/a/src/util.rs", ""), [1]);
        assert_eq!(found("crates/a/src/helpers/mod.rs", ""), [1]);
        assert_eq!(found("crates/a/tests/common/mod.rs", ""), [1]);
        assert_eq!(found("crates/a/src/b.rs", "\npub(crate) mod types {\n}"), [2]);
    }

    #[test]
    fn names_that_say_something_are_free() {
        assert_eq!(found("crates/a/src/limit/mod.rs", "mod window;\nuse tokio_util::sync;"), [0; 0]);
        assert_eq!(found("crates/a/src/utility_bill.rs", "fn common() {}"), [0; 0]);
    }
}
