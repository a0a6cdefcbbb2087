//! What is sent: method, headers and body of a call document.
//!
//! Refused is what belongs to the connection rather than to the request, and what could not be sent unharmed.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::Body;
use super::field::{Fault, Field};
use super::json::Shape;
use super::parse::CallKeys;
use crate::connection_headers;

/// The most headers a call may have.
pub(super) const HEADERS_MAX: usize = 100;
/// The most bytes all of its headers may have together.
const HEADER_BYTES_MAX: usize = 64 << 10;
const STANDARD_METHODS: [&str; 9] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH", "CONNECT"];
/// The standard alphabet; padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The method given, or POST with a body and GET without.
pub(super) fn method(field: Option<&Field<'_>>, body: &Body) -> Result<Method, Fault> {
    let has_body = *body != Body::None;
    let Some(field) = field else { return Ok(if has_body { Method::POST } else { Method::GET }) };
    let name = field.string()?;
    if name == "CONNECT" {
        return Err(field.wrong("must not be CONNECT, which asks for a tunnel"));
    }
    if name == "TRACE" && has_body {
        return Err(field.wrong("must not be TRACE when there is a body (RFC 9110, section 9.3.8)"));
    }
    let standard = STANDARD_METHODS.iter().find(|standard| standard.eq_ignore_ascii_case(&name));
    if let Some(standard) = standard.filter(|standard| **standard != name) {
        return Err(field.wrong(format_args!("must be a method's name as HTTP writes it; is \"{standard}\" meant?")));
    }
    Method::from_bytes(name.as_bytes()).map_err(|_| field.wrong("must be a method's name, such as \"GET\""))
}

/// The call's own headers.
pub(super) fn headers(field: Option<&Field<'_>>) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let Some(field) = field else { return Ok(Vec::new()) };
    let members = field.members("headers")?;
    if members.len() > HEADERS_MAX {
        return Err(field.wrong(format_args!("must be at most {HEADERS_MAX}")));
    }
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(members.len());
    let mut bytes = 0;
    for member in &members {
        let (name, value) = header(member)?;
        if headers.iter().any(|(other, _)| *other == name) {
            return Err(member.misplaced("is given twice: names of headers do not differ by case"));
        }
        bytes += name.as_str().len() + value.len();
        headers.push((name, value));
    }
    if bytes > HEADER_BYTES_MAX {
        return Err(field.wrong(format_args!("must be at most {HEADER_BYTES_MAX} bytes together")));
    }
    Ok(headers)
}

/// The body as it is sent. `document` is what the keys were read from.
pub(super) fn body(keys: &CallKeys<'_>, document: &Bytes) -> Result<Body, Fault> {
    match (&keys.body, &keys.body_base64) {
        (Some(_), Some(base64)) => Err(base64.misplaced("excludes `body`")),
        (None, None) => Ok(Body::None),
        (Some(field), None) => match field.value.shape() {
            Shape::Null => Ok(Body::None),
            Shape::String => Ok(Body::Raw(Bytes::from(field.string()?.into_owned()))),
            Shape::Object | Shape::Array | Shape::Number | Shape::Boolean => {
                Ok(Body::Json(document.slice(field.value.at()..field.value.end())))
            }
        },
        (None, Some(field)) => match field.value.shape() {
            Shape::Null => Ok(Body::None),
            _ => {
                let bytes = BASE64.decode(field.string()?.as_bytes());
                bytes
                    .map(|bytes| Body::Raw(bytes.into()))
                    .map_err(|error| field.wrong(format_args!("must be base64: {error}")))
            }
        },
    }
}

fn header(field: &Field<'_>) -> Result<(HeaderName, HeaderValue), Fault> {
    let name = HeaderName::from_bytes(field.key.as_bytes()).map_err(|_| field.misplaced("is no name of a header"))?;
    if connection_headers::contain(&name) {
        return Err(field.misplaced("cannot be set by a call: it belongs to the connection"));
    }
    let text = field.scalar()?;
    if text.contains(['\r', '\n', '\0']) {
        return Err(field.wrong("must not hold CR, LF or NUL"));
    }
    let value =
        HeaderValue::from_bytes(text.as_bytes()).map_err(|_| field.wrong("must not hold control characters"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests;
