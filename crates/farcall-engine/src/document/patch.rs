//! The body of a patch: one JSON object, taken apart with the place of each part.
//!
//! What its keys mean is the configuration's matter.

use std::ops::Range;

use super::field::Fault;
pub(crate) use super::field::whole;
use super::json::{self, Shape};
use super::{Rejection, RejectionKind};

/// More keys, or values within one, than any patch has.
const CHILDREN_MAX: usize = 1_000;

/// A value, and the bytes of the text that it takes.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    pub(crate) at: Range<usize>,
    pub(crate) value: JsonValue,
}

#[derive(Debug, Clone)]
pub(crate) enum JsonValue {
    /// A number, `true`, `false` or `null`, as written.
    Plain(String),
    Text(String),
    List(Vec<Json>),
    Map(Vec<JsonMember>),
}

/// A key with its value, and where the key begins.
#[derive(Debug, Clone)]
pub(crate) struct JsonMember {
    pub(crate) key: String,
    pub(crate) key_at: usize,
    pub(crate) json: Json,
}

/// The members of the one object that the text must be.
pub(crate) fn members(text: &str) -> Result<Vec<JsonMember>, Rejection> {
    let fault = |message: &str, at| {
        Fault { kind: RejectionKind::Syntax, message: message.to_owned(), key: None, at }.in_text(text)
    };
    let (whole, members) = json::scan(text, CHILDREN_MAX).map_err(|flaw| of_policy(Fault::from(flaw).in_text(text)))?;
    if whole.shape() != Shape::Object {
        return Err(fault("a patch is one JSON object", whole.at()));
    }
    members.into_iter().map(|member| take_apart(member, text)).collect()
}

/// What would be no valid call is no valid policy here.
fn of_policy(rejection: Rejection) -> Rejection {
    let kind = if rejection.kind == RejectionKind::Invalid { RejectionKind::InvalidPolicy } else { rejection.kind };
    Rejection { kind, ..rejection }
}

fn take_apart(member: json::Member<'_>, text: &str) -> Result<JsonMember, Rejection> {
    let json::Member { key, key_at, value } = member;
    let children = |value: &json::Value<'_>| -> Result<Vec<JsonMember>, Rejection> {
        value.children(CHILDREN_MAX).into_iter().map(|child| take_apart(child, text)).collect()
    };
    let inner = match value.shape() {
        Shape::Object => JsonValue::Map(children(&value)?),
        Shape::Array => JsonValue::List(children(&value)?.into_iter().map(|child| child.json).collect()),
        Shape::String => JsonValue::Text(value.string().map(std::borrow::Cow::into_owned).ok_or_else(|| {
            let message = "half of a surrogate pair stands here, which is no character".to_owned();
            Fault { kind: RejectionKind::InvalidPolicy, message, key: None, at: value.at() }.in_text(text)
        })?),
        Shape::Number | Shape::Boolean | Shape::Null => JsonValue::Plain(value.raw().to_owned()),
    };
    Ok(JsonMember { key: key.into_owned(), key_at, json: Json { at: value.at()..value.end(), value: inner } })
}
