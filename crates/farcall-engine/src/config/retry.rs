//! Retries: `retry` (a number or a mapping), `wait` and `on_unknown`, over the defaults, to the resolved policy.
//!
//! A layer keeps what one mapping gave. Of two layers the upper one's keys win (`retry_override`); a delay of another
//! form (constant, geometric, factor) replaces the lower one's delay as a whole. Within one layer two forms contradict
//! each other, and `wait` and `on_unknown` may stand beside `retry` or in it, not both.

use std::time::Duration;

use farcall_core::retry::{Jitter, MethodSet, OnUnknown, RetryPolicy};

use super::diagnostic::Span;
use super::reader::{KeyReader, Reader, Zero};
use super::statuses;
use super::tree::{Entry, Node, Value};
use crate::retry_override::{DelayOverride, RetryOverride};

/// What one mapping says about retries.
#[derive(Debug, Clone, Default)]
pub(super) struct RetryLayer {
    /// All but the delay, which is here once layers were laid over each other.
    keys: RetryOverride,
    delay: Delay,
    /// Where `on_unknown` was given.
    on_unknown_place: Option<Span>,
    /// `retry` itself was given.
    is_given: bool,
}

/// The keys that shape the delay, each with its place.
#[derive(Debug, Clone, Default)]
struct Delay {
    wait: Option<(Duration, Span)>,
    base: Option<(Duration, Span)>,
    factor: Option<(f64, Span)>,
    backoff_factor: Option<(f64, Span)>,
}

/// The keys of the mapping; a call's own `retry` has the same.
const KEYS: &[KeyReader<RetryLayer>] = &[
    ("max", |reader, entry, retry| retry.keys.max = reader.whole(&entry.node)),
    ("wait", |reader, entry, retry| retry.read_wait(reader, entry)),
    ("base", |reader, entry, retry| retry.delay.base = length(reader, entry)),
    ("factor", |reader, entry, retry| retry.delay.factor = factor(reader, entry, 1.0)),
    ("max_delay", |reader, entry, retry| retry.keys.max_delay = reader.duration(&entry.node, Zero::Allowed)),
    ("jitter", |reader, entry, retry| retry.keys.jitter = jitter(reader, &entry.node)),
    ("backoff_factor", |reader, entry, retry| retry.delay.backoff_factor = factor(reader, entry, 0.0)),
    ("statuses", |reader, entry, retry| retry.keys.statuses = statuses::read(reader, &entry.node)),
    ("methods", |reader, entry, retry| retry.keys.methods = methods(reader, &entry.node)),
    ("requeue", |reader, entry, retry| retry.keys.requeue = reader.whole(&entry.node)),
    ("budget", |reader, entry, retry| reader.later(entry, retry)),
    ("throttle_max", |reader, entry, retry| retry.keys.throttle_max = reader.whole(&entry.node)),
    ("retry_after_max", |reader, entry, retry| {
        retry.keys.retry_after_max = reader.duration(&entry.node, Zero::Allowed);
    }),
    ("on_unknown", |reader, entry, retry| retry.read_on_unknown(reader, entry)),
];

impl RetryLayer {
    /// Reads the value of `retry`.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        self.is_given = true;
        match entry.node.value {
            Value::Integer(_) => self.keys.max = reader.whole(&entry.node),
            Value::Map(_) => reader.keys(&entry.node, KEYS, self),
            _ => {
                reader
                    .mismatch(&entry.node, "a number of retries or a mapping")
                    .hint("`retry: 3`, or `retry: { max: 3, base: 1s }`");
            }
        }
    }

    /// Reads `wait`, which may stand beside `retry` or in it.
    pub(super) fn read_wait(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        match self.delay.wait {
            Some((_, first)) => given_twice(reader, entry, first),
            None => self.delay.wait = length(reader, entry),
        }
    }

    /// Reads `on_unknown`, which may stand beside `retry` or in it.
    pub(super) fn read_on_unknown(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        if let Some(first) = self.on_unknown_place {
            return given_twice(reader, entry, first);
        }
        let choices = [("retry", OnUnknown::Retry), ("stop", OnUnknown::Stop)];
        self.keys.on_unknown = choice(reader, &entry.node, &choices);
        self.on_unknown_place = Some(entry.key.span);
    }

    /// Reports forms of delay that contradict each other. Called once a layer is complete.
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        let forms = [
            ("wait", self.delay.wait.map(|(_, span)| span)),
            ("base", self.delay.base.map(|(_, span)| span)),
            ("factor", self.delay.factor.map(|(_, span)| span)),
            ("backoff_factor", self.delay.backoff_factor.map(|(_, span)| span)),
        ];
        let mut given: Vec<(&str, Span)> = forms.into_iter().filter_map(|(name, span)| Some((name, span?))).collect();
        given.sort_by_key(|(_, span)| *span);
        for (index, &(name, span)) in given.iter().enumerate() {
            let Some((first, place)) = given[..index].iter().find(|(earlier, _)| form(earlier) != form(name)) else {
                continue;
            };
            reader
                .error(span, format!("`{name}` and `{first}` are different forms of delay"))
                .related(*place, "the other form")
                .hint(
                    "`wait` is constant, `base` and `factor` are geometric, `backoff_factor` doubles: keep one of them",
                );
            return;
        }
    }

    /// This layer's keys, and the lower one's where it has none. Both are complete and checked.
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            keys: self.settings().or(&below.settings()),
            delay: Delay::default(),
            on_unknown_place: self.on_unknown_place.or(below.on_unknown_place),
            is_given: self.is_given || below.is_given,
        }
    }

    /// The policy, with `base` for what was not given.
    pub(super) fn resolve(&self, base: &RetryPolicy) -> RetryPolicy {
        self.settings().over(base)
    }

    pub(super) fn on_unknown(&self) -> Option<OnUnknown> {
        self.keys.on_unknown
    }

    /// `retry` was given.
    pub(super) fn is_given(&self) -> bool {
        self.is_given
    }

    fn settings(&self) -> RetryOverride {
        RetryOverride { delay: self.delay.form().or(self.keys.delay), ..self.keys.clone() }
    }
}

impl Delay {
    /// The one form that a checked layer gives, if any.
    fn form(&self) -> Option<DelayOverride> {
        match self {
            Self { wait: Some((wait, _)), .. } => Some(DelayOverride::Constant(*wait)),
            Self { backoff_factor: Some((factor, _)), .. } => Some(DelayOverride::Factor(*factor)),
            Self { wait: None, base: None, factor: None, backoff_factor: None } => None,
            Self { base, factor, .. } => Some(DelayOverride::Geometric {
                base: base.map(|(base, _)| base),
                factor: factor.map(|(factor, _)| factor),
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Constant,
    Geometric,
    Factor,
}

fn form(key: &str) -> Form {
    match key {
        "wait" => Form::Constant,
        "backoff_factor" => Form::Factor,
        _ => Form::Geometric,
    }
}

fn given_twice(reader: &mut Reader<'_>, entry: &Entry, first: Span) {
    let message = format!("`{}` is given twice", entry.key.name);
    reader.error(entry.key.span, message).related(first, "first given here");
}

fn length(reader: &mut Reader<'_>, entry: &Entry) -> Option<(Duration, Span)> {
    reader.duration(&entry.node, Zero::Allowed).map(|length| (length, entry.key.span))
}

fn factor(reader: &mut Reader<'_>, entry: &Entry, minimum: f64) -> Option<(f64, Span)> {
    let factor = reader.decimal(&entry.node)?;
    if factor < minimum {
        reader.error(entry.node.span, format!("`{}` is at least {minimum}", entry.key.name));
        return None;
    }
    Some((factor, entry.key.span))
}

fn jitter(reader: &mut Reader<'_>, node: &Node) -> Option<Jitter> {
    choice(reader, node, &[("full", Jitter::Full), ("none", Jitter::None)])
}

/// One word of a few.
fn choice<T: Copy>(reader: &mut Reader<'_>, node: &Node, choices: &[(&str, T)]) -> Option<T> {
    let words = choices.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    let Value::Text(text) = &node.value else {
        reader.mismatch(node, &words);
        return None;
    };
    let found = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
    if found.is_none() {
        reader.error(node.span, format!("`{text}` is not {words}"));
    }
    found
}

fn methods(reader: &mut Reader<'_>, node: &Node) -> Option<MethodSet> {
    if node.value == Value::Text("all".into()) {
        return Some(MethodSet::All);
    }
    let names = reader.items(node)?.iter().filter_map(|item| method(reader, item));
    Some(MethodSet::Only(names.collect()))
}

fn method(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.name(node)?.to_ascii_uppercase();
    if http::Method::from_bytes(name.as_bytes()).is_err() {
        reader.error(node.span, format!("`{name}` is no method")).hint("methods are names such as GET or PUT");
        return None;
    }
    Some(name)
}
