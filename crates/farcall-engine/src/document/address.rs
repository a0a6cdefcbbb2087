//! Where a call goes: its upstream and its URL, so that no call can carry an upstream's secrets elsewhere.
//!
//! The rules are the contract's, "The upstream" and "The URL". The url crate forgives much (it drops tabs and line
//! breaks, takes backslashes for slashes, adds missing slashes after the scheme); what it would forgive is refused here
//! before it sees the text, so that a URL means the same to everyone who reads it.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::field::{Fault, Field};
use super::json::Shape;
use super::parse::CallKeys;
use super::{RejectionKind, Routing, UpstreamRef};
use crate::config::Upstream;
use crate::config::base_url::lies_below;
use crate::nearest::nearest;
use crate::one_host::with_one_host;

/// The longest URL, which is what the HTTP client can carry.
const URL_BYTES_MAX: usize = 65_534;
/// Everything but the unreserved characters of RFC 3986.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a call goes.
pub(super) struct Address<'c> {
    pub(super) upstream: UpstreamRef,
    /// Its configuration.
    pub(super) settings: &'c Upstream,
    pub(super) url: Url,
}

/// Finds the upstream and builds the URL.
pub(super) fn resolve<'c>(keys: &CallKeys<'_>, routing: &Routing<'c>, end: usize) -> Result<Address<'c>, Fault> {
    if let (Some(url), Some(_)) = (&keys.url, keys.base_url.as_ref().or(keys.end_point.as_ref())) {
        return Err(url.misplaced("excludes `base_url` and `end_point`"));
    }
    let named = keys.upstream.as_ref().map(|field| named(field, routing)).transpose()?;
    let given = keys.url.as_ref().or(keys.base_url.as_ref());
    let (base, base_text) = match (given, named) {
        (Some(field), _) => base_given(field)?,
        (None, Some((_, upstream))) => base_of(upstream),
        (None, None) => return Err(missing(keys, end)),
    };
    if let (Some(field), Some((name, upstream))) = (given, named)
        && !upstream.base_url.as_ref().is_some_and(|own| lies_below(own, &base))
    {
        return Err(field.wrong(format_args!("does not lie at or below the base_url of upstream \"{name}\"")));
    }
    let (upstream, settings) = match named.or_else(|| belongs(&base, routing)) {
        Some((name, upstream)) => (UpstreamRef::Declared(name.to_owned()), upstream),
        None => (UpstreamRef::Undeclared(base.origin().ascii_serialization()), routing.undeclared),
    };
    let mut url = match &keys.end_point {
        Some(end_point) => join(&base, &base_text, end_point)?,
        None => base,
    };
    if let Some(query) = &keys.query {
        append_query(&mut url, query)?;
    }
    if url.as_str().len() > URL_BYTES_MAX {
        let field = keys.query.as_ref().or(keys.end_point.as_ref()).or(given);
        let message = format!("the URL is longer than {URL_BYTES_MAX} bytes");
        let key = field.map(Field::path);
        return Err(Fault {
            kind: RejectionKind::Invalid,
            message,
            key,
            at: field.map_or(end, |field| field.value.at()),
        });
    }
    Ok(Address { upstream, settings, url })
}

/// A URL that stands by itself, and the upstream it belongs to.
pub(super) fn alone(field: &Field<'_>, routing: &Routing<'_>) -> Result<(UpstreamRef, Url), Fault> {
    let (url, _) = base_given(field)?;
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(field.wrong(format_args!("is longer than {URL_BYTES_MAX} bytes")));
    }
    let upstream = match belongs(&url, routing) {
        Some((name, _)) => UpstreamRef::Declared(name.to_owned()),
        None => UpstreamRef::Undeclared(url.origin().ascii_serialization()),
    };
    Ok((upstream, url))
}

fn named<'c>(field: &Field<'_>, routing: &Routing<'c>) -> Result<(&'c str, &'c Upstream), Fault> {
    let name = field.string()?;
    if let Some((name, upstream)) = routing.upstreams.get_named(name.as_ref()) {
        return Ok((name, upstream));
    }
    let hint = match nearest(&name, routing.upstreams.names()) {
        Some(near) => format!("; is \"{near}\" meant?"),
        None => String::new(),
    };
    Err(field.wrong(format_args!("names no configured upstream{hint}")))
}

fn belongs<'c>(url: &Url, routing: &Routing<'c>) -> Option<(&'c str, &'c Upstream)> {
    routing.upstreams.find(url).map(|(name, upstream)| (name, &**upstream))
}

fn base_given<'a>(field: &Field<'a>) -> Result<(Url, Cow<'a, str>), Fault> {
    let text = field.string()?;
    check_text(field, &text)?;
    Ok((parse(field, &text)?, text))
}

fn base_of(upstream: &Upstream) -> (Url, Cow<'_, str>) {
    let base = upstream.base_url.as_ref().expect("a declared upstream has a base_url");
    (base.clone(), Cow::Borrowed(base.as_str()))
}

fn missing(keys: &CallKeys<'_>, end: usize) -> Fault {
    match &keys.end_point {
        Some(end_point) => end_point.misplaced("needs a `base_url` or an `upstream` beside it"),
        None => Fault {
            kind: RejectionKind::Invalid,
            message: "a call needs `url`, `base_url` or `upstream`".to_owned(),
            key: Some("url".to_owned()),
            at: end,
        },
    }
}

/// base_url without trailing slashes, one `/`, end_point without leading slashes.
fn join(base: &Url, base_text: &str, end_point: &Field<'_>) -> Result<Url, Fault> {
    let text = end_point.string()?;
    if text.is_empty() {
        return Ok(base.clone());
    }
    check_text(end_point, &text)?;
    if base.query().is_some() {
        return Err(end_point.misplaced("cannot follow a base_url that has a query"));
    }
    let joined = format!("{}/{}", base_text.trim_end_matches('/'), text.trim_start_matches('/'));
    let url = parse(end_point, &joined)?;
    if !lies_below(base, &url) {
        return Err(end_point.wrong("leads out of base_url"));
    }
    Ok(url)
}

/// Refuses what the url crate would silently change.
fn check_text(field: &Field<'_>, text: &str) -> Result<(), Fault> {
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(field.wrong("must not hold control characters, such as tabs or line breaks"));
    }
    if text.contains('\\') {
        return Err(field.wrong("must not hold backslashes"));
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(field.wrong("must not begin or end with a space"));
    }
    if text.contains('#') {
        return Err(field.wrong("must not hold a fragment (`#`), which is never sent"));
    }
    Ok(())
}

fn parse(field: &Field<'_>, text: &str) -> Result<Url, Fault> {
    let not_http = || field.wrong("must begin with http:// or https://");
    let (scheme, rest) = text.split_once("://").ok_or_else(not_http)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(not_http());
    }
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    if authority.is_empty() {
        return Err(field.wrong("names no host"));
    }
    if authority.contains('@') {
        return Err(field.wrong("must not hold user information before the host"));
    }
    let url = Url::parse(text).map_err(|error| field.wrong(format_args!("is no URL: {error}")))?;
    let url = with_one_host(url).ok_or_else(|| field.wrong("names no host"))?;
    if hides_dot_segments(url.path()) {
        return Err(field.wrong("must not hide dot segments behind encoded slashes"));
    }
    Ok(url)
}

/// Whether a path has dot segments for a server that decodes `%2f` and `%5c` before it resolves them.
pub(crate) fn hides_dot_segments(path: &str) -> bool {
    if !path.contains('%') {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    if !lower.contains("%2f") && !lower.contains("%5c") {
        return false;
    }
    let decoded = lower.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    decoded.split('/').any(|segment| segment == "." || segment == "..")
}

fn append_query(url: &mut Url, query: &Field<'_>) -> Result<(), Fault> {
    let mut text = url.query().unwrap_or_default().to_owned();
    for field in query.members("query")? {
        if field.value.shape() == Shape::Array {
            for element in field.elements()? {
                append_pair(&mut text, &field.key, &element.scalar()?);
            }
        } else {
            append_pair(&mut text, &field.key, &field.scalar()?);
        }
    }
    if !text.is_empty() {
        url.set_query(Some(&text));
    }
    Ok(())
}

fn append_pair(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('&') {
        text.push('&');
    }
    text.extend(utf8_percent_encode(name, QUERY));
    text.push('=');
    text.extend(utf8_percent_encode(value, QUERY));
}

#[cfg(test)]
mod tests;
