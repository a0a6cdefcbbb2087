//! Patches: keys of an upstream's policy that are set while farcall runs, over what the file says.
//!
//! A patched key keeps what the file said of it when it was patched; when the file says something else, the patch is
//! gone for good. Compared is how it is written: the same value in other words is another. Values are kept as they
//! were given, and read by the tables of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::diagnostic::{Diagnostics, References, SourceId, Span};
use super::layer::{Dialect, Layer};
use super::model::{Config, Upstream};
use super::reader::Reader;
use super::tree::{self, Entry, Key, Node, Value};
use super::upstream;
use crate::document::patch::{Json, JsonMember, JsonValue, members, whole};
use crate::document::{Rejection, RejectionKind};
use crate::nearest::nearest;

/// The keys that can be patched.
pub(super) const PATCHABLE: [&str; 17] = [
    "limits",
    "rate_second",
    "rate_minute",
    "rate_hour",
    "rate_day",
    "concurrency",
    "smooth",
    "strict",
    "jitter",
    "retry",
    "wait",
    "on_unknown",
    "hedge",
    "breaker",
    "timeout",
    "deadline",
    "success",
];
/// Those of them that a later version brings.
pub(super) const LATER: [&str; 0] = [];

/// What a file says of its upstreams, before anything is patched. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Written(Arc<Layers>);

#[derive(Debug, Default)]
struct Layers {
    /// Boxed: a map leaves a third of its places free.
    upstreams: BTreeMap<String, Box<Layer>>,
    undeclared: Layer,
    dialect: Dialect,
}

/// A patch as it came: every value of it can be read, and stands in no contradiction to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchDocument {
    /// By key, the value as given; nothing takes the patch of that key back.
    keys: BTreeMap<String, Option<String>>,
}

/// All that is patched at one upstream, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Patches(BTreeMap<String, Patch>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Patch {
    /// JSON, as given.
    value: String,
    /// What the file said of the key at that time, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

impl PatchDocument {
    /// Reads the body of a patch: a JSON object of keys that can be patched, each with a value as in the configuration,
    /// or null.
    ///
    /// # Errors
    /// The first mistake, with its key, line and column.
    ///
    /// # Example
    /// ```
    /// # use farcall_engine::config::PatchDocument;
    /// assert!(PatchDocument::parse(br#"{"limits": ["5/1s"], "timeout": null}"#).is_ok());
    /// let refused = PatchDocument::parse(br#"{"base_url": "https://other.example"}"#).unwrap_err();
    /// assert_eq!((refused.key.as_deref(), refused.column), (Some("base_url"), Some(2)));
    /// ```
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
        let (members, places) = (members(text)?, Places::of(text));
        for member in &members {
            check_key(member, &places)?;
        }
        read(&members, places)?;
        let value = |json: &Json| Some(text[json.at.clone()].to_owned()).filter(|_| !is_null(json));
        Ok(Self { keys: members.into_iter().map(|member| (member.key, value(&member.json))).collect() })
    }
}

impl Patches {
    /// As it is stored; empty when nothing is patched.
    pub(crate) fn to_text(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        serde_json::to_string(self).expect("strings are JSON")
    }

    /// From what is stored.
    pub(crate) fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        if text.is_empty() { Ok(Self::default()) } else { serde_json::from_str(text) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patched keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same with a further patch, made while the file says this.
    ///
    /// # Errors
    /// When a key contradicts one that was patched before.
    pub(crate) fn with(mut self, patch: &PatchDocument, written: &Written, limit_key: &str) -> Result<Self, Rejection> {
        for (key, value) in &patch.keys {
            match value {
                Some(value) => {
                    let file = written.value(limit_key, key).map(str::to_owned);
                    self.0.insert(key.clone(), Patch { value: value.clone(), file });
                }
                None => drop(self.0.remove(key)),
            }
        }
        self.layer()?;
        Ok(self)
    }

    /// Drops the patches of keys of which the file says something else by now; whether there was any.
    pub(crate) fn give_way(&mut self, written: &Written, limit_key: &str) -> bool {
        let before = self.0.len();
        if written.knows(limit_key) {
            self.0.retain(|key, patch| patch.file.as_deref() == written.value(limit_key, key));
        }
        self.0.len() < before
    }

    fn layer(&self) -> Result<Layer, Rejection> {
        let members: Vec<String> = self.0.iter().map(|(key, patch)| format!("\"{key}\":{}", patch.value)).collect();
        let text = format!("{{{}}}", members.join(","));
        // The places are those of no text that anybody wrote.
        let unplaced = |rejection| Rejection { line: None, column: None, ..rejection };
        read(&self::members(&text).map_err(unplaced)?, Places::of(&text)).map_err(unplaced)
    }
}

impl Written {
    pub(super) fn new(upstreams: BTreeMap<String, Box<Layer>>, undeclared: Layer, dialect: Dialect) -> Self {
        Self(Arc::new(Layers { upstreams, undeclared, dialect }))
    }

    /// What the file says of a key of an upstream, in a form of its own; nothing when it does not.
    fn value(&self, limit_key: &str, key: &str) -> Option<&str> {
        self.layer(limit_key)?.written.get(key).map(String::as_str)
    }

    /// Whether it is undeclared, or the file has it.
    fn knows(&self, limit_key: &str) -> bool {
        self.layer(limit_key).is_some()
    }

    fn layer(&self, limit_key: &str) -> Option<&Layer> {
        if is_origin(limit_key) {
            Some(&self.0.undeclared)
        } else {
            self.0.upstreams.get(limit_key).map(|layer| &**layer)
        }
    }

    /// The upstream under these patches; nothing when the file does not have it.
    fn patched(&self, limit_key: &str, patches: &Patches) -> Option<Result<Upstream, Rejection>> {
        let layer = self.layer(limit_key)?;
        Some(patches.layer().map(|patch| {
            let base_url = layer.base_url.clone();
            Layer { base_url, ..patch.over(layer) }.resolve(self.0.dialect)
        }))
    }
}

impl Config {
    /// The same under patches, by limit key. This one is as the file says; what cannot be read is left out, with a
    /// warning: another version has written it.
    pub(crate) fn patched(&self, patches: &BTreeMap<String, Patches>) -> Self {
        let mut config = self.clone();
        for (limit_key, patches) in patches.iter().filter(|(_, patches)| !patches.is_empty()) {
            match self.written.patched(limit_key, patches) {
                None => {}
                Some(Ok(upstream)) if is_origin(limit_key) => {
                    config.origins.insert(limit_key.clone(), Arc::new(upstream));
                }
                Some(Ok(upstream)) => {
                    config.upstreams.insert(limit_key, upstream);
                }
                Some(Err(error)) => {
                    tracing::warn!(upstream = limit_key, %error, "what was patched here cannot be read, it does not hold");
                }
            }
        }
        config
    }
}

/// How the keys that can be patched are written in a mapping.
pub(super) fn written(node: &Node) -> BTreeMap<&'static str, String> {
    let Value::Map(entries) = &node.value else { return BTreeMap::new() };
    let patchable = entries.iter().filter_map(|entry| {
        let key = PATCHABLE.into_iter().find(|key| *key == entry.key.name)?;
        Some((key, canonical(&entry.node)))
    });
    patchable.collect()
}

/// A value in a form that tells values apart and nothing else of how they are laid out.
fn canonical(node: &Node) -> String {
    let joined = |parts: Vec<String>| parts.join(",");
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", joined(items.iter().map(canonical).collect())),
        Value::Map(entries) => {
            let mut pairs: Vec<String> =
                entries.iter().map(|entry| format!("{:?}:{}", entry.key.name, canonical(&entry.node))).collect();
            pairs.sort_unstable();
            format!("{{{}}}", joined(pairs))
        }
    }
}

/// As YAML has it, but for `3.0`, which is a whole number in JSON.
fn plain(text: &str) -> Value {
    match tree::plain(text) {
        Value::Float(number) => whole(number).map_or(Value::Float(number), |whole| Value::Integer(whole.into())),
        value => value,
    }
}

/// Names of declared upstreams never look like one.
fn is_origin(limit_key: &str) -> bool {
    limit_key.contains("://")
}

/// A text whose places are asked for.
struct Places {
    diagnostics: Diagnostics,
    source: SourceId,
}

impl Places {
    fn of(text: &str) -> Self {
        let mut diagnostics = Diagnostics::default();
        let source = diagnostics.add_source("the patch".to_owned(), text.to_owned(), References::Literal);
        Self { diagnostics, source }
    }

    fn key(&self, member: &JsonMember) -> Key {
        let length = member.json.at.start.saturating_sub(member.key_at).min(member.key.len() + 2);
        Key { name: member.key.clone(), span: Span::new(self.source, member.key_at..member.key_at + length) }
    }

    fn entry(&self, member: &JsonMember) -> Entry {
        Entry { key: self.key(member), node: self.node(&member.json) }
    }

    fn node(&self, json: &Json) -> Node {
        let value = match &json.value {
            JsonValue::Plain(text) => plain(text),
            JsonValue::Text(text) => Value::Text(text.clone()),
            JsonValue::List(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            JsonValue::Map(members) => Value::Map(members.iter().map(|member| self.entry(member)).collect()),
        };
        Node { span: Span::new(self.source, json.at.clone()), value }
    }

    /// A mistake with a key, and where it stands.
    fn rejection(&self, member: &JsonMember, kind: RejectionKind, message: String) -> Rejection {
        let mut diagnostics = self.diagnostics.clone();
        diagnostics.error(self.key(member).span, message);
        first(&diagnostics, kind, Some(&member.key)).expect("there is one")
    }
}

fn check_key(member: &JsonMember, places: &Places) -> Result<(), Rejection> {
    let key = member.key.as_str();
    if LATER.contains(&key) && !is_null(&member.json) {
        let message = format!("`{key}` is not available yet in this version");
        return Err(places.rejection(member, RejectionKind::NotAvailableYet, message));
    }
    if PATCHABLE.contains(&key) {
        return Ok(());
    }
    let message = if upstream::KEYS.iter().any(|(name, _)| *name == key) {
        format!("`{key}` cannot be patched, only the configuration file sets it")
    } else {
        let hint = nearest(key, PATCHABLE).map_or(String::new(), |near| format!("; is `{near}` meant?"));
        format!("unknown key `{key}`{hint}")
    };
    Err(places.rejection(member, RejectionKind::InvalidPolicy, message))
}

/// Reads the values by the configuration's tables; a null says nothing.
fn read(members: &[JsonMember], places: Places) -> Result<Layer, Rejection> {
    let mut layer = Layer::default();
    let entries: Vec<Entry> = members.iter().map(|member| places.entry(member)).collect();
    let mut reader = Reader {
        dir: Path::new(""),
        diagnostics: places.diagnostics,
        secret_variables: std::collections::BTreeSet::new(),
    };
    for (entry, member) in entries.iter().zip(members).filter(|(_, member)| !is_null(&member.json)) {
        let Some((_, read)) = upstream::KEYS.iter().find(|(name, _)| *name == entry.key.name) else { continue };
        read(&mut reader, entry, &mut layer);
        if let Some(rejection) = first(&reader.diagnostics, RejectionKind::InvalidPolicy, Some(&member.key)) {
            return Err(rejection);
        }
    }
    layer.retry.check(&mut reader);
    if let Some(rejection) = first(&reader.diagnostics, RejectionKind::InvalidPolicy, Some("retry")) {
        return Err(rejection);
    }
    layer.check(&mut reader);
    match first(&reader.diagnostics, RejectionKind::InvalidPolicy, Some("hedge")) {
        Some(rejection) => Err(rejection),
        None => Ok(layer),
    }
}

/// The first mistake, if there is any.
fn first(diagnostics: &Diagnostics, kind: RejectionKind, key: Option<&str>) -> Option<Rejection> {
    let finding = diagnostics.iter().next()?;
    let message = match finding.hint {
        Some(hint) => format!("{}: {hint}", finding.message),
        None => finding.message.to_owned(),
    };
    let place = |number: Option<usize>| number.and_then(|number| u32::try_from(number).ok());
    let (line, column) = (place(finding.line), place(finding.column));
    Some(Rejection { kind, message, key: key.map(str::to_owned), line, column })
}

fn is_null(json: &Json) -> bool {
    matches!(&json.value, JsonValue::Plain(text) if text == "null")
}

fn not_utf8() -> Rejection {
    let message = "the document is not UTF-8".to_owned();
    Rejection { kind: RejectionKind::Syntax, message, key: None, line: None, column: None }
}
