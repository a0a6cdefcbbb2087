//! Retries: `retry` (a number or a mapping), `wait` and `on_unknown`, over the defaults, to the resolved policy.
//!
//! A layer keeps what one mapping gave. Of two layers the upper one's keys win; a delay of another form (constant,
//! geometric, factor) replaces the lower one's delay as a whole. Within one layer two forms contradict each other.

use std::time::Duration;

use farcall_core::retry::{Backoff, Jitter, MethodSet, OnUnknown, RetryPolicy, StatusSet};

use super::diagnostic::Span;
use super::reader::{KeyReader, Reader, Zero};
use super::statuses;
use super::tree::{Entry, Node, Value};

/// What one mapping says about retries.
#[derive(Debug, Clone, Default)]
pub(super) struct RetryLayer {
    max: Option<u32>,
    delay: Delay,
    max_delay: Option<Duration>,
    jitter: Option<Jitter>,
    statuses: Option<StatusSet>,
    methods: Option<MethodSet>,
    requeue: Option<u32>,
    throttle_max: Option<u32>,
    retry_after_max: Option<Duration>,
    on_unknown: Option<(OnUnknown, Span)>,
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

/// The keys of the mapping.
const KEYS: &[KeyReader<RetryLayer>] = &[
    ("max", |reader, entry, retry| retry.max = reader.whole(&entry.node)),
    ("base", |reader, entry, retry| retry.delay.base = length(reader, entry)),
    ("factor", |reader, entry, retry| retry.delay.factor = factor(reader, entry, 1.0)),
    ("max_delay", |reader, entry, retry| retry.max_delay = reader.duration(&entry.node, Zero::Allowed)),
    ("jitter", |reader, entry, retry| retry.jitter = jitter(reader, &entry.node)),
    ("backoff_factor", |reader, entry, retry| retry.delay.backoff_factor = factor(reader, entry, 0.0)),
    ("statuses", |reader, entry, retry| retry.statuses = statuses::read(reader, &entry.node)),
    ("methods", |reader, entry, retry| retry.methods = methods(reader, &entry.node)),
    ("requeue", |reader, entry, retry| retry.requeue = reader.whole(&entry.node)),
    ("budget", |reader, entry, retry| reader.later(entry, retry)),
    ("throttle_max", |reader, entry, retry| retry.throttle_max = reader.whole(&entry.node)),
    ("retry_after_max", |reader, entry, retry| retry.retry_after_max = reader.duration(&entry.node, Zero::Allowed)),
    ("on_unknown", |reader, entry, retry| retry.read_on_unknown(reader, entry)),
];

impl RetryLayer {
    /// Reads the value of `retry`.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        self.is_given = true;
        match entry.node.value {
            Value::Integer(_) => self.max = reader.whole(&entry.node),
            Value::Map(_) => reader.keys(&entry.node, KEYS, self),
            _ => {
                reader
                    .mismatch(&entry.node, "a number of retries or a mapping")
                    .hint("`retry: 3`, or `retry: { max: 3, base: 1s }`");
            }
        }
    }

    pub(super) fn read_wait(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        self.delay.wait = length(reader, entry);
    }

    /// Reads `on_unknown`, which may stand beside `retry` or in it.
    pub(super) fn read_on_unknown(&mut self, reader: &mut Reader<'_>, entry: &Entry) {
        if let Some((_, first)) = self.on_unknown {
            reader.error(entry.key.span, "`on_unknown` is given twice").related(first, "first given here");
            return;
        }
        let choices = [("retry", OnUnknown::Retry), ("stop", OnUnknown::Stop)];
        self.on_unknown = choice(reader, &entry.node, &choices).map(|value| (value, entry.key.span));
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

    /// This layer's keys, and the lower one's where it has none.
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            max: self.max.or(below.max),
            delay: self.delay.over(&below.delay),
            max_delay: self.max_delay.or(below.max_delay),
            jitter: self.jitter.or(below.jitter),
            statuses: self.statuses.or_else(|| below.statuses.clone()),
            methods: self.methods.or_else(|| below.methods.clone()),
            requeue: self.requeue.or(below.requeue),
            throttle_max: self.throttle_max.or(below.throttle_max),
            retry_after_max: self.retry_after_max.or(below.retry_after_max),
            on_unknown: self.on_unknown.or(below.on_unknown),
            is_given: self.is_given || below.is_given,
        }
    }

    /// The policy, with `base` for what was not given.
    pub(super) fn resolve(&self, base: RetryPolicy) -> RetryPolicy {
        let (backoff, jitter) = self.delay.resolve(&base);
        RetryPolicy {
            max: self.max.unwrap_or(base.max),
            backoff,
            max_delay: self.max_delay.unwrap_or(base.max_delay),
            jitter: self.jitter.unwrap_or(jitter),
            statuses: self.statuses.clone().unwrap_or(base.statuses),
            methods: self.methods.clone().unwrap_or(base.methods),
            requeue: self.requeue.unwrap_or(base.requeue),
            throttle_max: self.throttle_max.unwrap_or(base.throttle_max),
            retry_after_max: self.retry_after_max.unwrap_or(base.retry_after_max),
        }
    }

    pub(super) fn on_unknown(&self) -> Option<OnUnknown> {
        self.on_unknown.map(|(value, _)| value)
    }

    /// `retry` was given.
    pub(super) fn is_given(&self) -> bool {
        self.is_given
    }
}

impl Delay {
    fn over(self, below: &Self) -> Self {
        match (self.form(), below.form()) {
            (None, _) => below.clone(),
            (Some(own), Some(lower)) if own == lower => Self {
                wait: self.wait.or(below.wait),
                base: self.base.or(below.base),
                factor: self.factor.or(below.factor),
                backoff_factor: self.backoff_factor.or(below.backoff_factor),
            },
            (Some(_), _) => self,
        }
    }

    fn form(&self) -> Option<Form> {
        match self {
            Self { wait: Some(_), .. } => Some(Form::Constant),
            Self { backoff_factor: Some(_), .. } => Some(Form::Factor),
            Self { base: Some(_), .. } | Self { factor: Some(_), .. } => Some(Form::Geometric),
            Self { wait: None, base: None, factor: None, backoff_factor: None } => None,
        }
    }

    /// The form given, and the jitter that goes with it.
    fn resolve(&self, default: &RetryPolicy) -> (Backoff, Jitter) {
        if let Some((wait, _)) = self.wait {
            return (Backoff::Constant(wait), Jitter::None);
        }
        if let Some((factor, _)) = self.backoff_factor {
            return (Backoff::Factor(factor), Jitter::None);
        }
        let Backoff::Geometric { base, factor } = default.backoff else {
            return (default.backoff, default.jitter);
        };
        let base = self.base.map_or(base, |(base, _)| base);
        let factor = self.factor.map_or(factor, |(factor, _)| factor);
        (Backoff::Geometric { base, factor }, Jitter::Full)
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
