//! The JSON Schema of a patch: the keys of a policy that can be set while farcall runs.
//!
//! Values are read by the tables of the configuration; tests compare the two. Keys of later versions are not in it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::limits::WINDOWS_MAX;
use crate::schema::{SHARE, duration, hedge, one_of, positive_duration, status_list, token};

/// A number, a slash and a window, which is a length of time or a number of seconds.
const LIMIT: &str =
    "^[1-9][0-9]{0,8}/([0-9]{1,9}|([0-9]{1,4}d)?([0-9]{1,5}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,11}ms)?)$";

/// The form of a patch. It holds nothing: what a patch says is [`super::PatchDocument`].
#[derive(Debug)]
pub struct PatchSchema;

impl JsonSchema for PatchSchema {
    fn schema_name() -> Cow<'static, str> {
        "PolicyPatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(patch()).expect("it is an object")
    }
}

fn patch() -> Value {
    let both = |key: &str| {
        json!({ "not": {
            "required": [key, "retry"],
            "properties": { key: { "not": { "type": "null" } }, "retry": { "type": "object", "required": [key] } },
        } })
    };
    let other_delay = json!({ "not": {
        "required": ["wait", "retry"],
        "properties": {
            "wait": { "not": { "type": "null" } },
            "retry": { "type": "object", "anyOf": [{ "required": ["base"] }, { "required": ["factor"] }, { "required": ["backoff_factor"] }] },
        },
    } });
    json!({
        "title": "A patch of a policy",
        "description": "Keys of an upstream's policy, each as in the configuration. Null takes the patch of that key back.",
        "type": "object",
        "properties": properties(),
        "additionalProperties": false,
        "allOf": [both("wait"), both("on_unknown"), other_delay],
        "examples": [{ "rate_second": 5, "retry": { "max": 2 } }, { "rate_second": null }],
    })
}

fn properties() -> Value {
    let rate = || json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
    let limit = json!({ "type": "string", "allOf": [{ "pattern": LIMIT }, { "pattern": "/.*[1-9]" }] });
    let deadline = json!({ "anyOf": [positive_duration(), one_of(&["none"])] });
    let switch = || json!({ "type": "boolean" });
    json!({
        "limits": patched(json!({ "type": "array", "items": limit, "maxItems": WINDOWS_MAX, "examples": [["10/1s", "400/1h"]] }), "At most so many attempts in any window of this length."),
        "rate_second": patched(rate(), "At most so many in any second."),
        "rate_minute": patched(rate(), "At most so many in any minute."),
        "rate_hour": patched(rate(), "At most so many in any hour."),
        "rate_day": patched(rate(), "At most so many in any day."),
        "concurrency": patched(rate(), "Attempts that may be out at a time."),
        "smooth": patched(switch(), "Spread attempts evenly over the windows."),
        "strict": patched(switch(), "Count an attempt until it was answered, in windows of up to a minute too."),
        "jitter": patched(duration(), "How much the network's delay varies."),
        "retry": patched(retry(), "A number of retries, or how to retry."),
        "wait": patched(duration(), "The same wait before each retry."),
        "on_unknown": patched(one_of(&["retry", "stop"]), "What follows an attempt of which bytes were sent and no answer came."),
        "hedge": patched(hedge(), "When an attempt that takes long is repeated beside it."),
        "breaker": patched(breaker(), "When the upstream is left alone because it fails, and for how long."),
        "timeout": patched(positive_duration(), "Of one attempt."),
        "deadline": patched(deadline, "Of a whole call that has none of its own."),
        "success": patched(success(), "What counts as success."),
    })
}

fn patched(schema: Value, description: &str) -> Value {
    let forms = Value::Array(vec![schema, json!({ "type": "null" })]);
    json!({ "anyOf": forms, "description": description })
}

fn retry() -> Value {
    let count = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    let factor = |least: u8| json!({ "type": "number", "minimum": least, "maximum": i32::MAX });
    let methods = json!({ "type": "array", "items": { "type": "string", "pattern": token() } });
    let mapping = json!({
        "type": "object",
        "properties": {
            "max": count,
            "wait": duration(),
            "base": duration(),
            "factor": factor(1),
            "backoff_factor": factor(0),
            "max_delay": duration(),
            "jitter": one_of(&["full", "none"]),
            "statuses": status_list(0, None),
            "methods": { "anyOf": [one_of(&["all"]), methods] },
            "requeue": count,
            "throttle_max": count,
            "retry_after_max": duration(),
            "on_unknown": one_of(&["retry", "stop"]),
        },
        "additionalProperties": false,
        "allOf": [
            { "not": { "required": ["wait", "backoff_factor"] } },
            { "not": { "required": ["wait", "base"] } },
            { "not": { "required": ["wait", "factor"] } },
            { "not": { "required": ["backoff_factor", "base"] } },
            { "not": { "required": ["backoff_factor", "factor"] } },
        ],
    });
    json!({ "anyOf": [count, mapping], "examples": [3, { "max": 5, "wait": "2s" }] })
}

fn breaker() -> Value {
    let mapping = json!({
        "type": "object",
        "properties": {
            "failures": { "type": "string", "allOf": [{ "pattern": SHARE }, { "pattern": "[1-9]" }], "examples": ["50%"] },
            "calls": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            "window": positive_duration(),
            "open": positive_duration(),
        },
        "additionalProperties": false,
    });
    let examples = json!([{ "failures": "50%", "calls": 10, "window": "30s", "open": "30s" }, "off"]);
    json!({ "anyOf": [mapping, one_of(&["off"])], "examples": examples })
}

fn success() -> Value {
    let media_type = format!("{}/{}", token().trim_end_matches('$'), token().trim_start_matches('^'));
    json!({
        "type": "object",
        "properties": { "statuses": status_list(1, None), "content_type": { "type": "string", "pattern": media_type } },
        "additionalProperties": false,
        "examples": [{ "statuses": ["200-299"] }],
    })
}

#[cfg(test)]
mod tests;
