//! The server's settings: the sections `server`, `store`, `inbox` and `retention`.
//!
//! Each key can also come from a flag or the environment ([`Override`]); such a value takes the place of the file's
//! and is read by the same table.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Diagnostics, References, Span};
use super::headers;
use super::model::{Inbox, Listen, RetentionSettings, Server, StoreSettings};
use super::reader::{KeyReader, Reader, Zero};
use super::tree::{self, Entry, Key, Node, Value};
use crate::quantity::size::SIZE_MAX;

/// Every setting that a flag or the environment may give, as section and key.
///
/// The flag is `--<section>-<key>` with hyphens, the variable `FARCALL_<SECTION>_<KEY>`.
pub const SETTINGS: [(&str, &str); 11] = [
    ("server", "listen"),
    ("server", "tokens"),
    ("server", "drain_timeout"),
    ("server", "max_body"),
    ("store", "path"),
    ("store", "min_free"),
    ("inbox", "settle"),
    ("inbox", "keep"),
    ("retention", "succeeded"),
    ("retention", "failed"),
    ("retention", "max_size"),
];

/// The least that a store may be told to hold: an empty one takes some of it.
const STORE_BYTES_MIN: u64 = 1 << 20;

/// A setting given outside the file. `Debug` leaves the value out: it may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    /// `server`, `store`, `inbox` or `retention`.
    pub section: String,
    /// As in the file: `drain_timeout`.
    pub key: String,
    /// As in the file; tokens are separated by commas and taken literally.
    pub value: String,
    /// What the user wrote it as, for messages: `--server-drain-timeout` or `FARCALL_SERVER_DRAIN_TIMEOUT`.
    pub origin: String,
}

/// The settings of all sections.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub server: Server,
    pub store: StoreSettings,
    pub inbox: Inbox,
    pub retention: RetentionSettings,
    /// Where `listen` was given.
    listen_place: Option<Span>,
}

/// The sections.
pub(super) const SECTIONS: &[KeyReader<Settings>] = &[
    ("server", |reader, entry, settings| reader.keys(&entry.node, SERVER_KEYS, settings)),
    ("store", |reader, entry, settings| reader.keys(&entry.node, STORE_KEYS, settings)),
    ("inbox", |reader, entry, settings| reader.keys(&entry.node, INBOX_KEYS, settings)),
    ("retention", |reader, entry, settings| reader.keys(&entry.node, RETENTION_KEYS, settings)),
];

const SERVER_KEYS: &[KeyReader<Settings>] = &[
    ("listen", read_listen),
    ("tokens", |reader, entry, settings| settings.server.tokens = read_tokens(reader, &entry.node)),
    ("drain_timeout", |reader, entry, settings| {
        let server = &mut settings.server;
        server.drain_timeout = reader.duration(&entry.node, Zero::Allowed).unwrap_or(server.drain_timeout);
    }),
    ("max_body", |reader, entry, settings| {
        let server = &mut settings.server;
        server.max_body = reader.size(&entry.node, &(1..=SIZE_MAX)).unwrap_or(server.max_body);
    }),
];

const STORE_KEYS: &[KeyReader<Settings>] = &[
    ("path", |reader, entry, settings| {
        if let Some(path) = reader.name(&entry.node) {
            settings.store.path = PathBuf::from(path);
        }
    }),
    ("min_free", |reader, entry, settings| {
        let store = &mut settings.store;
        store.min_free = reader.size(&entry.node, &(0..=SIZE_MAX)).unwrap_or(store.min_free);
    }),
    ("url", |reader, entry, settings| reader.later(entry, settings)),
];

const INBOX_KEYS: &[KeyReader<Settings>] = &[
    ("settle", |reader, entry, settings| {
        let inbox = &mut settings.inbox;
        inbox.settle = reader.duration(&entry.node, Zero::Allowed).unwrap_or(inbox.settle);
    }),
    ("keep", |reader, entry, settings| read_age(reader, &entry.node, &mut settings.inbox.keep)),
];

const RETENTION_KEYS: &[KeyReader<Settings>] = &[
    ("succeeded", |reader, entry, settings| read_age(reader, &entry.node, &mut settings.retention.succeeded)),
    ("failed", |reader, entry, settings| read_age(reader, &entry.node, &mut settings.retention.failed)),
    ("max_size", |reader, entry, settings| match &entry.node.value {
        Value::Text(text) if text == "none" => settings.retention.max_size = None,
        _ => {
            let size = reader.size(&entry.node, &(STORE_BYTES_MIN..=SIZE_MAX));
            settings.retention.max_size = size.or(settings.retention.max_size);
        }
    }),
];

impl Settings {
    /// What only several keys together can get wrong.
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        let (Listen::Address(address), Some(place)) = (&self.server.listen, self.listen_place) else { return };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']));
        let is_open = host.parse::<std::net::IpAddr>().is_ok_and(|address| !address.to_canonical().is_loopback());
        if is_open && self.server.tokens.is_empty() {
            reader
                .error(place, "without tokens the server listens on loopback only")
                .hint("set `server.tokens`, for example [\"${env:FARCALL_TOKEN}\"], or listen on 127.0.0.1");
        }
    }
}

/// Puts the overrides in the place of the file's values. Of several for one setting the last is taken.
pub(super) fn apply(diagnostics: &mut Diagnostics, root: &mut Vec<Entry>, overrides: &[Override]) {
    for given in overrides {
        let entry = given.entry(diagnostics);
        let index = root.iter().position(|section| section.key.name == given.section).unwrap_or_else(|| {
            let key = Key { name: given.section.clone(), span: entry.key.span };
            root.push(Entry { key, node: Node { span: entry.node.span, value: Value::Null } });
            root.len() - 1
        });
        let section = &mut root[index].node;
        if section.value == Value::Null {
            section.value = Value::Map(Vec::new());
        }
        if let Value::Map(entries) = &mut section.value {
            entries.retain(|earlier| earlier.key.name != given.key);
            entries.push(entry);
        }
    }
}

impl Override {
    fn entry(&self, diagnostics: &mut Diagnostics) -> Entry {
        let is_secret = self.key == "tokens";
        let shown = if is_secret { "***".to_owned() } else { self.value.clone() };
        let length = shown.len();
        let source = diagnostics.add_source(self.origin.clone(), shown, References::Literal);
        let span = Span::new(source, 0..length);
        let value = if is_secret {
            let text = |token: &str| Node { span, value: Value::Text(token.trim().to_owned()) };
            Value::List(self.value.split(',').map(text).collect())
        } else {
            match tree::plain(&self.value) {
                Value::Null => Value::Text(self.value.clone()),
                value => value,
            }
        };
        Entry { key: Key { name: self.key.clone(), span }, node: Node { span, value } }
    }
}

impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Override").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The age at which something goes, or `none` for never.
fn read_age(reader: &mut Reader<'_>, node: &Node, age: &mut Option<Duration>) {
    match &node.value {
        Value::Text(text) if text == "none" => *age = None,
        _ => *age = reader.duration(node, Zero::Refused).or(*age),
    }
}

fn read_listen(reader: &mut Reader<'_>, entry: &Entry, settings: &mut Settings) {
    const HINT: &str = "write host and port, for example 127.0.0.1:8888, or `none` for the socket only";
    let Value::Text(text) = &entry.node.value else {
        reader.mismatch(&entry.node, "an address").hint(HINT);
        return;
    };
    settings.server.listen = match text.rsplit_once(':') {
        _ if text == "none" => Listen::None,
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Listen::Address(text.clone()),
        _ => {
            reader.error(entry.node.span, format!("`{text}` is no address to listen on")).hint(HINT);
            return;
        }
    };
    settings.listen_place = Some(entry.node.span);
}

/// A name or an address; one of IPv6 stands in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    }
}

/// Reads a list of tokens and resolves them now: the server compares with them.
fn read_tokens(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let Some(items) = reader.items(node) else { return Vec::new() };
    let tokens = items.iter().filter_map(|item| {
        let template = headers::template(reader, item)?;
        let token = template.resolve(reader.dir).ok()?;
        if token.expose().is_empty() {
            reader.error(item.span, "a token cannot be empty");
            return None;
        }
        Some(token.expose().to_owned())
    });
    tokens.collect()
}
