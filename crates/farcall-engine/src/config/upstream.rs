//! The keys of an upstream: one table, read into a [`Layer`].
//!
//! Keys that a later version brings are in the table too and refused; what lies over what is `layer`'s matter.

use std::path::PathBuf;

use farcall_core::hop::REDIRECTS_MAX;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::layer::Layer;
use super::model::{Addresses, HeaderCaps, Success};
use super::reader::{KeyReader, Reader, Zero};
use super::tree::{Entry, Node, Value};
use super::{base_url, breaker, callback, file, headers, hedge, limits, patch, proxy, statuses};
use crate::media_type;
use crate::quantity::size::SIZE_MAX;

/// The largest file of certificate authorities, in bytes.
const CA_BYTES_MAX: u64 = 16 << 20;
/// A head of an answer is read into one buffer; below this the HTTP library has none.
const HEADER_BYTES_MIN: u64 = 8 << 10;

/// The keys of an upstream. A `defaults` has the same but `base_url`.
pub(super) const KEYS: &[KeyReader<Layer>] = &[
    ("base_url", |reader, entry, layer| layer.base_url = base_url::read(reader, &entry.node)),
    ("rate_second", |reader, entry, layer| layer.rates[0] = limits::rate(reader, &entry.node)),
    ("rate_minute", |reader, entry, layer| layer.rates[1] = limits::rate(reader, &entry.node)),
    ("rate_hour", |reader, entry, layer| layer.rates[2] = limits::rate(reader, &entry.node)),
    ("rate_day", |reader, entry, layer| layer.rates[3] = limits::rate(reader, &entry.node)),
    ("limits", |reader, entry, layer| layer.limits = limits::list(reader, &entry.node)),
    ("retry", |reader, entry, layer| layer.retry.read(reader, entry)),
    ("wait", |reader, entry, layer| layer.retry.read_wait(reader, entry)),
    ("on_unknown", |reader, entry, layer| layer.retry.read_on_unknown(reader, entry)),
    ("timeout", |reader, entry, layer| layer.timeout = reader.duration(&entry.node, Zero::Refused)),
    ("connect_timeout", |reader, entry, layer| layer.connect_timeout = reader.duration(&entry.node, Zero::Refused)),
    ("deadline", read_deadline),
    ("concurrency", |reader, entry, layer| layer.concurrency = reader.count(&entry.node)),
    ("jitter", read_jitter),
    ("smooth", |reader, entry, layer| layer.smooth = reader.boolean(&entry.node)),
    ("strict", |reader, entry, layer| layer.strict = reader.boolean(&entry.node)),
    ("success", |reader, entry, layer| layer.success = read_success(reader, &entry.node)),
    ("headers", |reader, entry, layer| layer.headers = headers::read(reader, &entry.node)),
    ("tls", |reader, entry, layer| reader.keys(&entry.node, TLS_KEYS, layer)),
    ("max_response", |reader, entry, layer| layer.max_response = reader.size(&entry.node, &(1..=SIZE_MAX))),
    ("max_headers", |reader, entry, layer| layer.max_headers = read_max_headers(reader, &entry.node)),
    ("idempotent", |reader, entry, layer| layer.idempotent = reader.boolean(&entry.node)),
    ("idempotency_header", |reader, entry, layer| {
        layer.idempotency_header = read_idempotency_header(reader, &entry.node);
    }),
    ("callback_success", |reader, entry, layer| layer.callback_success = callback::read(reader, &entry.node)),
    ("callback_fail", |reader, entry, layer| layer.callback_fail = callback::read(reader, &entry.node)),
    ("hedge", |reader, entry, layer| layer.hedge = hedge::read(reader, entry)),
    ("forwarded", |reader, entry, layer| layer.forwarded = reader.boolean(&entry.node)),
    ("breaker", |reader, entry, layer| layer.breaker = breaker::read(reader, &entry.node)),
    ("proxy", |reader, entry, layer| layer.proxy = proxy::read(reader, &entry.node)),
    ("redirects", |reader, entry, layer| layer.redirects = read_redirects(reader, &entry.node)),
    ("addresses", |reader, entry, layer| layer.addresses = read_addresses(reader, &entry.node)),
];

const TLS_KEYS: &[KeyReader<Layer>] = &[("ca", |reader, entry, layer| layer.tls_ca = read_ca(reader, &entry.node))];

const SUCCESS_KEYS: &[KeyReader<Success>] = &[
    ("statuses", |reader, entry, success| read_success_statuses(reader, &entry.node, success)),
    ("content_type", |reader, entry, success| success.content_type = read_content_type(reader, &entry.node)),
];

const MAX_HEADERS_KEYS: &[KeyReader<HeaderCaps>] = &[
    ("bytes", |reader, entry, caps| {
        let bytes = reader.size(&entry.node, &(HEADER_BYTES_MIN..=u64::from(u32::MAX)));
        caps.bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(caps.bytes);
    }),
    ("fields", |reader, entry, caps| {
        let fields = reader.integer(&entry.node, &(1..=u64::from(u16::MAX)));
        caps.fields = fields.and_then(|fields| u16::try_from(fields).ok()).unwrap_or(caps.fields);
    }),
];

/// Reads the mapping of one upstream.
pub(super) fn read(reader: &mut Reader<'_>, entry: &Entry) -> Layer {
    let mut layer = Layer::default();
    reader.keys(&entry.node, KEYS, &mut layer);
    layer.written = patch::written(&entry.node);
    layer.check(reader);
    let is_missing = match &entry.node.value {
        Value::Map(entries) => !entries.iter().any(|inner| inner.key.name == "base_url"),
        Value::Null => true,
        _ => false,
    };
    if is_missing {
        reader
            .error(entry.key.span, format!("upstream `{}` has no `base_url`", entry.key.name))
            .hint("for example `base_url: https://api.example.com`");
    }
    layer
}

/// Reads the mapping of what all upstreams have in common.
pub(super) fn read_defaults(reader: &mut Reader<'_>, entry: &Entry) -> Layer {
    let mut layer = Layer::default();
    reader.keys(&entry.node, KEYS, &mut layer);
    layer.written = patch::written(&entry.node);
    layer.check(reader);
    if let Some((_, place)) = layer.base_url.take() {
        reader.error(place, "`base_url` belongs to one upstream, not to all").hint("write it under `upstreams`");
    }
    layer
}

fn read_deadline(reader: &mut Reader<'_>, entry: &Entry, layer: &mut Layer) {
    layer.deadline = match &entry.node.value {
        Value::Text(text) if text == "none" => Some(None),
        _ => reader.duration(&entry.node, Zero::Refused).map(Some),
    };
}

fn read_jitter(reader: &mut Reader<'_>, entry: &Entry, layer: &mut Layer) {
    if matches!(&entry.node.value, Value::Text(text) if text == "full" || text == "none") {
        reader
            .error(entry.node.span, "this `jitter` is how much the network's delay varies, a length of time")
            .hint("the jitter of retries stands in `retry`: { jitter: full }");
        return;
    }
    layer.jitter = reader.duration(&entry.node, Zero::Allowed);
}

pub(super) fn read_success(reader: &mut Reader<'_>, node: &Node) -> Option<Success> {
    let mut success = Success::default();
    reader.keys(node, SUCCESS_KEYS, &mut success);
    Some(success)
}

fn read_success_statuses(reader: &mut Reader<'_>, node: &Node, success: &mut Success) {
    let Some(statuses) = statuses::read(reader, node) else { return };
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        reader.error(node.span, "with no status no call could succeed");
    }
    success.statuses = statuses;
}

fn read_content_type(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.name(node)?;
    let media_type = media_type::from_text(text);
    if media_type.is_none() {
        reader
            .error(node.span, format!("`{text}` is no media type"))
            .hint("write type and subtype without parameters, for example `application/json`");
    }
    media_type
}

fn read_max_headers(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderCaps> {
    let mut caps = HeaderCaps::default();
    reader.keys(node, MAX_HEADERS_KEYS, &mut caps);
    Some(caps)
}

fn read_idempotency_header(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if text.is_empty() {
        return Some(String::new());
    }
    headers::name(reader, text, node.span).map(|_| text.to_owned())
}

fn read_ca(reader: &mut Reader<'_>, node: &Node) -> Option<PathBuf> {
    let path = reader.dir.join(reader.name(node)?);
    let mistake = match file::read(&path, CA_BYTES_MAX) {
        Err(error) => Some(format!("`{}` cannot be read: {error}", path.display())),
        Ok(pem) => match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
            Err(error) => Some(format!("`{}` is no PEM file: {error}", path.display())),
            Ok(certificates) if certificates.is_empty() => {
                Some(format!("`{}` holds no certificate in PEM", path.display()))
            }
            Ok(_) => None,
        },
    };
    let Some(message) = mistake else { return Some(path) };
    reader.error(node.span, message).hint("paths are relative to the working directory");
    None
}

fn read_redirects(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let redirects = reader.integer(node, &(0..=u64::from(REDIRECTS_MAX)))?;
    u32::try_from(redirects).ok()
}

fn read_addresses(reader: &mut Reader<'_>, node: &Node) -> Option<Addresses> {
    match reader.text(node)? {
        "any" => Some(Addresses::Any),
        "public" => Some(Addresses::Public),
        text => {
            let message = format!("`{text}` is not `any` or `public`");
            reader.error(node.span, message);
            None
        }
    }
}
