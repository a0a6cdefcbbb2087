//! Which handler answers which path, one file per resource.
//!
//! Who may come in was decided before; what a handler cannot do it returns as a `Problem`.

mod attempts;
mod call;
mod calls;
mod explain;
mod health;
mod later;
mod upstream;
mod upstreams;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use farcall_core::id::CallId;
use farcall_engine::Handle;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;

use crate::body::Bodies;
use crate::problem::{Code, Problem};

/// Names the call that an answer is about.
const CALL_ID: HeaderName = HeaderName::from_static("farcall-call-id");

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) handle: Handle,
    pub(crate) bodies: Bodies,
}

/// The call that a path names.
struct CallInPath(CallId);

/// All paths of the API; those of later versions are refused as such.
pub(crate) fn router(face: Arc<Face>) -> Router {
    Router::new()
        .route("/healthz", get(health::show))
        .route("/v1/calls", calls::methods())
        .route("/v1/calls/{id}", get(call::show))
        .route("/v1/calls/{id}/attempts", get(attempts::list))
        .route("/v1/calls/{id}/explain", get(explain::show))
        .route("/v1/upstreams", get(upstreams::list))
        .route("/v1/upstreams/{name}", upstream::methods())
        .route("/v1/upstreams/{name}/pause", post(upstream::pause))
        .route("/v1/upstreams/{name}/resume", post(upstream::resume))
        .merge(later::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(face)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
}

/// The router adds `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not have the method {method}", uri.path()))
}

fn unknown_call() -> Problem {
    Problem::new(Code::NotFound, "there is no call of this id")
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let json = serde_json::to_vec(value).expect("strings, numbers and maps of strings are JSON");
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}

fn call_id_value(id: CallId) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("an id is made of letters, digits, - and _")
}

impl<S: Send + Sync> FromRequestParts<S> for CallInPath {
    type Rejection = Problem;

    /// A malformed id is an unknown one.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(Path(id)) = Path::<String>::from_request_parts(parts, state).await else { return Err(unknown_call()) };
        id.parse().map(Self).map_err(|_| unknown_call())
    }
}
