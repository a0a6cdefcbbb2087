//! No marks of unfinished work: what is merged is finished, and what is missing is refused with a message.
//!
//! Looks at whole words of the text, comments included, and at tests that are ignored without a reason. This file
//! spells all of them out and is left out itself.

use std::path::Path;

use super::source::Source;
use super::tree::Tree;
use super::{Finding, in_each};

const WORDS: [&str; 6] = ["TODO", "FIXME", "XXX", "HACK", "todo", "unimplemented"];
const PHRASES: [&str; 4] = ["not implemented", "not yet implemented", "#[ignore]", "//! placeholder"];
const SELF: &str = "xtask/src/tidy/unfinished.rs";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    in_each(tree, |source| {
        if source.path == Path::new(SELF) {
            return Vec::new();
        }
        let lines = source.text.lines().enumerate();
        lines.filter_map(|(index, line)| mark(line).map(|mark| finding(source, index + 1, mark))).collect()
    })
}

fn finding(source: &Source, line: usize, mark: &str) -> Finding {
    source.finding(line, format!("`{mark}` marks unfinished work"))
}

fn mark(line: &str) -> Option<&'static str> {
    let is_word = |word: &&&str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == **word);
    WORDS.iter().find(is_word).or_else(|| PHRASES.iter().find(|phrase| line.contains(**phrase))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        check(&Tree::of("crates/farcall-engine/src/a.rs", text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn marks_of_unfinished_work_are_found() {
        let text = "//! placeholder\nfn a() {\n    todo!() // TODO\n}\n// FIXME: later\n#[ignore]\nfn b() { unimplemented!() }\n\
                    // HACK\n// XXX\nconst A: &str = \"not implemented\";\n";
        assert_eq!(found(text), [1, 3, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn other_words_are_free() {
        assert_eq!(found("// a method: ignore it, hackles, TODOS, mastodon\nfn todos() {}\n"), [0; 0]);
        assert_eq!(found("#[ignore = \"started by the test above, in a process of its own\"]\nfn a() {}\n"), [0; 0]);
    }
}
