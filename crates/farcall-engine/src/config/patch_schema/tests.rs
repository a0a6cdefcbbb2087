//! The schema of a patch says what its reader does: the same keys, and the same verdict on every value.

use std::sync::LazyLock;

use jsonschema::Validator;

use super::*;
use crate::config::patch::{LATER, PATCHABLE, PatchDocument};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options().should_validate_formats(true).build(&patch()).expect("it is a schema of 2020-12")
});

/// What the two say differently of a patch, or nothing.
fn difference(patch: &Value) -> Option<String> {
    let (reader, schema) = (PatchDocument::parse(patch.to_string().as_bytes()), VALIDATOR.is_valid(patch));
    (reader.is_ok() != schema).then(|| format!("{patch}: the schema says {schema}, the reader {reader:?}"))
}

fn check(patch: &Value, is_taken: bool) {
    assert_eq!(difference(patch), None);
    assert_eq!(VALIDATOR.is_valid(patch), is_taken, "{patch}");
}

#[test]
fn every_key_that_can_be_patched_is_in_the_schema_and_the_reverse() {
    let told = properties();
    let told: Vec<&str> = told.as_object().expect("properties are an object").keys().map(String::as_str).collect();
    let mut known: Vec<&str> = PATCHABLE.into_iter().filter(|key| !LATER.contains(key)).collect();
    known.sort_unstable();
    assert_eq!(told, known);
}

#[test]
fn the_examples_of_the_schema_are_patches() {
    for example in patch()["examples"].as_array().expect("there are some") {
        check(example, true);
    }
    for (key, schema) in properties().as_object().expect("properties are an object") {
        check(&json!({ key: null }), true);
        for example in schema["anyOf"][0]["examples"].as_array().into_iter().flatten() {
            check(&json!({ key: example }), true);
        }
    }
}

/// Lists and mappings, right and wrong.
fn composed() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!({}),
        json!([]),
        json!({ "max": 1 }),
        json!({ "max": -1 }),
        json!({ "a": 1 }),
        json!({ "wait": "2s" }),
        json!({ "wait": 1, "base": 1 }),
        json!({ "wait": 1, "backoff_factor": 1 }),
        json!({ "factor": 0.5 }),
        json!({ "factor": 1 }),
        json!({ "backoff_factor": 0 }),
        json!({ "backoff_factor": -1 }),
        json!({ "jitter": "full" }),
        json!({ "jitter": "some" }),
        json!({ "methods": "all" }),
        json!({ "methods": ["get"] }),
        json!({ "methods": ["G T"] }),
        json!({ "methods": [] }),
        json!({ "statuses": [200, "500-599"] }),
        json!({ "statuses": [] }),
        json!({ "statuses": [99] }),
        json!({ "statuses": [200.0] }),
        json!({ "max": 1.0 }),
        json!({ "content_type": "application/json" }),
        json!({ "content_type": null }),
        json!({ "content_type": "x" }),
        json!({ "on_unknown": "stop" }),
        json!({ "max_delay": 0 }),
        json!({ "failures": "50%" }),
        json!({ "failures": "12.5 %", "calls": 1, "window": 1, "open": "1s" }),
        json!({ "failures": "0%" }),
        json!({ "failures": "0.00%" }),
        json!({ "failures": "100.01%" }),
        json!({ "failures": "101%" }),
        json!({ "failures": 50 }),
        json!({ "calls": 0 }),
        json!({ "calls": 4_294_967_296_u64 }),
        json!({ "window": 0 }),
        json!({ "open": "0s" }),
        json!({ "base": 0 }),
        json!({ "retry_after_max": 0 }),
        json!({ "requeue": 4_294_967_295_u64 }),
        json!({ "requeue": 4_294_967_296_u64 }),
        json!({ "statuses": ["200"], "content_type": "a/b" }),
        json!(["10/1s"]),
        json!(["0/1s"]),
        json!(["10/0s"]),
        json!(["10/60"]),
        json!(["10/1m30s"]),
        json!(["10"]),
        json!([10]),
        json!(["10/"]),
        json!(vec!["1/1s"; 16]),
        json!(vec!["1/1s"; 17]),
        json!([null]),
    ]
}

#[test]
fn the_schema_and_the_reader_agree_on_every_value_of_every_key() {
    let mut values = composed();
    values.extend([0.0, -1.0, 1.0, 5.0, 200.0, 3_153_600_001.0, 1e-9, 0.5, -0.5, 1.5].map(|number| json!(number)));
    values
        .extend([3_153_600_000_i64, 3_153_600_001, 0, 1, -1, 4_294_967_295, 4_294_967_296].map(|number| json!(number)));
    let texts = ["", "x", "none", "off", "retry", "stop", "full", "30", "30s", "1m30s", "0s", "30s1m", "5", "true"];
    values.extend(texts.map(|text| json!(text)));
    let told = properties();
    let mut differences = Vec::new();
    for key in told.as_object().expect("properties are an object").keys() {
        for value in &values {
            // YAML's other words for true and false are read in a patch, too; documents should have none.
            if value != "off" {
                differences.extend(difference(&json!({ key: value })));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_contradicts_itself_is_refused_by_both() {
    check(&json!([]), false);
    check(&json!({ "base_url": "https://a.test" }), false);
    check(&json!({ "wait": 1, "retry": { "wait": 1 } }), false);
    check(&json!({ "wait": 1, "retry": { "base": 1 } }), false);
    check(&json!({ "on_unknown": "stop", "retry": { "on_unknown": "stop" } }), false);
    check(&json!({ "wait": null, "retry": { "wait": 1 } }), true);
    check(&json!({ "wait": 1, "retry": 3 }), true);
    check(&json!({}), true);
}
