//! GET `/metrics`: everything that is counted and how things stand, in Prometheus's text format.
//!
//! The engine's metrics come first, then those of the HTTP face.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use farcall_engine::metrics::CONTENT_TYPE;
use http::HeaderValue;
use http::header;

use super::Face;
use crate::openapi::{Answer, Content, Operation};

pub(super) async fn show(State(face): State<Arc<Face>>) -> Response {
    let text = face.handle.metrics().await + &face.metrics.text();
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], text).into_response()
}

pub(super) fn operation() -> Operation {
    Operation::get("getMetrics", "Everything that is counted, for Prometheus").tag("Health").answer(Answer::new(
        200,
        "Prometheus's text format",
        Content::text(CONTENT_TYPE),
    ))
}
