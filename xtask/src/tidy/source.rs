//! One Rust file as the rules see it: its text, the names it uses, the lengths of its functions.
//!
//! Works on tokens, so comments and strings are no code, and code inside macros is code. It resolves nothing: a name
//! is what is written, with the groups of `use` taken apart. Rules that need more than that belong to clippy.

use std::path::PathBuf;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Finding;

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the root of the workspace.
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) names: Vec<Name>,
    pub(super) functions: Vec<Function>,
    /// Where it is no Rust at all.
    pub(super) broken: Option<Finding>,
}

/// A path that is mentioned, `std::time::Instant` for example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// In a test, or in a module of tests.
    pub(super) in_test: bool,
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    /// From `fn` to the closing brace.
    pub(super) lines: usize,
}

impl Source {
    pub(super) fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut source =
            Self { path: path.into(), text: text.into(), names: Vec::new(), functions: Vec::new(), broken: None };
        match source.text.parse::<TokenStream>() {
            Ok(tokens) => {
                let in_test = source.is_test_file();
                source.walk(tokens, &[], in_test);
            }
            Err(error) => source.broken = Some(source.finding(error.span().start().line.max(1), error.to_string())),
        }
        source
    }

    /// The crate's folder name: `farcall-core`, or `xtask`.
    pub(super) fn package(&self) -> &str {
        let mut parts = self.path.iter().filter_map(|part| part.to_str());
        match parts.next() {
            Some("crates") => parts.next().unwrap_or_default(),
            first => first.unwrap_or_default(),
        }
    }

    /// The name of the file itself, `clock.rs`.
    pub(super) fn file_name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// All of it is tests: integration tests, or a module of tests in a file of its own.
    pub(super) fn is_test_file(&self) -> bool {
        self.file_name() == "tests.rs" || self.path.iter().any(|part| part == "tests")
    }

    pub(super) fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    /// Collects from tokens that stand side by side, then from the groups within. Inside the braces of a `use`,
    /// `prefix` is what stands before them.
    fn walk(&mut self, tokens: TokenStream, prefix: &[String], in_test: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut item_is_test = false;
        let mut index = 0;
        while index < tokens.len() {
            match &tokens[index] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.get(index + 1) {
                        item_is_test |= marks_test(attribute);
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => item_is_test = false,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Ident(ident) if *ident == "fn" => self.function(&tokens[index..]),
                TokenTree::Ident(_) => {
                    index += self.name(&tokens[index..], prefix, in_test || item_is_test);
                    continue;
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), &[], in_test || item_is_test);
                    item_is_test &= group.delimiter() != Delimiter::Brace;
                }
            }
            index += 1;
        }
    }

    /// Reads one path, which begins with the first token; returns how many tokens it took.
    fn name(&mut self, tokens: &[TokenTree], prefix: &[String], in_test: bool) -> usize {
        let line = tokens[0].span().start().line;
        let mut segments = prefix.to_vec();
        segments.push(tokens[0].to_string());
        let mut taken = 1;
        while is_path_separator(&tokens[taken..]) {
            match tokens.get(taken + 2) {
                Some(TokenTree::Ident(segment)) => segments.push(segment.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.walk(group.stream(), &segments, in_test);
                    return taken + 3;
                }
                _ => break,
            }
            taken += 3;
        }
        self.names.push(Name { segments, line, in_test });
        taken
    }

    /// Measures the function that begins with the first token, if it has a name and a body.
    fn function(&mut self, tokens: &[TokenTree]) {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else { return };
        let body = tokens.iter().find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some(group)),
            TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
            _ => None,
        });
        let Some(Some(body)) = body else { return };
        let line = tokens[0].span().start().line;
        let lines = body.span_close().end().line + 1 - line;
        self.functions.push(Function { name: name.to_string(), line, lines });
    }
}

impl Name {
    /// Whether these segments stand in it, side by side.
    pub(super) fn holds(&self, segments: &[&str]) -> bool {
        self.segments.windows(segments.len()).any(|window| window == segments)
    }

    /// Whether it begins with these segments.
    pub(super) fn begins(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len() && self.segments.iter().zip(segments).all(|(own, other)| own == other)
    }

    pub(super) fn text(&self) -> String {
        self.segments.join("::")
    }
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}

/// `#[test]`, `#[tokio::test(…)]`, or a `cfg` that asks for tests.
fn marks_test(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    let path = text.split('(').next().unwrap_or_default();
    match path {
        "cfg" => text.contains("test") && !text.contains("not(test"),
        _ => path == "test" || path.ends_with("::test"),
    }
}

/// A relative path that stands for a file of that crate, for the tests of rules.
#[cfg(test)]
pub(super) fn sample(path: &str, text: &str) -> Source {
    let source = Source::new(path, text);
    assert_eq!(source.broken, None);
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        sample("crates/a/src/b.rs", text).names.iter().map(Name::text).collect()
    }

    #[test]
    fn groups_of_use_are_taken_apart() {
        let found = names("use std::{fs, time::{Duration, Instant as I, self}, net::*};");
        for expected in ["std::fs", "std::time::Duration", "std::time::Instant", "std::time::self", "std::net"] {
            assert!(found.contains(&expected.to_owned()), "{expected} in {found:?}");
        }
    }

    #[test]
    fn code_in_macros_counts_and_comments_and_strings_do_not() {
        let found = names("// a::b\n/* c::d */ /// e::f\nfn g() { h!(\"i::j\", k::l(), x = m::n::<o::p>()); }");
        for (name, expected) in [
            ("a::b", false),
            ("c::d", false),
            ("e::f", false),
            ("i::j", false),
            ("k::l", true),
            ("m::n", true),
            ("o::p", true),
        ] {
            assert_eq!(found.contains(&name.to_owned()), expected, "{name} in {found:?}");
        }
    }

    #[test]
    fn tests_are_told_from_the_rest() {
        let text = "
            fn a() { one::x(); }
            #[tokio::test(start_paused = true)] async fn b() { two::x(); }
            #[cfg(not(test))] mod c { fn d() { three::x(); } }
            #[cfg(test)] mod e { use four::x; fn f() { five::x(); } }
            #[cfg(test)] use six::x;
            fn g() { seven::x(); }";
        let source = sample("crates/a/src/b.rs", text);
        let in_test = |name: &&Name| name.in_test && name.segments.last().is_some_and(|last| last == "x");
        let in_test: Vec<&str> = source.names.iter().filter(in_test).map(|name| &*name.segments[0]).collect();
        assert_eq!(in_test, ["two", "four", "five", "six"]);
        assert!(sample("crates/a/tests/it/x.rs", "fn a() { one::x(); }").names.iter().all(|name| name.in_test));
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "trait T { fn none(&self); }\nimpl T for X {\n    fn one(&self) {}\n    fn three(\n        x: fn(u8) -> u8,\n    ) {}\n}";
        let functions = sample("crates/a/src/b.rs", text).functions;
        let lengths: Vec<_> =
            functions.iter().map(|function| (&*function.name, function.line, function.lines)).collect();
        assert_eq!(lengths, [("one", 3, 1), ("three", 4, 3)]);
    }

    #[test]
    fn a_file_that_is_no_rust_is_itself_a_finding() {
        let source = Source::new("crates/a/src/b.rs", "fn a() {\n    (\n}\n");
        assert!(source.broken.is_some());
    }

    #[test]
    fn a_file_knows_its_crate() {
        for (path, expected) in
            [("crates/farcall-core/src/a.rs", "farcall-core"), ("xtask/src/main.rs", "xtask"), ("build.rs", "build.rs")]
        {
            assert_eq!(Source::new(path, "").package(), expected);
        }
    }
}
