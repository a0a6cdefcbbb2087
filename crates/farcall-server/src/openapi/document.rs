//! The document as a whole: what routes tell of themselves, put together.
//!
//! Whatever the configuration decides is filled in here.

use farcall_engine::config::Config;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::failures::Failures;
use super::operation::{Answer, Content, Operation};
use crate::{gateway, routes};

const ABOUT: &str = "farcall makes outbound HTTP calls that must not be lost and must not overrun the other side's limits. \
     A call is durable before it is acknowledged; it waits, is tried, retried, and ends once. Every failure is a problem \
     document (RFC 9457) with a `code`. Times are UTC with milliseconds.";

/// Groups of operations, in the order they are shown.
const TAGS: [(&str, &str); 7] = [
    ("Calls", "Making calls, looking at them, steering them"),
    ("Many calls", "Calls in bulk, and what is done to all that a filter names"),
    ("Upstreams", "Policies, the live use of limits, pausing and patching"),
    ("Gateway", "Requests that are passed on while their clients wait, and configured routes"),
    ("Events", "What happens, as it happens"),
    ("Health", "Whether farcall does its work, and how much of it there is"),
    ("Description", "This document"),
];

/// The OpenAPI 3.1 document of a server with this configuration.
pub(crate) fn document(config: &Config) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut failures = Failures::default();
    let mut paths: Map<String, Value> = Map::new();
    for (path, operation) in routes::operations().into_iter().chain(gateway::operations(config)) {
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[operation.method] = described(&operation, &mut failures, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    name_upstreams(&mut schemas, config);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "farcall",
            "summary": "Outbound calls, durable and within limits",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/", "description": "This server" }],
        "tags": TAGS.map(|(name, about)| json!({ "name": name, "description": about })),
        "security": security(config),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": failures.into_components(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "One of `server.tokens`" },
                "farcall_token": { "type": "apiKey", "in": "header", "name": "Farcall-Token", "description": "The same; it goes first" },
            },
        },
    })
}

/// With tokens, one of them in either header; without, nothing is asked for.
fn security(config: &Config) -> Value {
    if config.server.tokens.is_empty() {
        json!([{}, { "bearer": [] }, { "farcall_token": [] }])
    } else {
        json!([{ "bearer": [] }, { "farcall_token": [] }])
    }
}

/// A call can only name an upstream that there is.
fn name_upstreams(schemas: &mut Map<String, Value>, config: &Config) {
    let upstream = schemas.get_mut("CallDocument").and_then(|call| call.pointer_mut("/properties/upstream"));
    let upstream = upstream.expect("a call can name its upstream");
    if !config.upstreams.is_empty() {
        upstream["enum"] = config.upstreams.names().collect();
    }
}

fn described(operation: &Operation, failures: &mut Failures, generator: &mut SchemaGenerator) -> Value {
    let mut responses = failures.of(operation, generator);
    let (of_any_status, answers): (Vec<_>, Vec<_>) =
        operation.answers.iter().partition(|answer| answer.status.is_none());
    for answer in answers {
        let status = answer.status.unwrap_or_default().to_string();
        let mut response = answered(answer, generator);
        // A failure of the same status has a form of its own.
        if let Some(failure) = responses.get(&status).and_then(|reference| failures.referred(reference)) {
            add_content(&mut response, failure);
        }
        responses.insert(status, response);
    }
    if let Some(answer) = of_any_status.first() {
        let default = answered(answer, generator);
        for response in responses.values_mut() {
            let mut failure = failures.referred(response).cloned().unwrap_or_else(|| response.take());
            add_content(&mut failure, &default);
            *response = failure;
        }
        responses.insert("default".to_owned(), default);
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": responses,
    });
    if !operation.about.is_empty() {
        described["description"] = operation.about.into();
    }
    if !operation.parameters.is_empty() {
        described["parameters"] = operation.parameters.iter().map(|parameter| parameter.0.clone()).collect();
    }
    if let Some(body) = &operation.body {
        described["requestBody"] =
            json!({ "required": !operation.is_body_optional, "content": content(body, generator) });
    }
    if operation.is_open {
        described["security"] = json!([]);
    }
    described
}

/// A response may have another's content, too.
fn add_content(response: &mut Value, other: &Value) {
    for (media_type, form) in other["content"].as_object().into_iter().flatten() {
        response["content"][media_type] = form.clone();
    }
}

fn answered(answer: &Answer, generator: &mut SchemaGenerator) -> Value {
    let mut response = json!({ "description": answer.about, "content": content(&answer.content, generator) });
    for (key, members) in [("headers", &answer.headers), ("links", &answer.links)] {
        if !members.is_empty() {
            response[key] = members.clone().into();
        }
    }
    response
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Value {
    let mut media = json!({ "schema": (content.schema)(generator) });
    for (name, example) in &content.examples {
        media["examples"][*name] = json!({ "value": example });
    }
    json!({ content.media_type: media })
}
