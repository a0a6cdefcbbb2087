//! The form of what the API reads itself: filters of lists, and operations on many calls.
//!
//! Calls and policies are read by the engine, which describes them.

use std::borrow::Cow;

use farcall_core::call::{Source, State};
use farcall_engine::schema::Words;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::Parameter;

/// The form of an operation's body.
#[derive(Debug)]
pub(crate) struct OperationOrder;

impl JsonSchema for OperationOrder {
    fn schema_name() -> Cow<'static, str> {
        "OperationOrder".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let filter = |(name, about, mut schema): (&str, &str, Value)| {
            schema["description"] = about.into();
            (name.to_owned(), schema)
        };
        let properties: Map<String, Value> = filters().into_iter().map(filter).collect();
        let order = json!({
            "title": "An operation",
            "type": "object",
            "properties": {
                "action": { "type": "string", "enum": ["cancel", "retry"] },
                "where": { "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1 },
                "dry_run": { "type": "boolean", "default": false, "description": "Only count." },
            },
            "required": ["action", "where"],
            "additionalProperties": false,
        });
        Schema::try_from(order).expect("it is an object")
    }
}

/// What is asked for with a permit.
#[derive(Debug)]
pub(crate) struct PermitOrder;

impl JsonSchema for PermitOrder {
    fn schema_name() -> Cow<'static, str> {
        "PermitOrder".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let lease = json!([{ "type": "number", "exclusiveMinimum": 0.001, "maximum": 3600 }, { "type": "string", "examples": ["1m30s"] }]);
        let order = json!({
            "title": "A wish for a permit",
            "type": "object",
            "properties": {
                "cost": { "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX, "default": 1,
                          "description": "Slots of every window." },
                "priority": { "type": ["integer", "null"], "minimum": 1, "maximum": 5, "default": 3,
                              "description": "1 goes first." },
                "lease": { "anyOf": lease, "default": 30, "description": "For how long it is lent." },
            },
            "additionalProperties": false,
        });
        Schema::try_from(order).expect("it is an object")
    }
}

/// What is told when a permit is given back.
#[derive(Debug)]
pub(crate) struct ReleaseOrder;

impl JsonSchema for ReleaseOrder {
    fn schema_name() -> Cow<'static, str> {
        "ReleaseOrder".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let order = json!({
            "title": "What became of a permit",
            "type": "object",
            "properties": {
                "sent": { "type": ["boolean", "null"], "default": true, "description": "Without: its slots are free at once." },
                "status": { "type": ["integer", "null"], "minimum": 100, "maximum": 599, "description": "The answer's." },
                "headers": { "type": "object", "description": "The answer's; those about limits are heard.",
                             "propertyNames": { "pattern": "^[A-Za-z0-9-]+$" },
                             "additionalProperties": { "type": "string", "pattern": "^[ -~]*$" } },
            },
            "additionalProperties": false,
        });
        Schema::try_from(order).expect("it is an object")
    }
}

impl Parameter {
    /// The filters of a list, and what is about its pages.
    pub(crate) fn of_lists() -> Vec<Self> {
        let filter = |(name, about, schema): (&str, &str, Value)| {
            let is_list = schema["type"] == "array";
            let parameter = Self::query(name, about, schema);
            if is_list { parameter.listed() } else { parameter }
        };
        let mut parameters: Vec<Self> = filters().into_iter().map(filter).collect();
        let limit =
            json!({ "type": "integer", "minimum": 1, "maximum": farcall_engine::listing::PAGE_MAX, "default": 50 });
        parameters.push(Self::query("function", "Calls of this function", json!({ "type": "string" })));
        parameters.push(Self::query("limit", "Most calls of a page", limit));
        let cursor = json!({ "type": "string", "pattern": "^[0-9a-fA-F]{1,16}$" });
        parameters.push(Self::query("cursor", "Where the page begins: `next_cursor` of the one before", cursor));
        parameters
    }
}

/// Which calls are meant: name, meaning, form.
fn filters() -> Vec<(&'static str, &'static str, Value)> {
    let words = |words: Vec<&str>| json!({ "type": "string", "enum": words });
    let states = json!({ "type": "array", "items": words(State::words()), "minItems": 1 });
    let time = || json!({ "type": "string", "format": "date-time" });
    vec![
        ("state", "Calls in one of these states", states),
        ("upstream", "A declared name, or the origin of an undeclared one", json!({ "type": "string" })),
        ("source", "Where they came in", words(Source::words())),
        ("tag", "Calls with this tag", json!({ "type": "string" })),
        ("since", "Accepted at this time or later", time()),
        ("until", "Accepted before this time", time()),
    ]
}
