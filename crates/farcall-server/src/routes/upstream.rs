//! `/v1/upstreams/{name}`: one upstream with its policy and the live use of its limits; pausing, resuming, patching it.
//!
//! An undeclared one has its origin as its name, percent-encoded. Every change answers with the upstream as it is then.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use farcall_engine::Setting;
use farcall_engine::config::PatchDocument;
use http::StatusCode;
use http::request::Parts;

use super::accept::{check_media, is_json};
use super::{Face, json};
use crate::problem::{Code, Problem};
use crate::wire::Upstream;

/// The upstream that a path names.
pub(super) struct UpstreamInPath(String);

pub(super) fn methods() -> MethodRouter<Arc<Face>> {
    get(show).patch(patch)
}

async fn show(State(face): State<Arc<Face>>, UpstreamInPath(name): UpstreamInPath) -> Result<Response, Problem> {
    let view = face.handle.upstream(&name).await.ok_or_else(unknown_upstream)?;
    Ok(json(StatusCode::OK, &Upstream::of(&view)))
}

async fn patch(
    State(face): State<Arc<Face>>,
    UpstreamInPath(name): UpstreamInPath,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_media(&parts.headers, is_json, "a policy is sent with `Content-Type: application/json`")?;
    let held = face.bodies.read(face.handle.config().server.max_body, &parts.headers, body).await?;
    set(&face, &name, Setting::Patch(PatchDocument::parse(&held.bytes)?)).await
}

pub(super) async fn pause(
    State(face): State<Arc<Face>>,
    UpstreamInPath(name): UpstreamInPath,
) -> Result<Response, Problem> {
    set(&face, &name, Setting::Pause).await
}

pub(super) async fn resume(
    State(face): State<Arc<Face>>,
    UpstreamInPath(name): UpstreamInPath,
) -> Result<Response, Problem> {
    set(&face, &name, Setting::Resume).await
}

async fn set(face: &Face, name: &str, setting: Setting) -> Result<Response, Problem> {
    let view = face.handle.set_upstream(name, setting).await?;
    Ok(json(StatusCode::OK, &Upstream::of(&view)))
}

fn unknown_upstream() -> Problem {
    Problem::new(Code::NotFound, "there is no upstream of this name")
}

impl<S: Send + Sync> FromRequestParts<S> for UpstreamInPath {
    type Rejection = Problem;

    /// A name that is no text is an unknown one.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        name.map(|Path(name)| Self(name)).map_err(|_| unknown_upstream())
    }
}
