//! The document of the API: it is the one checked in, and says what the server does.

use std::path::Path;

use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup};

/// Set by `cargo xtask openapi`: the checked-in document is written instead of compared.
const REWRITE: &str = "FARCALL_REWRITE_OPENAPI";
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

async fn document(farcall: &Farcall) -> Value {
    let reply = farcall.get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    reply.json()
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, &'static str, &Value)> {
    let paths = document["paths"].as_object().expect("there are paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            found.extend(item.get(method).map(|operation| (path.clone(), method, operation)));
        }
    }
    found
}

/// Calls `visit` with every object in the document.
fn walk<'v>(value: &'v Value, visit: &mut impl FnMut(&'v serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|inner| walk(inner, visit));
        }
        Value::Array(items) => items.iter().for_each(|inner| walk(inner, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A schema of the document, as one that can be used.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::options().should_validate_formats(true).build(&whole).expect("it is a schema of 2020-12")
}

#[tokio::test]
async fn the_checked_in_document_is_the_one_that_is_served() {
    let farcall = Farcall::start().await;
    let served = document(&farcall).await;
    assert_eq!(farcall.get("/schema").await.json(), served);
    let text = serde_json::to_string_pretty(&served).expect("it is JSON") + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&file, text).expect("it can be written");
        return;
    }
    let checked_in = std::fs::read_to_string(&file).expect("it is checked in");
    let line = checked_in.lines().zip(text.lines()).position(|(one, other)| one != other).unwrap_or(0) + 1;
    assert!(checked_in == text, "docs/openapi.json is another from line {line} on; `cargo xtask openapi` writes it");
}

#[tokio::test]
async fn each_path_has_the_methods_of_the_document_and_no_others() {
    let farcall = Farcall::start().await;
    let document = document(&farcall).await;
    // The proxy takes any method.
    let is_own = |path: &str| !path.starts_with("/proxy/");
    for (path, item) in document["paths"].as_object().expect("there are paths").iter().filter(|(path, _)| is_own(path))
    {
        let path = path.replace("{id}", "x").replace("{name}", "x");
        let reply = farcall.exchange(&format!("BREW {path} HTTP/1.1\nHost: localhost\n\n")).await;
        assert_eq!(reply.status, 405, "{path}");
        let allowed = reply.header("allow").expect("it names those there are").to_ascii_lowercase();
        let mut allowed: Vec<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        allowed.sort_unstable();
        let told: Vec<&str> = item.as_object().expect("a path has methods").keys().map(String::as_str).collect();
        assert_eq!(allowed, told, "{path}");
    }
}

#[tokio::test]
async fn references_links_and_tags_lead_somewhere() {
    let document = document(&Farcall::start().await).await;
    let operations = operations(&document);
    let mut ids: Vec<&str> =
        operations.iter().filter_map(|(.., operation)| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len());
    ids.sort_unstable();
    assert!(ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
    let (mut references, mut links) = (0, 0);
    walk(&document, &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            let pointer = reference.strip_prefix('#').expect("it stays in the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
            references += 1;
        }
        if let (Some(Value::String(id)), Some(_)) =
            (object.get("operationId"), object.get("parameters").filter(|it| it.is_object()))
        {
            assert!(ids.contains(&id.as_str()), "{id}");
            links += 1;
        }
    });
    assert!(references > 100 && links > 20, "{references} references, {links} links");
    for (path, method, operation) in operations {
        let tag = &operation["tags"][0];
        assert!(
            document["tags"].as_array().is_some_and(|tags| tags.iter().any(|it| it["name"] == *tag)),
            "{method} {path}"
        );
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
    }
}

#[tokio::test]
async fn every_schema_can_be_used_and_every_example_is_right() {
    let document = document(&Farcall::start().await).await;
    for (name, schema) in document["components"]["schemas"].as_object().expect("there are schemas") {
        validator(&document, schema);
        assert!(schema.is_object(), "{name}");
    }
    let mut examples = 0;
    walk(&document["paths"], &mut |object| {
        let (Some(schema), Some(Value::Object(named))) = (object.get("schema"), object.get("examples")) else { return };
        let validator = validator(&document, schema);
        for (name, example) in named {
            let wrong: Vec<String> = validator.iter_errors(&example["value"]).map(|error| error.to_string()).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
            examples += 1;
        }
    });
    assert!(examples >= 5, "{examples}");
}

#[tokio::test]
async fn what_is_configured_is_in_the_document() {
    let file = "upstreams: { shop: { base_url: http://localhost:1 }, work: { base_url: http://localhost:2 } }\nserver: { tokens: [secret] }";
    let farcall = Setup::new().with_file(file).start().await;
    assert_eq!(farcall.get("/openapi.json").await.status, 401, "it tells what is configured");
    let asked = farcall.exchange("GET /openapi.json HTTP/1.1\nHost: localhost\nFarcall-Token: secret\n\n").await.json();
    assert_eq!(
        asked.pointer("/components/schemas/CallDocument/properties/upstream/enum"),
        Some(&json!(["shop", "work"]))
    );
    assert_eq!(asked["security"], json!([{ "bearer": [] }, { "farcall_token": [] }]));
    assert_eq!(document(&Farcall::start().await).await["security"][0], json!({}));
}
