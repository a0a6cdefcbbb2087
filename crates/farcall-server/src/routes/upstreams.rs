//! GET `/v1/upstreams`: every upstream, the declared ones and those that calls have brought in.
//!
//! One by itself, and what can be set there, is `upstream`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::{Face, json};
use crate::openapi::{Answer, Operation};
use crate::wire::Upstreams;

pub(super) async fn list(State(face): State<Arc<Face>>) -> Response {
    json(StatusCode::OK, &Upstreams::of(&face.handle.upstreams().await))
}

pub(super) fn operation() -> Operation {
    Operation::get("listUpstreams", "Every upstream").tag("Upstreams").answer(Answer::json::<Upstreams<'_>>(
        200,
        "The declared ones by name, then those that calls brought in, by origin",
    ))
}
