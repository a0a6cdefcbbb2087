//! Which handler answers which path, one file per resource.
//!
//! Who may come in was decided before; what a handler cannot do it returns as a `Problem`.

mod accept;
mod attempts;
pub(crate) mod bulk;
mod call;
mod calls;
mod cancel;
mod events;
mod explain;
mod filter;
mod health;
mod later;
mod metrics;
mod operations;
mod problems;
mod response;
mod retry;
mod upstream;
mod upstreams;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use farcall_core::call::Via;
use farcall_core::id::CallId;
use farcall_engine::{Handle, clock};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;

use crate::access::Scope;
use crate::body::Bodies;
use crate::metrics::{Metrics, name_route};
use crate::places::Places;
use crate::problem::{Code, Problem};

/// Names the call that an answer is about.
const CALL_ID: HeaderName = HeaderName::from_static("farcall-call-id");

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) handle: Handle,
    pub(crate) bodies: Bodies,
    /// For bulk requests.
    pub(crate) bulks: Places,
    pub(crate) metrics: Metrics,
}

impl Face {
    /// The same problem, with when it is worth to try again.
    fn advised(&self, problem: Problem) -> Problem {
        problem.advised(&self.handle.snapshot(), clock::instant())
    }
}

/// The call that a path names.
struct CallInPath(CallId);

/// Who sends a request: in whose name it acts, and whose idempotency keys count.
#[derive(Debug, Clone)]
struct Caller {
    via: Via,
    scope: String,
}

impl Caller {
    fn of(parts: &Parts) -> Self {
        Self {
            // Without a word of whoever let it in, the one that may do less.
            via: parts.extensions.get().copied().unwrap_or(Via::Tcp),
            scope: parts.extensions.get::<Scope>().cloned().unwrap_or_default().0,
        }
    }
}

/// All paths of the API; those of later versions are refused as such.
pub(crate) fn router(face: Arc<Face>) -> Router {
    Router::new()
        .route("/healthz", get(health::show))
        .route("/v1/calls", calls::methods())
        .route("/v1/calls/bulk", post(bulk::accept))
        .route("/v1/calls/{id}", get(call::show))
        .route("/v1/calls/{id}/attempts", get(attempts::list))
        .route("/v1/calls/{id}/response", get(response::show))
        .route("/v1/calls/{id}/events", get(events::of_call))
        .route("/v1/calls/{id}/cancel", post(cancel::cancel))
        .route("/v1/calls/{id}/retry", post(retry::retry))
        .route("/v1/operations", post(operations::begin))
        .route("/v1/operations/{id}", get(operations::show))
        .route("/v1/events", get(events::of_all))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .route("/v1/calls/{id}/explain", get(explain::show))
        .route("/v1/upstreams", get(upstreams::list))
        .route("/v1/upstreams/{name}", upstream::methods())
        .route("/v1/upstreams/{name}/pause", post(upstream::pause))
        .route("/v1/upstreams/{name}/resume", post(upstream::resume))
        .route("/docs/problems", get(problems::all))
        .route("/docs/problems/{code}", get(problems::one))
        .merge(later::router())
        .route_layer(from_fn(name_route))
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
