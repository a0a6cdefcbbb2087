//! Reading a call document: the keys there are, and what each must be.
//!
//! Keys that a later version brings are known and refused. Values are read by `field`, URLs by `address`, what is sent
//! by `request`.

use std::num::NonZeroU32;

use bytes::Bytes;
use farcall_core::call::{Overrides, Priority};
use farcall_core::retry::RetryPolicy;

use super::field::{Fault, Field, mapping, shortened};
use super::{
    COST_MAX, Document, IDEMPOTENCY_KEY_BYTES_MAX, LABEL_BYTES_MAX, OwnCallback, Rejection, RejectionKind, Routing,
    Schedule, TAGS_MAX, When, address, callback, hedge, json, request, retry,
};

/// Far more than a call has keys.
const MEMBERS_MAX: usize = 256;

mapping! {
    /// The keys of a call.
    CallKeys {
        upstream, base_url, url, end_point, method, query, headers, body, body_base64, idempotency_key, idempotent,
        delay, not_before, deadline, timeout, retry, on_unknown, success, max_response, priority, tenant, cost, tags,
        hedge, function, args, callback,
    }
}

/// Reads a call document and checks everything about it that can be known before it is sent.
///
/// At most 128 containers may stand one within the other, the document's own object being the first. The body shares
/// the memory of `document`.
///
/// # Errors
/// The first mistake found, with its key where it has one, and its line and column (both from 1, in characters).
///
/// # Example
/// ```
/// # use farcall_engine::config::Config;
/// # use farcall_engine::document::{Routing, parse};
/// let config = Config::default();
/// let text = br#"{"base_url": "https://api.example.com/v1", "end_point": "/orders", "body": {"n": 1}}"#;
/// let call = parse(&text.as_slice().into(), &Routing::from(&config))?;
/// assert_eq!((call.method.as_str(), call.url.as_str()), ("POST", "https://api.example.com/v1/orders"));
/// # Ok::<(), farcall_engine::document::Rejection>(())
/// ```
pub fn parse(document: &Bytes, routing: &Routing<'_>) -> Result<Document, Rejection> {
    let text = match std::str::from_utf8(document) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(document, error.valid_up_to())),
    };
    read(document, text, routing).map_err(|fault| fault.in_text(text))
}

/// Checks a document of another kind as strictly: it is one JSON object, in which no key stands twice at any depth.
/// `subject` is what it should be: `an operation`.
///
/// # Errors
/// The first mistake found, with its place; of the kind `Invalid` when it is JSON all the same.
///
/// # Example
/// ```
/// # use farcall_engine::document::check_object;
/// assert!(check_object(br#"{"action": "cancel"}"#, "an operation").is_ok());
/// let twice = check_object(br#"{"action": "cancel", "action": "retry"}"#, "an operation");
/// assert_eq!(twice.map_err(|rejection| rejection.message), Err("duplicate key `action`".to_owned()));
/// ```
pub fn check_object(document: &[u8], subject: &str) -> Result<(), Rejection> {
    let text = std::str::from_utf8(document).map_err(|error| not_utf8(document, error.valid_up_to()))?;
    let (whole, _) = json::scan(text, 0).map_err(|flaw| Fault::from(flaw).in_text(text))?;
    if whole.shape() == json::Shape::Object {
        return Ok(());
    }
    let message = format!("{subject} is one JSON object");
    Err(Fault { kind: RejectionKind::Syntax, message, key: None, at: whole.at() }.in_text(text))
}

/// The callback that a document asks for, whether or not the rest of it is a call under the present configuration.
pub fn callback_of(document: &[u8], routing: &Routing<'_>) -> Option<OwnCallback> {
    let (keys, _) = call_keys(std::str::from_utf8(document).ok()?).ok()?;
    callback::read(keys.callback.as_ref()?, routing).ok()
}

/// The document with this idempotency key at its end; nothing when it has one already, or is not one JSON object.
///
/// # Example
/// ```
/// # use farcall_engine::document::with_idempotency_key;
/// let keyed = with_idempotency_key(&br#"{"url": "http://localhost"}"#.as_slice().into(), "k-1");
/// assert_eq!(keyed.as_deref(), Some(br#"{"url": "http://localhost","idempotency_key":"k-1"}"#.as_slice()));
/// assert_eq!(with_idempotency_key(&keyed.unwrap_or_default(), "k-2"), None);
/// ```
pub fn with_idempotency_key(document: &Bytes, key: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(document).ok()?;
    // Whoever reads it may know keys that we do not.
    let (whole, members) = json::scan(text, MEMBERS_MAX).ok()?;
    if whole.shape() != json::Shape::Object || members.iter().any(|member| member.key == "idempotency_key") {
        return None;
    }
    let comma = if members.is_empty() { "" } else { "," };
    let (before, after) = text.split_at(whole.end() - 1);
    let key = serde_json::Value::from(key);
    Some(format!("{before}{comma}\"idempotency_key\":{key}{after}").into())
}

fn not_utf8(document: &[u8], at: usize) -> Rejection {
    let text = String::from_utf8_lossy(&document[..at]);
    Fault { kind: RejectionKind::Syntax, message: "the document is not UTF-8".to_owned(), key: None, at }.in_text(&text)
}

fn read(document: &Bytes, text: &str, routing: &Routing<'_>) -> Result<Document, Fault> {
    let (keys, end) = call_keys(text)?;
    let refused = [&keys.function, &keys.args];
    if let Some(field) = refused.into_iter().flatten().next() {
        return Err(field.not_available_yet());
    }
    let address = address::resolve(&keys, routing, end)?;
    let body = request::body(&keys, document)?;
    Ok(Document {
        method: request::method(keys.method.as_ref(), &body)?,
        headers: request::headers(keys.headers.as_ref())?,
        body,
        schedule: schedule(&keys)?,
        priority: priority(&keys)?,
        tenant: optional(&keys.tenant, |field| field.label(LABEL_BYTES_MAX))?,
        cost: cost(&keys)?,
        tags: tags(&keys)?,
        idempotency_key: optional(&keys.idempotency_key, |field| field.label(IDEMPOTENCY_KEY_BYTES_MAX))?,
        overrides: overrides(&keys, &address.settings.policy.retry)?,
        success: optional(&keys.success, retry::success)?.unwrap_or_default(),
        max_response: optional(&keys.max_response, Field::size)?,
        callback: optional(&keys.callback, |field| callback::read(field, routing))?.map(Box::new),
        trace: None,
        upstream: address.upstream,
        url: address.url,
    })
}

/// The fields of the one object that the text must be, and where that object ends.
fn call_keys(text: &str) -> Result<(CallKeys<'_>, usize), Fault> {
    let syntax = |message: &str, at| Fault { kind: RejectionKind::Syntax, message: message.to_owned(), key: None, at };
    if text.starts_with('\u{feff}') {
        return Err(syntax("the document begins with a byte order mark, which JSON does not allow", 0));
    }
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Err(syntax("the document is empty", 0));
    }
    // One more than there are keys holds one that is none.
    let (whole, members) = json::scan(text, CallKeys::KEYS.len() + 1).map_err(Fault::from)?;
    if whole.shape() != json::Shape::Object {
        return Err(syntax("a call is one JSON object", whole.at()));
    }
    let mut keys = CallKeys::default();
    for member in members {
        keys.put(Field::new(None, member)).map_err(|field| field.unknown(CallKeys::KEYS))?;
    }
    Ok((keys, whole.end() - 1))
}

fn optional<'f, 'a, T>(
    field: &'f Option<Field<'a>>,
    read: impl FnOnce(&'f Field<'a>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    field.as_ref().map(read).transpose()
}

fn schedule(keys: &CallKeys<'_>) -> Result<Schedule, Fault> {
    let not_before = match (&keys.delay, &keys.not_before) {
        (Some(_), Some(not_before)) => return Err(not_before.misplaced("excludes `delay`")),
        (Some(delay), None) => Some(When::After(delay.duration()?)),
        (None, Some(not_before)) => Some(When::At(not_before.time()?)),
        (None, None) => None,
    };
    Ok(Schedule { not_before, deadline: optional(&keys.deadline, Field::when)? })
}

fn priority(keys: &CallKeys<'_>) -> Result<Priority, Fault> {
    let level = optional(&keys.priority, |field| field.whole(1..=5))?;
    Ok(level.and_then(|level| Priority::new(u8::try_from(level).ok()?)).unwrap_or_default())
}

fn cost(keys: &CallKeys<'_>) -> Result<NonZeroU32, Fault> {
    let cost = optional(&keys.cost, |field| field.whole(1..=COST_MAX))?;
    Ok(cost.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

fn tags(keys: &CallKeys<'_>) -> Result<Vec<String>, Fault> {
    let Some(field) = &keys.tags else { return Ok(Vec::new()) };
    let elements = field.elements()?;
    if elements.len() > TAGS_MAX {
        return Err(field.wrong(format_args!("must be at most {TAGS_MAX} tags")));
    }
    if let Some(element) = elements.iter().find(|element| element.value.shape() != json::Shape::String) {
        return Err(element.wrong("must be an array of strings"));
    }
    elements.iter().map(|element| element.label(LABEL_BYTES_MAX)).collect()
}

fn overrides(keys: &CallKeys<'_>, policy: &RetryPolicy) -> Result<Overrides, Fault> {
    let retry = optional(&keys.retry, retry::retry)?;
    Ok(Overrides {
        success_statuses: None,
        timeout: optional(&keys.timeout, Field::positive_duration)?,
        on_unknown: retry::either_on_unknown(keys.on_unknown.as_ref(), retry.as_ref())?,
        retry: retry.map(|own| own.over(policy)),
        idempotent: optional(&keys.idempotent, Field::boolean)?,
        hedge: optional(&keys.hedge, hedge::hedging)?,
    })
}

impl Fault {
    pub(super) fn in_text(self, text: &str) -> Rejection {
        let before = &text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |number: usize| u32::try_from(number).ok();
        Rejection {
            kind: self.kind,
            message: self.message,
            key: self.key,
            line: count(before.bytes().filter(|&byte| byte == b'\n').count() + 1),
            column: count(before[line_start..].chars().count() + 1),
        }
    }
}

impl From<json::Flaw> for Fault {
    fn from(flaw: json::Flaw) -> Self {
        let (kind, message, key) = match flaw.problem {
            json::Problem::Syntax(message) => (RejectionKind::Syntax, message.to_owned(), None),
            json::Problem::TooDeep => {
                (RejectionKind::Invalid, format!("nesting deeper than {}", json::NESTING_MAX), None)
            }
            json::Problem::DuplicateKey(key) => {
                let shown = shortened(&key).to_owned();
                (RejectionKind::Invalid, format!("duplicate key `{shown}`"), Some(shown))
            }
        };
        Self { kind, message, key, at: flaw.at }
    }
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
