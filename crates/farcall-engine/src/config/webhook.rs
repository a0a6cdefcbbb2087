//! Callbacks to a URL: `{url, secret}`. The secret is a reference or text; several may stand in a list.
//!
//! That a secret has the form of Standard Webhooks is seen here, at its place; it is resolved anew for every request.

use url::Url;

use super::headers;
use super::model::Webhook;
use super::reader::{KeyReader, Reader};
use super::tree::{Entry, Node, Value};
use crate::callback::SigningKey;
use crate::one_host::with_one_host;
use crate::secret::Template;

/// Secrets of one receiver at a time: the one in use, and those being replaced.
const SECRETS_MAX: usize = 4;

#[derive(Debug, Default)]
struct Keys {
    url: Option<Url>,
    secrets: Vec<Template>,
}

const KEYS: &[KeyReader<Keys>] = &[
    ("url", |reader, entry, keys| keys.url = read_url(reader, &entry.node)),
    ("secret", |reader, entry, keys| keys.secrets = read_secrets(reader, &entry.node)),
    ("function", refuse_function),
];

/// Reads the mapping of a callback.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Webhook> {
    let mut keys = Keys::default();
    reader.keys(node, KEYS, &mut keys);
    let has_key =
        |name| matches!(&node.value, Value::Map(entries) if entries.iter().any(|entry| entry.key.name == name));
    if !has_key("url") && !has_key("function") {
        reader
            .error(node.span, "a callback that is no command line has a `url`")
            .hint("for example `{ url: https://example.com/hook }`");
    }
    let Keys { url, secrets } = keys;
    url.map(|url| Webhook { url, secrets })
}

fn refuse_function(reader: &mut Reader<'_>, entry: &Entry, _: &mut Keys) {
    reader
        .not_available_yet(entry.key.span, "a callback to a function")
        .hint("use a command line or a `url` until then");
}

fn read_url(reader: &mut Reader<'_>, node: &Node) -> Option<Url> {
    let text = reader.name(node)?;
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            reader.error(node.span, format!("no valid URL: {error}"));
            return None;
        }
    };
    let Some(url) = with_one_host(url) else {
        reader.error(node.span, "a callback's URL names a host");
        return None;
    };
    let message = if !matches!(url.scheme(), "http" | "https") {
        "a callback's URL begins with http:// or https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "a callback's URL holds no user or password"
    } else if url.fragment().is_some() {
        "a callback's URL has no fragment, which is never sent"
    } else {
        return Some(url);
    };
    reader.error(node.span, message);
    None
}

fn read_secrets(reader: &mut Reader<'_>, node: &Node) -> Vec<Template> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() || nodes.len() > SECRETS_MAX {
        reader.error(node.span, format!("a list of secrets has 1 to {SECRETS_MAX}"));
        return Vec::new();
    }
    nodes.iter().filter_map(|node| read_secret(reader, node)).collect()
}

fn read_secret(reader: &mut Reader<'_>, node: &Node) -> Option<Template> {
    let template = headers::template(reader, node)?;
    let secret = template.resolve(reader.dir).ok()?;
    let Err(error) = SigningKey::from_text(secret.expose()) else { return Some(template) };
    reader
        .error(node.span, error.to_string())
        .hint("make one with `echo whsec_$(head -c 32 /dev/urandom | base64)`, and give it to the receiver");
    None
}
