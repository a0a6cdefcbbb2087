//! The whole file: its top-level keys, and the layers of its upstreams put together.
//!
//! `kofaf.yml` has its upstreams at the top level and Kofaf's defaults; from there on both files go the same way.

use std::collections::BTreeMap;

use super::base_url;
use super::declared::Declared;
use super::diagnostic::Span;

use super::layer::{Dialect, Layer};
use super::load::Calls;
use super::model::{Addresses, Config};
use super::patch::Written;
use super::reader::{KeyReader, Reader};
use super::routes;
use super::settings::{SECTIONS, Settings};
use super::tree::{Entry, Key, Node, Value};
use super::upstream;

/// The longest name of an upstream, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The most upstreams one configuration declares.
const UPSTREAMS_MAX: usize = 10_000;

/// What `farcall.yml` holds beside the settings.
#[derive(Debug, Default)]
struct Parts {
    settings: Settings,
    defaults: Layer,
    upstreams: Vec<(Key, Layer)>,
    routes: Vec<routes::Draft>,
}

/// The sections that are no settings.
const PARTS: &[KeyReader<Parts>] = &[
    ("server", read_section),
    ("store", read_section),
    ("inbox", read_section),
    ("retention", read_section),
    ("defaults", |reader, entry, parts| parts.defaults = upstream::read_defaults(reader, entry)),
    ("upstreams", |reader, entry, parts| parts.upstreams = read_upstreams(reader, &entry.node)),
    ("routes", |reader, entry, parts| parts.routes = routes::read(reader, &entry.node)),
    ("functions", |reader, entry, parts| reader.later(entry, parts)),
];

/// Reads `farcall.yml`.
pub(super) fn read_farcall(reader: &mut Reader<'_>, root: &Node, calls: Calls) -> Config {
    let mut parts = Parts::default();
    reader.keys(root, PARTS, &mut parts);
    warn_of_withheld_secrets(reader, root, &parts.defaults);
    let dialect = match calls {
        Calls::Durable => Dialect::Farcall,
        Calls::Ephemeral => Dialect::Ephemeral,
    };
    assemble(reader, parts, dialect)
}

/// Reads `kofaf.yml`, whose top level is its upstreams; settings come from flags and the environment only.
pub(super) fn read_kofaf(reader: &mut Reader<'_>, root: &Node, overrides: &Node) -> Config {
    let mut parts = Parts::default();
    reader.keys(overrides, SECTIONS, &mut parts.settings);
    parts.upstreams = match first_section(root) {
        None => read_upstreams(reader, root),
        Some(section) => {
            reader
                .error(section.span, format!("`{}` is no upstream", section.name))
                .hint("kofaf.yml has nothing but upstreams at its top level; sections belong to farcall.yml");
            Vec::new()
        }
    };
    assemble(reader, parts, Dialect::Kofaf)
}

/// A section of farcall.yml, which tells that the whole file is meant as one.
fn first_section(root: &Node) -> Option<&Key> {
    let Value::Map(entries) = &root.value else { return None };
    let is_section = |entry: &&Entry| {
        PARTS.iter().any(|(name, _)| *name == entry.key.name) && entry_of(&entry.node, "base_url").is_none()
    };
    entries.iter().find(is_section).map(|entry| &entry.key)
}

fn read_section(reader: &mut Reader<'_>, entry: &Entry, parts: &mut Parts) {
    let section = SECTIONS.iter().find(|(name, _)| *name == entry.key.name);
    let (_, read) = section.expect("every section of settings is in both tables");
    read(reader, entry, &mut parts.settings);
}

fn read_upstreams(reader: &mut Reader<'_>, node: &Node) -> Vec<(Key, Layer)> {
    let entries = reader.entries(node).unwrap_or_default();
    if entries.len() > UPSTREAMS_MAX {
        reader.error(node.span, format!("more than {UPSTREAMS_MAX} upstreams"));
        return Vec::new();
    }
    let mut upstreams = Vec::with_capacity(entries.len());
    for entry in entries {
        check_name(reader, &entry.key);
        upstreams.push((entry.key.clone(), upstream::read(reader, entry)));
    }
    upstreams
}

fn check_name(reader: &mut Reader<'_>, key: &Key) {
    if let Some(message) = mistake_in_name(&key.name) {
        reader.error(key.span, message).hint("use letters, digits, dots, hyphens and underscores");
    }
}

/// Why this cannot be the name of an upstream, if so: names stand in paths, labels and messages.
pub(super) fn mistake_in_name(name: &str) -> Option<String> {
    Some(if name.is_empty() {
        "an upstream needs a name".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("this name is longer than {NAME_BYTES_MAX} bytes")
    } else if name == "undeclared" {
        "`undeclared` is what all upstreams without a name are called together".to_owned()
    } else if matches!(name, "." | "..") || name.contains(['/', '?', '#', '%', '\\']) || name.contains(char::is_control)
    {
        format!("`{}` cannot be the name of an upstream", name.escape_debug())
    } else if name.trim() != name {
        "a name cannot begin or end with a space".to_owned()
    } else {
        return None;
    })
}

fn assemble(reader: &mut Reader<'_>, parts: Parts, dialect: Dialect) -> Config {
    parts.settings.check(reader);
    check_distinct(reader, &parts.upstreams);
    let (mut upstreams, mut layers) = (Declared::default(), BTreeMap::new());
    for (key, layer) in parts.upstreams {
        let layer = layer.over(&parts.defaults);
        check_proxy(reader, &layer);
        upstreams.insert(&key.name, layer.clone().resolve(dialect));
        layers.insert(key.name, Box::new(layer));
    }
    check_proxy(reader, &parts.defaults);
    let routes = routes::resolve(reader, parts.routes, &upstreams);
    let undeclared = parts.defaults.without_secrets();
    Config {
        path: None,
        server: parts.settings.server,
        store: parts.settings.store,
        inbox: parts.settings.inbox,
        retention: parts.settings.retention,
        upstreams,
        undeclared: undeclared.clone().resolve(dialect),
        routes,
        origins: BTreeMap::new(),
        written: Written::new(layers, undeclared, dialect),
        secret_variables: std::mem::take(&mut reader.secret_variables),
        is_kofaf: dialect == Dialect::Kofaf,
    }
}

/// A proxy looks names up by itself, so nobody here knows where it connects to.
fn check_proxy(reader: &mut Reader<'_>, layer: &Layer) {
    if let (Some(Some((_, place))), Some(Addresses::Public)) = (&layer.proxy, layer.addresses) {
        reader
            .error(*place, "`addresses: public` cannot be kept through a proxy, which looks names up by itself")
            .hint("let the proxy keep calls out of your network and write `addresses: any`, or leave it out");
    }
}

/// No two upstreams have one base URL, however spelled: a call could not tell them apart.
fn check_distinct(reader: &mut Reader<'_>, upstreams: &[(Key, Layer)]) {
    let mut seen: BTreeMap<String, (&str, Span)> = BTreeMap::new();
    for (key, layer) in upstreams {
        let Some((url, place)) = &layer.base_url else { continue };
        if let Some((first, first_place)) = seen.get(&base_url::normalised(url)) {
            reader
                .error(*place, format!("`{first}` and `{}` have the same base URL", key.name))
                .related(*first_place, "first used here")
                .hint("calls find their upstream by it; make them one upstream");
            continue;
        }
        seen.insert(base_url::normalised(url), (&key.name, *place));
    }
}

fn warn_of_withheld_secrets(reader: &mut Reader<'_>, root: &Node, defaults: &Layer) {
    let has_secrets = defaults.headers.iter().flatten().any(|(_, value)| value.has_references());
    let place = entry_of(root, "defaults").and_then(|entry| entry_of(&entry.node, "headers"));
    if let (true, Some(entry)) = (has_secrets, place) {
        reader
            .diagnostics
            .warning(entry.key.span, "headers with secrets go to declared upstreams only")
            .hint("a call may name any URL; declare the upstreams that may have the secret");
    }
}

fn entry_of<'n>(node: &'n Node, name: &str) -> Option<&'n Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key.name == name),
        _ => None,
    }
}
