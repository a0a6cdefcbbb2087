//! GET `/healthz`: whether farcall does its work, and how much of it there is. GET `/readyz`: whether it takes more.
//!
//! 503 says that nothing works any more; a full store still settles what was accepted, so it answers 200.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use farcall_engine::clock;
use http::StatusCode;

use super::{Face, json};
use crate::problem;
use crate::wire::Health;

pub(super) async fn show(State(face): State<Arc<Face>>) -> Response {
    let free_bytes = face.handle.free_bytes().await;
    let health = Health::of(&face.handle.snapshot(), free_bytes.ok(), face.handle.config().store.min_free);
    answer(&face, health.is_failing(), &health)
}

/// Whether new calls should come here: not while farcall stops, nor while its store takes none.
pub(super) async fn ready(State(face): State<Arc<Face>>) -> Response {
    let free_bytes = face.handle.free_bytes().await;
    let health = Health::of(&face.handle.snapshot(), free_bytes.ok(), face.handle.config().store.min_free);
    answer(&face, !health.is_ready(), &health)
}

fn answer(face: &Face, is_refused: bool, health: &Health) -> Response {
    if !is_refused {
        return json(StatusCode::OK, health);
    }
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, health);
    response.headers_mut().extend([problem::health(&face.handle.snapshot(), clock::instant())]);
    response
}
