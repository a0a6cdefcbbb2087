//! GET `/openapi.json` and `/schema`: the API, described as OpenAPI 3.1.
//!
//! The document is made anew each time, because it tells what the configuration of the moment holds.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Face, json};
use crate::openapi::{Answer, Content, Operation, document};

pub(super) async fn show(State(face): State<Arc<Face>>) -> Response {
    json(StatusCode::OK, &document(&face.handle.config()))
}

pub(super) fn operation() -> Operation {
    described(Operation::get("getDescription", "This document"))
}

pub(super) fn schema_operation() -> Operation {
    described(Operation::get("getSchema", "The same document, where Requestko had its own"))
}

fn described(operation: Operation) -> Operation {
    let document = Content::new("application/json", |_| serde_json::json!({ "type": "object" }));
    operation
        .tag("Description")
        .about("OpenAPI 3.1, with the upstreams that are configured at the moment.")
        .answer(Answer::new(200, "The document", document))
}
