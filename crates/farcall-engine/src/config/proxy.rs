//! The key `proxy`: a URL whose credentials may be references, or `none`.
//!
//! What stands in it is read here to find mistakes only; it is read again, and resolved, when a request is sent.

use super::diagnostic::Span;
use super::headers;
use super::reader::Reader;
use super::tree::{Node, Value};
use crate::proxy::Proxy;
use crate::secret::Template;

/// What a layer says of proxies: none, or this one.
pub(super) type ProxyLayer = Option<(Template, Span)>;

/// Reads the key and sees that it names a proxy now.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<ProxyLayer> {
    if matches!(&node.value, Value::Text(text) if text == "none") {
        return Some(None);
    }
    let template = headers::template(reader, node)?;
    // A reference that has no value was reported with its place.
    let resolved = template.resolve(reader.dir).ok()?;
    if let Err(error) = Proxy::parse(resolved.expose()) {
        reader
            .error(node.span, error.to_string())
            .hint("for example `http://user:${env:PROXY_PASSWORD}@10.0.0.1:3128`, or `none`");
        return None;
    }
    Some(Some((template, node.span)))
}
