//! The schema says what the reader does: the same keys, and the same verdict on a thousand documents.

use std::sync::LazyLock;

use bytes::Bytes;
use jsonschema::Validator;

use super::*;
use crate::config::Config;
use crate::document::callback::CallbackKeys;
use crate::document::hedge::HedgeKeys;
use crate::document::parse::CallKeys;
use crate::document::retry::{RetryKeys, SuccessKeys};
use crate::document::{Rejection, RejectionKind, Routing, parse};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options().should_validate_formats(true).build(&call()).expect("it is a schema of 2020-12")
});

fn read(document: &Value) -> Result<(), Rejection> {
    let text = Bytes::from(document.to_string());
    parse(&text, &Routing::from(&Config::default())).map(drop)
}

/// What the two say differently of a document, or nothing.
fn difference(document: &Value) -> Option<String> {
    let (reader, schema) = (read(document), VALIDATOR.is_valid(document));
    (reader.is_ok() != schema).then(|| format!("{document}: the schema says {schema}, the reader {reader:?}"))
}

fn accept(document: &Value) {
    assert_eq!(difference(document), None);
    assert!(VALIDATOR.is_valid(document), "{document}");
}

fn refuse(document: &Value) {
    assert_eq!(difference(document), None);
    assert!(!VALIDATOR.is_valid(document), "{document}");
}

/// A call with this key, in `place` ("retry.max", or just "retry").
fn with(place: &str, value: &Value) -> Value {
    let mut document = json!({ "url": "https://api.test/a" });
    match place.split_once('.') {
        Some((outer, key)) if outer == "callback" && key != "url" => {
            document[outer] = json!({ "url": "https://api.test/hook", key: value });
        }
        Some(("hedge", key)) if key != "after" => document["hedge"] = json!({ "after": 1, key: value }),
        Some((outer, key)) => document[outer] = json!({ key: value }),
        None if place == "upstream" => document = json!({ "url": "https://api.test/a", "upstream": value }),
        None if place == "base_url" => document = json!({ place: value }),
        None if place == "end_point" => document = json!({ "base_url": "https://api.test/a", place: value }),
        None => document[place] = value.clone(),
    }
    document
}

/// The keys at each level: what the reader knows, and what the schema has.
fn levels() -> [(&'static str, &'static [&'static str], Value); 5] {
    let schema = call();
    let properties = &schema["properties"];
    [
        ("", CallKeys::KEYS, properties.clone()),
        ("retry.", RetryKeys::KEYS, properties["retry"]["anyOf"][1]["properties"].clone()),
        ("hedge.", HedgeKeys::KEYS, properties["hedge"]["anyOf"][0]["properties"].clone()),
        ("success.", SuccessKeys::KEYS, properties["success"]["properties"].clone()),
        ("callback.", CallbackKeys::KEYS, properties["callback"]["properties"].clone()),
    ]
}

#[test]
fn every_key_of_the_reader_is_in_the_schema_and_the_reverse() {
    for (level, known, properties) in levels() {
        let told = properties.as_object().expect("properties are an object");
        for key in known {
            let place = format!("{level}{key}");
            let asked = read(&with(&place, &json!(true)));
            let is_later = asked.is_err_and(|rejection| rejection.kind == RejectionKind::NotAvailableYet);
            assert_eq!(told.contains_key(*key), !is_later, "{place}");
        }
        for key in told.keys() {
            assert!(known.contains(&key.as_str()), "the reader knows no {level}{key}");
        }
    }
}

#[test]
fn the_examples_of_the_schema_are_calls() {
    for example in call()["examples"].as_array().expect("there are some") {
        accept(example);
    }
    for (level, _, properties) in levels() {
        for (key, schema) in properties.as_object().expect("properties are an object") {
            for example in schema["examples"].as_array().into_iter().flatten() {
                accept(&with(&format!("{level}{key}"), example));
            }
        }
    }
}

/// Values of every sort, tried at every key.
fn values() -> Vec<Value> {
    serde_json::from_str(include_str!("values.json")).expect("it is JSON")
}

/// Where the two differ, and why that is meant.
fn is_beyond_the_schema(place: &str, value: &Value) -> bool {
    match (place, value) {
        // Which upstreams there are is not known here.
        ("upstream", value) => value.is_string(),
        // The reader is kind to blanks in URLs and around codes; documents should have none.
        ("url" | "base_url" | "callback.url", Value::String(text)) => text == "https://api.test/a b",
        _ => false,
    }
}

#[test]
fn the_schema_and_the_reader_agree_on_every_value_of_every_key() {
    let (mut compared, mut differences) = (0, Vec::new());
    for (level, _, properties) in levels() {
        for key in properties.as_object().expect("properties are an object").keys() {
            let place = format!("{level}{key}");
            for value in values().iter().filter(|value| !is_beyond_the_schema(&place, value)) {
                differences.extend(difference(&with(&place, value)));
                compared += 1;
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn what_contradicts_itself_is_refused_by_both() {
    let url = "https://api.test/a";
    refuse(&json!({}));
    refuse(&json!([]));
    refuse(&json!("url"));
    refuse(&json!({ "end_point": "/a" }));
    refuse(&json!({ "url": url, "base_url": url }));
    refuse(&json!({ "url": url, "end_point": "/a" }));
    refuse(&json!({ "url": url, "colour": 1 }));
    refuse(&json!({ "url": url, "body": 1, "body_base64": "AA==" }));
    refuse(&json!({ "url": url, "body": null, "body_base64": null }));
    refuse(&json!({ "url": url, "delay": 1, "not_before": "2026-11-20T09:00:00Z" }));
    refuse(&json!({ "url": url, "on_unknown": "stop", "retry": { "on_unknown": "stop" } }));
    refuse(&json!({ "url": url, "method": "TRACE", "body": 1 }));
    refuse(&json!({ "url": url, "method": "TRACE", "body_base64": "AA==" }));
    for (one, other) in [("wait", "base"), ("wait", "factor"), ("wait", "backoff_factor"), ("base", "backoff_factor")] {
        refuse(&json!({ "url": url, "retry": { one: 1, other: 1 } }));
    }
    refuse(&json!({ "url": url, "callback": {} }));
    refuse(&json!({ "url": url, "callback": { "url": url, "colour": 1 } }));
    refuse(&json!({ "url": url, "retry": { "colour": 1 } }));
    refuse(&json!({ "url": url, "success": { "colour": 1 } }));
    refuse(&json!({ "url": url, "hedge": { "after": 1, "colour": 1 } }));
    refuse(&json!({ "url": url, "hedge": { "extra": 1 } }));
    refuse(&json!({ "url": url, "hedge": {} }));
    for (after, budget) in
        [("p49.9", "10%"), ("p100", "10%"), ("p095", "10%"), ("p95", "0%"), ("p95", "101%"), ("p95", "05%")]
    {
        refuse(&json!({ "url": url, "hedge": { "after": after, "budget": budget } }));
    }
    accept(&json!({ "url": url, "hedge": { "after": "p99.9", "extra": 10, "budget": "100.0%" } }));
    accept(&json!({ "url": url, "hedge": { "after": 0.3, "budget": "none" } }));
    accept(&json!({ "url": url, "method": "TRACE", "body": null }));
    accept(&json!({ "url": url, "on_unknown": "stop", "retry": { "max": 1 } }));
    accept(&json!({ "url": url, "on_unknown": "stop", "retry": 1 }));
    accept(&json!({ "url": url, "retry": { "base": 1, "factor": 1 } }));
    accept(&json!({ "base_url": url }));
    accept(&json!({ "base_url": url, "end_point": "" }));
}
