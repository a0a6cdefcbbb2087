//! `/v1/upstreams/{name}`: one upstream with its policy and the live use of its limits; pausing, resuming, patching it.
//!
//! An undeclared one has its origin as its name, percent-encoded. Every change answers with the upstream as it is then.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use farcall_engine::Setting;
use farcall_engine::config::{PatchDocument, PatchSchema};
use farcall_engine::document::RejectionKind;
use http::StatusCode;
use http::request::Parts;

use super::accept::{check_media, is_json};
use super::{Face, json};
use crate::openapi::{Answer, Content, Operation, Parameter};
use crate::problem::{Code, Problem};
use crate::wire::Upstream;

/// The upstream that a path names.
pub(super) struct UpstreamInPath(pub(super) String);

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

pub(super) fn unknown_upstream() -> Problem {
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

pub(super) fn show_operation() -> Operation {
    Operation::get("getUpstream", "One upstream")
        .tag("Upstreams")
        .about("Its policy, and the live use of its limits.")
        .parameters([Parameter::upstream()])
        .answer(steered(Answer::json::<Upstream<'_>>(200, "The upstream")))
        .fails(&[Code::NotFound])
}

pub(super) fn patch_operation() -> Operation {
    let patch = Content::json::<PatchSchema>()
        .example("slower", serde_json::json!({ "rate_second": 5, "retry": { "max": 2 } }));
    changed(Operation::patch("patchUpstream", "Set keys of its policy"))
        .about(
            "It holds from the answer on, what was sent before counted; the answer waits until what is leaving has arrived. A \
             patched key holds until the configuration file says something else of it.",
        )
        .json_body(patch, &[RejectionKind::Syntax, RejectionKind::InvalidPolicy, RejectionKind::NotAvailableYet])
}

pub(super) fn pause_operation() -> Operation {
    changed(Operation::post("pauseUpstream", "Send nothing there any more"))
        .about("Also after a restart; what is out goes on.")
}

pub(super) fn resume_operation() -> Operation {
    changed(Operation::post("resumeUpstream", "Go on sending there"))
        .about("Also opens one that asked everybody to wait (Retry-After).")
}

fn changed(operation: Operation) -> Operation {
    operation
        .tag("Upstreams")
        .parameters([Parameter::upstream()])
        .answer(steered(Answer::json::<Upstream<'_>>(200, "The upstream as it is then")))
        .fails(&[Code::NotFound, Code::StoreFailed, Code::Draining])
}

/// What can be done with the upstream of an answer.
fn steered(answer: Answer) -> Answer {
    let operations = ["getUpstream", "patchUpstream", "pauseUpstream", "resumeUpstream"];
    operations.iter().fold(answer, |answer, operation| answer.link(operation, "name", "$response.body#/name"))
}
