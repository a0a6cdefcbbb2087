//! A YAML text as a tree of values that know where they stand.
//!
//! The only place that names the YAML parser. It gives values and places and judges only what YAML itself forbids, and
//! what could grow without bound: nesting, the number of values (copies made by aliases included), tags. Duplicate
//! keys are kept: their reader reports them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StructureStyle, Tag};

use super::diagnostic::{SourceId, Span};

/// The most values a configuration may hold, copies by aliases counted.
const NODES_MAX: usize = 50_000;
/// The deepest nesting.
const DEPTH_MAX: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: Key,
    pub node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub name: String,
    pub span: Span,
}

/// Why a text is no YAML that we read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub span: Span,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// Reads one YAML document; nothing when it is empty.
pub(super) fn parse(source: SourceId, text: &str) -> Result<Option<Node>, SyntaxError> {
    let options = granit_parser::options! {
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
        emit_comments: false,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    Builder { source, text, parser, anchors: HashMap::new(), nodes: 0 }.document()
}

/// What a plain (unquoted) scalar means, by YAML 1.2's core schema.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return Value::Integer(integer);
    }
    float(text).map_or_else(|| Value::Text(text.to_owned()), Value::Float)
}

fn integer(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with(['+', '-']));
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with(['+', '-']));
    }
    text.parse().ok()
}

fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // `f64::from_str` also reads words like `nan` and `infinity`, which YAML does not.
    let shaped = text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    shaped.then(|| text.parse().ok()).flatten()
}

struct Builder<'t> {
    source: SourceId,
    text: &'t str,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'t> Builder<'t> {
    fn document(mut self) -> Result<Option<Node>, SyntaxError> {
        let mut root = None;
        loop {
            let (event, range) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(self.fail(range, "a second document begins here", Some("one file is one document")));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, range)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Range<usize>), SyntaxError> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.byte_range().unwrap_or(0..0))),
            Some(Err(error)) => Err(self.scan_failure(&error)),
            None => Ok((Event::StreamEnd, self.text.len()..self.text.len())),
        }
    }

    fn node(&mut self, event: Event<'t>, range: Range<usize>) -> Result<Node, SyntaxError> {
        let before = self.nodes;
        self.count(1, &range)?;
        let anchor = event.anchor_id();
        let node = match event {
            Event::Scalar(text, style, _, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), &range)?;
                Node { span: Span::new(self.source, self.trimmed(range)), value }
            }
            Event::SequenceStart(style, _, tag) => {
                self.refuse_tag(tag.as_deref(), &range)?;
                self.list(style, range)?
            }
            Event::MappingStart(style, _, tag) => {
                self.refuse_tag(tag.as_deref(), &range)?;
                self.map(style, range)?
            }
            Event::Alias(id) => self.copy(id, range)?,
            _ => return Err(self.fail(range, "a value is expected here", None)),
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        range: &Range<usize>,
    ) -> Result<Value, SyntaxError> {
        match tag {
            Some(tag) if tag.to_string() == "tag:yaml.org,2002:str" => return Ok(Value::Text(text.to_owned())),
            tag => self.refuse_tag(tag, range)?,
        }
        Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.to_owned()) })
    }

    fn list(&mut self, style: StructureStyle, start: Range<usize>) -> Result<Node, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, range) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let first = items.first().map(|item: &Node| item.span);
                return Ok(Node { span: self.extent(style, start, range, first), value: Value::List(items) });
            }
            items.push(self.node(event, range)?);
        }
    }

    fn map(&mut self, style: StructureStyle, start: Range<usize>) -> Result<Node, SyntaxError> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, range) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let first = entries.first().map(|entry: &Entry| entry.key.span);
                merge(&mut entries, merged);
                return Ok(Node { span: self.extent(style, start, range, first), value: Value::Map(entries) });
            }
            let Event::Scalar(name, key_style, ..) = event else {
                return Err(self.fail(range, "a key must be plain text", None));
            };
            let span = Span::new(self.source, self.trimmed(range));
            let (event, range) = self.next()?;
            let node = self.node(event, range.clone())?;
            if name == "<<" && key_style == ScalarStyle::Plain {
                merged.extend(self.mergeable(node, range)?);
            } else {
                entries.push(Entry { key: Key { name: name.into_owned(), span }, node });
            }
        }
    }

    /// The entries of the mappings behind a merge key `<<`.
    fn mergeable(&self, node: Node, range: Range<usize>) -> Result<Vec<Entry>, SyntaxError> {
        let parts = match node.value {
            Value::Map(entries) => return Ok(entries),
            Value::List(parts) => parts,
            _ => Vec::new(),
        };
        let entries = parts.into_iter().map(|part| match part.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        });
        match entries.collect::<Option<Vec<_>>>() {
            Some(entries) if !entries.is_empty() => Ok(entries.concat()),
            _ => Err(self.fail(range, "`<<` merges mappings only", None)),
        }
    }

    fn copy(&mut self, id: usize, range: Range<usize>) -> Result<Node, SyntaxError> {
        let Some((node, size)) = self.anchors.get(&id) else {
            return Err(self.fail(range, "this value would hold itself", None));
        };
        let (node, size) = (node.clone(), *size);
        self.count(size, &range)?;
        Ok(node)
    }

    fn count(&mut self, nodes: usize, range: &Range<usize>) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        Err(self.fail(range.clone(), &format!("more than {NODES_MAX} values, counting repeated ones"), None))
    }

    fn refuse_tag(&self, tag: Option<&Tag>, range: &Range<usize>) -> Result<(), SyntaxError> {
        match tag {
            None => Ok(()),
            Some(tag) => Err(self.fail(
                range.clone(),
                &format!("the tag `{}{}` means nothing here", tag.original_handle(), tag.suffix()),
                None,
            )),
        }
    }

    /// A flow collection from bracket to bracket; of a block its first line says where it is.
    fn extent(&self, style: StructureStyle, start: Range<usize>, end: Range<usize>, first: Option<Span>) -> Span {
        match (style, first) {
            (StructureStyle::Block, Some(first)) => first,
            _ => Span::new(self.source, start.start..end.end),
        }
    }

    /// Block scalars reach into the next line; an underline should not.
    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let written = self.text.get(range.clone()).unwrap_or_default();
        range.start..range.start + written.trim_end().len()
    }

    fn scan_failure(&self, error: &ScanError) -> SyntaxError {
        let start = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let message = error.info();
        let hint = if message.contains("tab") {
            Some("YAML is indented with spaces, never with tabs")
        } else if message.contains("did not find expected key") {
            Some("is this line indented like its neighbours?")
        } else {
            None
        };
        self.fail(start..start + length, &format!("no valid YAML: {message}"), hint)
    }

    fn fail(&self, range: Range<usize>, message: &str, hint: Option<&'static str>) -> SyntaxError {
        SyntaxError { span: Span::new(self.source, range), message: message.to_owned(), hint }
    }
}

/// A mapping's own keys win over merged ones, and earlier merged ones over later.
fn merge(entries: &mut Vec<Entry>, merged: Vec<Entry>) {
    let mut known: HashSet<String> = HashSet::new();
    if !merged.is_empty() {
        known.extend(entries.iter().map(|entry| entry.key.name.clone()));
    }
    entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.name.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Diagnostics, References};

    fn read(text: &str) -> Result<Option<Node>, SyntaxError> {
        let source = Diagnostics::default().add_source("a.yml".into(), text.into(), References::Literal);
        parse(source, text)
    }

    fn shape(node: &Node) -> String {
        match &node.value {
            Value::List(items) => format!("[{}]", items.iter().map(shape).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| format!("{}: {}", entry.key.name, shape(&entry.node)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
            }
            scalar => format!("{scalar:?}"),
        }
    }

    fn check(text: &str, expected: &str) {
        let read = match read(text) {
            Ok(Some(node)) => shape(&node),
            Ok(None) => "nothing".to_owned(),
            Err(error) => error.message,
        };
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
        check(
            "[1, -2, 0x1F, 1.5, 1e3, true, ~]",
            "[Integer(1), Integer(-2), Integer(31), Float(1.5), Float(1000.0), Bool(true), Null]",
        );
        check(
            "['1', \"true\", yes, 10/1s, nan, 1-, 1.2.3]",
            "[Text(\"1\"), Text(\"true\"), Text(\"yes\"), Text(\"10/1s\"), Text(\"nan\"), Text(\"1-\"), Text(\"1.2.3\")]",
        );
        check("# only a comment\n", "nothing");
        check("a: !!str 1", "{a: Text(\"1\")}");
    }

    #[test]
    fn aliases_copy_and_merge_keys_give_way() {
        check(
            "a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}",
            "{a: {b: Integer(1), c: Integer(2)}, d: {b: Integer(1), c: Integer(2)}, e: {c: Integer(3), b: Integer(1)}}",
        );
        check("a: {<<: 1}", "`<<` merges mappings only");
        check("a: &x [*x]", "this value would hold itself");
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(", ")));
        }
        check(&bomb, "more than 50000 values, counting repeated ones");
        assert!(read(&"[".repeat(10_000)).is_err());
        assert!(read(&(0..100).map(|depth| format!("{}k:\n", " ".repeat(depth))).collect::<String>()).is_err());
    }

    #[test]
    fn what_yaml_or_we_forbid_is_said() {
        check("a: 1\n---\nb: 2\n", "a second document begins here");
        check("? [a]\n: 1\n", "a key must be plain text");
        check("a: !secret 1\n", "the tag `!secret` means nothing here");
    }

    #[test]
    fn places_are_those_of_the_text() {
        let text = "a:\n  - x\n  - {k: 'ü v'}\n";
        let Ok(Some(Node { value: Value::Map(entries), .. })) = read(text) else { panic!("it is a mapping") };
        let mut diagnostics = Diagnostics::default();
        diagnostics.add_source("a.yml".into(), text.into(), References::Literal);
        let Value::List(items) = &entries[0].node.value else { panic!("it is a list") };
        assert_eq!(diagnostics.written(items[1].span), "{k: 'ü v'}");
        let Value::Map(inner) = &items[1].value else { panic!("it is a mapping") };
        assert_eq!(diagnostics.written(inner[0].node.span), "'ü v'");
        assert_eq!(diagnostics.written(entries[0].key.span), "a");
    }
}
