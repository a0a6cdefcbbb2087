//! The section `routes`: a path of this server and what its requests become, each mistake with its place and a hint.
//!
//! That an upstream is declared is known only once all are read, so it is checked last.

use std::time::Duration;

use farcall_core::hedge::{HedgeDelay, HedgePolicy, Hedging};
use farcall_core::retry::StatusSet;

use super::declared::Declared;
use super::diagnostic::Span;
use super::hedge::{self, HedgeLayer};
use super::model::Success;
use super::reader::{KeyReader, Reader};
use super::route::{ROUTE_BYTES_MAX, Route, Routes, Style};
use super::tree::{Entry, Key, Node, Value};
use super::upstream::read_success;
use crate::nearest::nearest;

/// The most routes one configuration has: each is a label of metrics.
const ROUTES_MAX: usize = 1_000;

/// How a smart route that says nothing of it is hedged.
const HEDGE_OF_REQUESTKO: HedgePolicy =
    HedgePolicy { after: HedgeDelay::Fixed(Duration::from_millis(300)), extra: 2, budget: None, on_failure: true };

/// First parts of paths that farcall itself answers, now or later.
pub const OWN_SEGMENTS: [&str; 13] = [
    "",
    "docs",
    "function",
    "healthz",
    "metrics",
    "openapi.json",
    "proxy",
    "readyz",
    "schema",
    "task",
    "terminate",
    "ui",
    "v1",
];

/// A route as it is read, with the places of what is checked later.
#[derive(Debug, Default)]
pub(super) struct Draft {
    path: Option<(Key, bool)>,
    style: Option<Style>,
    upstream: Option<(String, Span)>,
    below: Option<(String, Span)>,
    hedge: Option<HedgeLayer>,
    success: Option<Success>,
}

const KEYS: &[KeyReader<Draft>] = &[
    ("style", |reader, entry, draft| draft.style = read_style(reader, &entry.node)),
    ("upstream", |reader, entry, draft| {
        draft.upstream = reader.name(&entry.node).map(|name| (name.to_owned(), entry.node.span));
    }),
    ("path", |reader, entry, draft| {
        draft.below = reader.name(&entry.node).map(|path| (path.to_owned(), entry.node.span));
    }),
    ("hedge", |reader, entry, draft| draft.hedge = hedge::read(reader, entry)),
    ("success", |reader, entry, draft| draft.success = read_success(reader, &entry.node)),
];

/// Reads the mapping of paths to routes.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Vec<Draft> {
    let entries = reader.entries(node).unwrap_or_default();
    if entries.len() > ROUTES_MAX {
        reader.error(node.span, format!("more than {ROUTES_MAX} routes"));
        return Vec::new();
    }
    entries.into_iter().map(|entry| read_one(reader, entry)).collect()
}

fn read_one(reader: &mut Reader<'_>, entry: &Entry) -> Draft {
    let is_path = check_path(reader, &entry.key);
    let mut draft = Draft { path: Some((entry.key.clone(), is_path)), ..Draft::default() };
    reader.keys(&entry.node, KEYS, &mut draft);
    let names_none = match &entry.node.value {
        Value::Map(entries) => !entries.iter().any(|inner| inner.key.name == "upstream"),
        Value::Null => true,
        _ => false,
    };
    if names_none {
        reader
            .error(entry.key.span, format!("route `{}` has no `upstream`", entry.key.name))
            .hint("name one of `upstreams`: { upstream: etsy }");
    }
    draft
}

/// Puts the routes together, each with a declared upstream.
pub(super) fn resolve(reader: &mut Reader<'_>, drafts: Vec<Draft>, upstreams: &Declared) -> Routes {
    drafts.into_iter().filter_map(|draft| one(reader, draft, upstreams)).collect()
}

fn one(reader: &mut Reader<'_>, draft: Draft, upstreams: &Declared) -> Option<(String, Route)> {
    let Draft { path, style, upstream, below, hedge, success } = draft;
    let (upstream, place) = upstream?;
    if !upstreams.contains(&upstream) {
        let near = nearest(&upstream, upstreams.names()).map(|near| format!("did you mean `{near}`?"));
        reader
            .error(place, format!("`{upstream}` is no configured upstream"))
            .hint(near.unwrap_or_else(|| "declare it under `upstreams`".to_owned()));
    }
    let style = style.unwrap_or_default();
    let below = match below {
        Some((below, place)) => checked_below(reader, below, place, style)?,
        None => String::new(),
    };
    let is_smart = style == Style::Smart;
    let success = success.or_else(|| is_smart.then(success_of_requestko));
    let hedge =
        hedge.map_or_else(|| is_smart.then_some(Hedging::By(HEDGE_OF_REQUESTKO)), |given| Some(hedging(given, style)));
    let (key, is_path) = path?;
    is_path.then_some((key.name, Route { style, upstream, path: below, hedge, success }))
}

/// What a smart route that says nothing of it asks for.
fn success_of_requestko() -> Success {
    Success { statuses: StatusSet::new(vec![(200, 200)]), content_type: Some("application/json".to_owned()) }
}

/// A smart route's hedges start as soon as what is out has failed, too.
fn hedging(given: HedgeLayer, style: Style) -> Hedging {
    given.map_or(Hedging::Never, |(policy, _)| Hedging::By(HedgePolicy { on_failure: style == Style::Smart, ..policy }))
}

fn read_style(reader: &mut Reader<'_>, node: &Node) -> Option<Style> {
    match reader.text(node)? {
        "proxy" => Some(Style::Proxy),
        "smart" => Some(Style::Smart),
        text => {
            let hint = match nearest(text, ["proxy", "smart"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`proxy` passes requests on, `smart` asks for one JSON document within a time".to_owned(),
            };
            let message = format!("`{text}` is no style of a route");
            reader.error(node.span, message).hint(hint);
            None
        }
    }
}

/// Whether a request can have this path, and nobody else answers there.
fn check_path(reader: &mut Reader<'_>, key: &Key) -> bool {
    let path = key.name.as_str();
    let Some(rest) = path.strip_prefix('/') else {
        let hint = format!("write `/{path}`");
        reader.error(key.span, "the path of a route begins with a slash").hint(hint);
        return false;
    };
    let first = rest.split('/').next().unwrap_or_default();
    if rest.is_empty() || (OWN_SEGMENTS.contains(&first) && !first.is_empty()) {
        reader
            .error(key.span, format!("`{path}` is answered by farcall itself"))
            .hint(format!("a route cannot begin with {}", OWN_SEGMENTS[1..].join(", ")));
    } else if path.len() > ROUTE_BYTES_MAX {
        reader.error(key.span, format!("this path is longer than {ROUTE_BYTES_MAX} bytes"));
    } else if path.ends_with('/') {
        reader
            .error(key.span, "the path of a route does not end with a slash")
            .hint(format!("write `{}`; what lies below it belongs to it", path.trim_end_matches('/')));
    } else if path.contains("//") || rest.split('/').any(|segment| matches!(segment, "." | "..")) {
        reader.error(key.span, "the path of a route has no empty, `.` or `..` segments");
    } else if let Some(odd) = path.chars().find(|&c| !is_plain(c)) {
        reader
            .error(key.span, format!("the path of a route cannot hold `{}`", odd.escape_debug()))
            .hint("use letters, digits and / - . _ ~ ! $ & ' ( ) * + , ; = : @; it is compared as requests have it");
    } else {
        return true;
    }
    false
}

/// What may stand in a path as it is (RFC 3986, section 3.3).
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c)
}

/// A path below an upstream's base URL that cannot leave it.
fn checked_below(reader: &mut Reader<'_>, below: String, place: Span, style: Style) -> Option<String> {
    let (path, query) = below.split_once('?').map_or((below.as_str(), None), |(path, query)| (path, Some(query)));
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    if !below.starts_with('/') {
        let hint = format!("write `/{below}`; it goes behind the upstream's base_url");
        reader.error(place, "the path at an upstream begins with a slash").hint(hint);
    } else if plain.split('/').any(|segment| matches!(segment, "." | "..")) {
        reader.error(place, "this path has `.` or `..` segments, which could lead out of the upstream's base_url");
    } else if let Some(odd) = below.chars().find(|&c| !is_plain(c) && !matches!(c, '%' | '?')) {
        reader
            .error(place, format!("a path at an upstream cannot hold `{}`", odd.escape_debug()))
            .hint("write it percent-encoded");
    } else if query.is_some() && style == Style::Proxy {
        reader.error(place, "a route that passes requests on passes their queries on, too").hint("leave the `?` out");
    } else {
        return Some(below);
    }
    None
}
