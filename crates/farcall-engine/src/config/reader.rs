//! Typed readers for values of the tree. Each gives the value, or reports what is wrong where it stands.
//!
//! A mapping is read by a table of its keys ([`Reader::keys`]), so that the names that are known, the hint for one that
//! is not, and what is read are the same list. Reading goes on after a mistake, to report as many as possible at once.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use farcall_core::share::Share;

use super::diagnostic::{Diagnostic, Diagnostics, Span};
use super::tree::{Entry, Key, Node, Value};
use crate::nearest::nearest;
use crate::quantity::duration::{self, DurationError};
use crate::quantity::{share, size};

/// A key that a mapping may have, and how its value is read into a `T`.
pub(super) type KeyReader<T> = (&'static str, fn(&mut Reader<'_>, &Entry, &mut T));

/// Whether a length of time may be nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

/// Reads values and collects mistakes.
pub(super) struct Reader<'a> {
    /// The working directory: what relative paths are relative to.
    pub dir: &'a Path,
    pub diagnostics: Diagnostics,
    /// Variables that references have named so far.
    pub secret_variables: BTreeSet<String>,
}

impl Reader<'_> {
    pub(super) fn error(&mut self, place: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.diagnostics.error(place, message)
    }

    /// Reads a mapping by its table. An empty value is an empty mapping.
    pub(super) fn keys<T>(&mut self, node: &Node, table: &[KeyReader<T>], into: &mut T) {
        for entry in self.entries(node).unwrap_or_default() {
            match table.iter().find(|(name, _)| *name == entry.key.name) {
                Some((_, read)) => read(self, entry, into),
                None => self.unknown_key(entry, table.iter().map(|(name, _)| *name)),
            }
        }
    }

    /// The entries of a mapping, each key once.
    pub(super) fn entries<'n>(&mut self, node: &'n Node) -> Option<Vec<&'n Entry>> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => return Some(Vec::new()),
            _ => {
                self.mismatch(node, "a mapping of keys to values");
                return None;
            }
        };
        let mut first_places: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        let mut distinct = Vec::with_capacity(entries.len());
        for entry in entries {
            match first_places.get(entry.key.name.as_str()) {
                Some(first) => self.duplicate(&entry.key, *first),
                None => {
                    first_places.insert(&entry.key.name, entry.key.span);
                    distinct.push(entry);
                }
            }
        }
        Some(distinct)
    }

    pub(super) fn duplicate(&mut self, key: &Key, first: Span) {
        self.error(key.span, format!("duplicate key `{}`", key.name))
            .label("given again")
            .related(first, "first given here");
    }

    fn unknown_key<'k>(&mut self, entry: &Entry, known: impl Iterator<Item = &'k str> + Clone) {
        let hint = misplaced(entry, known.clone()).unwrap_or_else(|| match nearest(&entry.key.name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
        });
        self.error(entry.key.span, format!("unknown key `{}`", entry.key.name)).hint(hint);
    }

    /// A key that a later version brings. Its empty value is fine: it asks for nothing.
    pub(super) fn later<T>(&mut self, entry: &Entry, _: &mut T) {
        let asks_for_nothing = match &entry.node.value {
            Value::Null | Value::Bool(false) => true,
            Value::Text(text) => text == "off" || text == "none",
            Value::Map(entries) => entries.is_empty(),
            Value::List(_) | Value::Bool(true) | Value::Integer(_) | Value::Float(_) => false,
        };
        if !asks_for_nothing {
            self.not_available_yet(entry.key.span, &format!("`{}`", entry.key.name));
        }
    }

    pub(super) fn not_available_yet(&mut self, place: Span, what: &str) -> &mut Diagnostic {
        self.error(place, format!("{what} is not available yet"))
            .hint("a later version brings it; leave it out until then")
    }

    pub(super) fn mismatch(&mut self, node: &Node, expected: &str) -> &mut Diagnostic {
        let found = match &node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        self.error(node.span, format!("expected {expected}, found {found}"))
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => return Some(*value),
            // YAML 1.1's words; the contract itself says `off`.
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" => return Some(true),
                "no" | "off" => return Some(false),
                _ => {}
            },
            _ => {}
        }
        self.mismatch(node, "true or false");
        None
    }

    /// A whole number within a range.
    pub(super) fn integer(&mut self, node: &Node, range: &RangeInclusive<u64>) -> Option<u64> {
        let value = match &node.value {
            Value::Integer(value) => *value,
            Value::Text(text) if text.parse::<i128>().is_ok() => {
                self.mismatch(node, "a whole number").hint("leave the quotes out");
                return None;
            }
            _ => {
                self.mismatch(node, "a whole number");
                return None;
            }
        };
        let within = u64::try_from(value).ok().filter(|value| range.contains(value));
        if within.is_none() {
            let message = match value {
                0 => format!("0 is too small: at least {}", range.start()),
                value if value < i128::from(*range.start()) => {
                    format!("{value} is too small: at least {}", range.start())
                }
                value => format!("{value} is too large: at most {}", range.end()),
            };
            self.error(node.span, message);
        }
        within
    }

    /// A whole number from 0.
    pub(super) fn whole(&mut self, node: &Node) -> Option<u32> {
        let value = self.integer(node, &(0..=u64::from(u32::MAX)))?;
        u32::try_from(value).ok()
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, node: &Node) -> Option<NonZeroU32> {
        let value = self.integer(node, &(1..=u64::from(u32::MAX)))?;
        u32::try_from(value).ok().and_then(NonZeroU32::new)
    }

    /// A finite number.
    pub(super) fn decimal(&mut self, node: &Node) -> Option<f64> {
        match node.value {
            Value::Float(value) if value.is_finite() => Some(value),
            // Numbers so large that precision matters are refused by their readers.
            Value::Integer(value) => i32::try_from(value).ok().map(f64::from).or_else(|| {
                self.error(node.span, format!("{value} is out of range"));
                None
            }),
            _ => {
                self.mismatch(node, "a number");
                None
            }
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        self.mismatch(node, "a text");
        None
    }

    /// A text that says something and holds no reference: those are resolved in headers, tokens and signing secrets only.
    pub(super) fn name<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.error(node.span, "this is empty");
            return None;
        }
        if ["${env:", "${file:"].iter().any(|start| text.contains(start)) {
            self.error(node.span, "no reference is resolved here")
                .hint("`${env:NAME}` and `${file:PATH}` work in `headers`, `server.tokens` and a callback's `secret`");
            return None;
        }
        Some(text)
    }

    pub(super) fn items<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        if let Value::List(items) = &node.value {
            return Some(items);
        }
        let written = self.diagnostics.written(node.span).to_owned();
        let scalar = !matches!(node.value, Value::Null | Value::Map(_));
        let diagnostic = self.mismatch(node, "a list");
        if scalar {
            diagnostic.hint(format!("write it in brackets: [{written}]"));
        }
        None
    }

    /// A length of time: a number of seconds, or a text with units.
    pub(super) fn duration(&mut self, node: &Node, zero: Zero) -> Option<Duration> {
        let read = match &node.value {
            Value::Integer(seconds) => duration::from_whole_seconds(*seconds),
            Value::Float(seconds) => duration::from_seconds(*seconds),
            Value::Text(text) => duration::from_text(text),
            _ => {
                self.mismatch(node, "a length of time").hint(DURATION_HINT);
                return None;
            }
        };
        match read {
            Ok(Duration::ZERO) if zero == Zero::Refused => {
                self.error(node.span, "a length of 0 would end it before it begins");
                None
            }
            Ok(duration) => Some(duration),
            Err(mistake) => {
                let written = self.diagnostics.written(node.span).to_owned();
                let diagnostic = self.error(node.span, format!("{written} is {mistake}"));
                match mistake {
                    DurationError::Malformed => diagnostic.hint(DURATION_HINT),
                    DurationError::NoUnit => {
                        diagnostic.hint("write seconds as a number, or every number with its unit: `1h30m`")
                    }
                    DurationError::Negative | DurationError::NotFinite | DurationError::TooLong => diagnostic,
                };
                None
            }
        }
    }

    /// A share in percent.
    pub(super) fn share(&mut self, node: &Node) -> Option<Share> {
        const HINT: &str = "write a share with its sign, such as `50%`";
        let Value::Text(text) = &node.value else {
            self.mismatch(node, "a share").hint(HINT);
            return None;
        };
        let share = share::from_text(text);
        if share.is_none() {
            self.error(node.span, format!("`{text}` is no share from 0% to 100%")).hint(HINT);
        }
        share
    }

    /// A number of bytes within a range.
    pub(super) fn size(&mut self, node: &Node, range: &RangeInclusive<u64>) -> Option<u64> {
        let bytes = match &node.value {
            Value::Text(text) => size::from_text(text),
            Value::Integer(_) => return self.integer(node, range),
            _ => None,
        };
        match bytes {
            Some(bytes) if range.contains(&bytes) => return Some(bytes),
            Some(bytes) if bytes < *range.start() => {
                self.error(node.span, format!("too small: at least {} bytes", range.start()));
            }
            Some(_) => {
                self.error(node.span, format!("too large: at most {} bytes", range.end()));
            }
            None => {
                self.mismatch(node, "a number of bytes")
                    .hint("write a number, or one with a unit such as `64KiB` or `16MiB`");
            }
        }
        None
    }
}

/// A key that is known, but at another place.
fn misplaced<'k>(entry: &Entry, mut known: impl Iterator<Item = &'k str>) -> Option<String> {
    let is_upstream =
        matches!(&entry.node.value, Value::Map(inner) if inner.iter().any(|entry| entry.key.name == "base_url"));
    (is_upstream && known.any(|name| name == "upstreams")).then(|| "an upstream stands under `upstreams`".to_owned())
}

const DURATION_HINT: &str = "write seconds as a number, or a text such as `300ms`, `1m30s`, `1h` or `2d`";
