//! Forms of single values: times, lengths of time, sizes, statuses, methods, URLs.
//!
//! Patterns are written so that every dialect of regular expressions reads them alike: no classes such as `\d`, which
//! mean more than ASCII in some, and no look-ahead.

use std::borrow::Cow;

use farcall_core::hedge::EXTRA_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::quantity::duration::DURATION_MAX;
use crate::quantity::size::SIZE_MAX;

/// Characters of a token (RFC 9110, section 5.6.2), as a class.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
/// Numbers with units, the largest first. So few digits that they stay below a hundred years, and none below a nanosecond.
const DURATION: &str = "^([0-9]{1,4}(\\.[0-9]{1,6})?d)?([0-9]{1,5}(\\.[0-9]{1,6})?h)?([0-9]{1,7}(\\.[0-9]{1,6})?m)?\
     ([0-9]{1,9}(\\.[0-9]{1,6})?s)?([0-9]{1,11}(\\.[0-9]{1,6})?ms)?$";
/// Below 1 PiB in every unit.
const SIZE: &str = "^([1-9][0-9]{0,14} ?B|[1-9][0-9]{0,11} ?(kB|KB|KiB)|[1-9][0-9]{0,8} ?(MB|MiB)|\
     [1-9][0-9]{0,5} ?(GB|GiB)|[1-9][0-9]{0,2} ?(TB|TiB))$";
/// From 0 % to 100 %, with two digits behind the point at most.
pub(crate) const SHARE: &str = "^(100(\\.0{1,2})?|([0-9]|[1-9][0-9])(\\.[0-9]{1,2})?) ?%$";
/// The same without 0 %.
const POSITIVE_SHARE: &str = "^(100(\\.0{1,2})?|[1-9][0-9]?(\\.[0-9]{1,2})?|0\\.(0[1-9]|[1-9][0-9]?)) ?%$";
/// The scheme, a host without user information, and a path and query without fragment, blanks or backslashes.
const URL: &str = "^[Hh][Tt][Tt][Pp][Ss]?://[^\\u0000-\\u0020\\u007f/?#@\\\\]+([/?][^\\u0000-\\u0020\\u007f#\\\\]*)?$";
/// The longest URL, which is what the HTTP client can carry.
const URL_BYTES_MAX: usize = 65_534;

macro_rules! named {
    ($($(#[$about:meta])* $name:ident, $schema:expr;)+) => {
        $($(#[$about])*
        #[derive(Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })+
    };
}

named! {
    /// A point in time as answers write it: RFC 3339, UTC, milliseconds.
    Time, json_schema!({ "type": "string", "format": "date-time" });
    /// The id of a call as answers write it.
    CallIdText, json_schema!({
        "type": "string",
        "pattern": "^call_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "examples": ["call_01a1fed7-58bf-7e26-9a92-cc7f2a3b485e"],
    });
    /// 1 goes first.
    Priority, json_schema!({ "type": "integer", "minimum": 1, "maximum": 5 });
    /// The name of a method.
    MethodName, json_schema!({ "type": "string", "examples": ["GET"] });
}

/// RFC 3339.
pub(crate) fn date_time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// Seconds, or text with units; `0` is one.
pub(crate) fn duration() -> Value {
    let text = json!({ "type": "string", "pattern": DURATION, "minLength": 2 });
    let seconds = json!({ "type": "number", "minimum": 0, "maximum": DURATION_MAX.as_secs() });
    json!({ "anyOf": [seconds, text], "examples": [30, "1m30s"] })
}

/// The same, but longer than nothing.
pub(crate) fn positive_duration() -> Value {
    let text = json!({ "type": "string", "allOf": [{ "pattern": DURATION }, { "pattern": "[1-9]" }] });
    let seconds = json!({ "type": "number", "minimum": 0.000_000_001, "maximum": DURATION_MAX.as_secs() });
    json!({ "anyOf": [seconds, text], "examples": [30, "1m30s"] })
}

/// When an attempt that takes long is repeated beside it, or that none is.
pub(crate) fn hedge() -> Value {
    let mut length = positive_duration();
    // Of lengths in general they are too long for this one: longer than an attempt may take.
    if let Some(length) = length.as_object_mut() {
        length.remove("examples");
    }
    let percentile = json!({ "type": "string", "pattern": "^p[5-9][0-9](\\.[0-9])?$" });
    let share = json!({ "type": "string", "pattern": POSITIVE_SHARE });
    let mapping = json!({
        "type": "object",
        "properties": {
            "after": {
                "anyOf": [length, percentile],
                "description": "How long an attempt is out, or as long as this part of them takes, which is learned.",
                "examples": ["300ms", "p95"],
            },
            "extra": {
                "type": "integer", "minimum": 1, "maximum": EXTRA_MAX, "default": 1,
                "description": "Attempts that are added then, all at once.",
            },
            "budget": {
                "anyOf": [share, one_of(&["none"])],
                "description": "What part of the first attempts may be added; 10% if not given and the delay is learned, else none.",
                "examples": ["10%"],
            },
        },
        "required": ["after"],
        "additionalProperties": false,
    });
    json!({ "anyOf": [mapping, one_of(&["none"])], "examples": [{ "after": "300ms", "extra": 2 }, { "after": "p95", "budget": "5%" }] })
}

/// Bytes, or text with a unit.
pub(crate) fn size() -> Value {
    let bytes = json!({ "type": "integer", "minimum": 1, "maximum": SIZE_MAX });
    json!({ "anyOf": [bytes, { "type": "string", "pattern": SIZE }], "examples": ["16MiB"] })
}

/// A text of at most so many bytes, without control characters.
pub(crate) fn label(bytes_max: usize) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": bytes_max, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" })
}

/// What can be written as text without quotes in JSON, too.
pub(crate) fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// One of these words.
pub(crate) fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// Codes and ranges of them.
pub(crate) fn status_list(entries_min: usize, entries_max: Option<usize>) -> Value {
    let code = json!({ "type": "integer", "minimum": 100, "maximum": 599 });
    // That a range does not end before it begins is more than a pattern can say.
    let range = json!({ "type": "string", "format": "status-range", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" });
    let mut list = json!({ "type": "array", "items": { "anyOf": [code, range] }, "minItems": entries_min, "examples": [[408, "500-599"]] });
    if let Some(entries_max) = entries_max {
        list["maxItems"] = entries_max.into();
    }
    list
}

/// A name made of the characters of a token, as a pattern.
pub(crate) fn token() -> String {
    format!("^{TOKEN}+$")
}

/// The name of a method: those of the standard in upper case, and any other.
pub(crate) fn method() -> Value {
    const STANDARD: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    let any_case = |name: &str| name.chars().map(|c| format!("[{c}{}]", c.to_ascii_lowercase())).collect::<String>();
    let alike: Vec<String> = STANDARD.iter().chain(&["CONNECT"]).map(|name| any_case(name)).collect();
    let other = json!({ "pattern": token(), "not": { "pattern": format!("^({})$", alike.join("|")) } });
    json!({ "type": "string", "anyOf": [{ "enum": STANDARD }, other], "examples": ["GET"] })
}

/// An http or https URL.
pub(crate) fn url() -> Value {
    json!({ "type": "string", "format": "iri", "pattern": URL, "maxLength": URL_BYTES_MAX })
}
