//! The JSON Schema of a call document.
//!
//! What a document must be is decided by `parse`; this says the same for people and programs that write documents, and
//! tests compare the two. Some rules are beyond a schema: that URL and upstream belong together, that a range of
//! statuses does not end before it begins, how many bytes characters have. Keys of later versions are not in it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::request::HEADERS_MAX;
use super::retry::{COUNT_MAX, LIST_MAX};
use super::{COST_MAX, IDEMPOTENCY_KEY_BYTES_MAX, LABEL_BYTES_MAX, TAGS_MAX};
use crate::schema::{
    date_time, duration, hedge, label, method, one_of, positive_duration, scalar, size, status_list, token, url,
};

/// Headers that no call may set, in any case of letters.
const CONNECTION_HEADERS: &str = "^([Cc][Oo][Nn][Nn][Ee][Cc][Tt][Ii][Oo][Nn]|[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh]|\
     [Hh][Oo][Ss][Tt]|[Kk][Ee][Ee][Pp]-[Aa][Ll][Ii][Vv][Ee]|[Tt][Ee]|[Tt][Rr][Aa][Ii][Ll][Ee][Rr]|\
     [Tt][Rr][Aa][Nn][Ss][Ff][Ee][Rr]-[Ee][Nn][Cc][Oo][Dd][Ii][Nn][Gg]|[Uu][Pp][Gg][Rr][Aa][Dd][Ee]|\
     [Pp][Rr][Oo][Xx][Yy]-.*)$";
/// Padding may be left out; the bits that no byte is made of are 0.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]={0,2}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?$";
/// The base64 of 24 to 64 bytes.
const SECRET: &str = "^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{4}|[A-Za-z0-9+/][AQgw]={0,2}|\
     [A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?$";

/// The form of a call document. It holds nothing: what a document says is [`super::Document`].
#[derive(Debug)]
pub struct DocumentSchema;

impl JsonSchema for DocumentSchema {
    fn schema_name() -> Cow<'static, str> {
        "CallDocument".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(call()).expect("it is an object")
    }
}

fn call() -> Value {
    json!({
        "title": "A call",
        "description": "What to send, where, when, and what counts as success. One of `url`, `base_url` and `upstream` says where.",
        "type": "object",
        "properties": properties(),
        "additionalProperties": false,
        "oneOf": [
            { "title": "By its whole URL", "required": ["url"], "properties": { "base_url": false, "end_point": false } },
            { "title": "By base URL and end point", "required": ["base_url"], "properties": { "url": false } },
            { "title": "At a configured upstream", "required": ["upstream"], "properties": { "url": false, "base_url": false } },
        ],
        "allOf": [
            never_both("body", "body_base64"),
            never_both("delay", "not_before"),
            { "not": { "required": ["on_unknown", "retry"], "properties": { "retry": { "type": "object", "required": ["on_unknown"] } } } },
            { "not": { "required": ["method", "body"], "properties": { "method": { "const": "TRACE" }, "body": { "not": { "type": "null" } } } } },
            { "not": { "required": ["method", "body_base64"], "properties": { "method": { "const": "TRACE" }, "body_base64": { "type": "string" } } } },
        ],
        "examples": [
            { "base_url": "https://korakot.myshopify.com/admin", "end_point": "/orders", "headers": { "X-API": "111222" }, "body": { "order_id": 123 } },
            { "url": "https://api.example.com/v1/orders/123", "tags": ["nightly"], "retry": 3, "deadline": "1h" },
        ],
    })
}

fn properties() -> Value {
    json!({
        "upstream": about(json!({ "type": "string" }), "The name of a configured upstream; its `base_url` is the call's, or the one given lies below it."),
        "base_url": about(url(), "The first part of the URL."),
        "end_point": about(end_point(), "The second part of the URL, with or without a query."),
        "url": about(url(), "The whole URL, instead of `base_url` and `end_point`."),
        "method": about(method(), "POST with a body and GET without, if not given."),
        "query": about(query(), "Parameters that are appended to the URL, encoded."),
        "headers": about(headers(), "A header replaces the upstream's of the same name. `Host`, `Content-Length` and those of the connection cannot be set."),
        "body": { "description": "JSON is sent byte for byte as written, a string as it is, null is no body.", "examples": [{ "order_id": 123 }] },
        "body_base64": about(json!({ "type": ["string", "null"], "pattern": BASE64, "examples": ["AP8="] }), "Bytes to send as the body, in base64."),
        "idempotency_key": about(label(IDEMPOTENCY_KEY_BYTES_MAX), "The same content under the same key is the same call, until 72 hours after its end. At most 255 bytes."),
        "idempotent": about(json!({ "type": "boolean" }), "Whether the other side recognises repeated requests."),
        "delay": about(duration(), "Not before so long from now: seconds, or text with units."),
        "not_before": about(date_time(), "Not before this time."),
        "deadline": about(json!({ "anyOf": [date_time(), positive_duration()], "examples": ["1h"] }), "A time, or so long from acceptance; then the call ends `expired`."),
        "timeout": about(positive_duration(), "Of one attempt."),
        "retry": about(retry(), "A number of retries, or how to retry; what is left out is the upstream's."),
        "hedge": about(hedge(), "When an attempt that takes long is repeated beside it; replaces its upstream's. Only safe methods and calls that are `idempotent` are hedged."),
        "on_unknown": about(on_unknown(), "What follows an attempt of which bytes were sent and no answer came."),
        "success": about(success(), "What counts as success."),
        "max_response": about(size(), "The largest decoded answer body."),
        "priority": about(json!({ "type": "integer", "minimum": 1, "maximum": 5, "default": 3 }), "1 goes first."),
        "tenant": about(label(LABEL_BYTES_MAX), "Tenants of one priority take turns. At most 128 bytes."),
        "cost": about(json!({ "type": "integer", "minimum": 1, "maximum": COST_MAX, "default": 1 }), "Slots of every window that one attempt takes."),
        "tags": about(json!({ "type": "array", "items": label(LABEL_BYTES_MAX), "maxItems": TAGS_MAX, "examples": [["nightly"]] }), "Words to find it by."),
        "callback": about(callback(), "Where its outcome is sent, at whichever end."),
    })
}

fn about(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

fn never_both(one: &str, other: &str) -> Value {
    json!({ "not": { "required": [one, other] } })
}

fn end_point() -> Value {
    let inner = "[^\\u0000-\\u001f\\u007f#\\\\]";
    let outer = "[^\\u0000-\\u0020\\u007f#\\\\]";
    json!({ "type": "string", "pattern": format!("^({outer}({inner}*{outer})?)?$"), "examples": ["/orders?page=2"] })
}

fn query() -> Value {
    let list = json!({ "type": "array", "items": scalar() });
    json!({ "type": "object", "additionalProperties": { "anyOf": [scalar(), list] }, "examples": [{ "page": 2, "tag": ["a", "b"] }] })
}

fn headers() -> Value {
    let value = json!({ "type": "string", "pattern": "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$" });
    json!({
        "type": "object",
        "propertyNames": { "pattern": token(), "not": { "pattern": CONNECTION_HEADERS } },
        "additionalProperties": { "anyOf": [value, { "type": ["number", "boolean"] }] },
        "maxProperties": HEADERS_MAX,
        "examples": [{ "X-API": "111222" }],
    })
}

fn on_unknown() -> Value {
    one_of(&["retry", "stop"])
}

fn retry() -> Value {
    let count = json!({ "type": "integer", "minimum": 0, "maximum": COUNT_MAX });
    let factor = json!({ "type": "number", "exclusiveMinimum": 0 });
    let name = json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$" });
    let names = json!({ "type": "array", "items": name, "minItems": 1, "maxItems": LIST_MAX });
    let mapping = json!({
        "type": "object",
        "properties": {
            "max": about(count.clone(), "Retries at most."),
            "wait": about(duration(), "The same wait before each."),
            "base": about(positive_duration(), "The wait before the first; each further one is `factor` times as long."),
            "factor": factor,
            "backoff_factor": about(factor, "f * 2^(n-2) seconds before retry n."),
            "max_delay": about(positive_duration(), "No wait is longer."),
            "jitter": one_of(&["full", "none"]),
            "statuses": about(status_list(1, Some(LIST_MAX)), "Answers that are retried."),
            "methods": { "anyOf": [one_of(&["all"]), names], "description": "Methods that are retried.", "examples": [["GET", "PUT"]] },
            "requeue": about(count.clone(), "How often a call whose retries are used up goes to the back of the queue."),
            "throttle_max": about(count.clone(), "How often it waits for a Retry-After."),
            "retry_after_max": about(duration(), "The longest Retry-After that is waited for."),
            "on_unknown": on_unknown(),
        },
        "additionalProperties": false,
        "allOf": [
            never_both("wait", "backoff_factor"),
            never_both("wait", "base"),
            never_both("wait", "factor"),
            never_both("backoff_factor", "base"),
            never_both("backoff_factor", "factor"),
        ],
    });
    json!({ "anyOf": [count, mapping], "examples": [3, { "max": 5, "base": "1s", "factor": 2 }] })
}

fn success() -> Value {
    let media_type = format!("{}/{}", token().trim_end_matches('$'), token().trim_start_matches('^'));
    json!({
        "type": "object",
        "properties": {
            "statuses": status_list(1, Some(LIST_MAX)),
            "content_type": { "type": ["string", "null"], "pattern": media_type, "description": "null allows any." },
        },
        "additionalProperties": false,
        "examples": [{ "statuses": ["200-299"], "content_type": "application/json" }],
    })
}

fn callback() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": about(url(), "It gets the outcome as JSON."),
            "secret": { "type": "string", "pattern": SECRET, "description": "Signs it by Standard Webhooks. Never given back." },
        },
        "required": ["url"],
        "additionalProperties": false,
        "examples": [{ "url": "https://example.com/hook" }],
    })
}

#[cfg(test)]
mod tests;
