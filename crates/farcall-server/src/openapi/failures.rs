//! The failures of an operation, by status: RFC 9457 problems with the codes that it can answer.
//!
//! Operations that fail alike share one description.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::operation::Operation;
use crate::problem::{Code, What};

/// What every request can end in.
const ALWAYS: [Code; 5] =
    [Code::MalformedRequest, Code::ForeignOrigin, Code::ForeignHost, Code::HeadTooLarge, Code::Internal];
/// What tells those who are to come again when that is worth it, with examples.
const WHEN: [(&str, &str); 2] = [("retry-after", "2"), ("ratelimit", "\"intake\";r=0;t=2")];

/// Descriptions of failures, by name.
#[derive(Debug, Default)]
pub(super) struct Failures(Map<String, Value>);

impl Failures {
    /// The responses of an operation, as references.
    pub(super) fn of(&mut self, operation: &Operation, generator: &mut SchemaGenerator) -> Map<String, Value> {
        let token = (!operation.is_open).then_some(Code::Unauthorized);
        let common = ALWAYS.into_iter().chain(token).map(What::Code);
        let mut by_status: BTreeMap<u16, Vec<What>> = BTreeMap::new();
        for what in common.chain(operation.failures.iter().copied()) {
            let group = by_status.entry(what.facts().0.as_u16()).or_default();
            if !group.contains(&what) {
                group.push(what);
            }
        }
        by_status.into_iter().map(|(status, group)| (status.to_string(), self.reference(group, generator))).collect()
    }

    /// What a reference stands for.
    pub(super) fn referred(&self, reference: &Value) -> Option<&Value> {
        let name = reference["$ref"].as_str()?.rsplit('/').next()?;
        self.0.get(name)
    }

    pub(super) fn into_components(self) -> Map<String, Value> {
        self.0
    }

    fn reference(&mut self, mut group: Vec<What>, generator: &mut SchemaGenerator) -> Value {
        group.sort_by_key(|what| what.facts().1);
        let name = group.iter().map(|what| pascal(what.facts().1)).collect::<Vec<_>>().join("Or");
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        self.0.entry(name).or_insert_with(|| described(&group, generator));
        reference
    }
}

fn described(group: &[What], generator: &mut SchemaGenerator) -> Value {
    let codes: Vec<&str> = group.iter().map(|what| what.facts().1).collect();
    let about: Vec<String> = group.iter().map(|what| format!("`{}`: {}", what.facts().1, what.facts().2)).collect();
    let problem = generator.subschema_for::<farcall_engine::outcome::Problem<'_>>();
    let schema = json!({ "allOf": [problem, { "properties": { "code": { "enum": codes } } }] });
    let mut response = json!({
        "description": about.join("; "),
        "content": { "application/problem+json": { "schema": schema } },
    });
    let headers: Vec<_> = group.iter().filter_map(|what| what.header()).collect();
    for (name, value) in &headers {
        // How a connection goes on is no part of the API.
        if name == http::header::CONNECTION {
            continue;
        }
        let is_always_there = group.iter().all(|what| what.header().is_some_and(|(other, _)| other == *name));
        let example = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let schema = json!({ "type": "string", "examples": [example] });
        response["headers"][name.as_str()] = json!({ "required": is_always_there, "schema": schema });
    }
    let passes = |what: &What| matches!(what, What::Code(code) if code.passes());
    if group.iter().any(passes) {
        for (name, example) in WHEN {
            let schema = json!({ "type": "string", "examples": [example] });
            response["headers"][name] = json!({ "required": group.iter().all(passes), "schema": schema });
        }
    }
    response
}

/// `store_failed` as `StoreFailed`.
fn pascal(code: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    code.split('_').map(word).collect()
}
