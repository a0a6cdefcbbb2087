//! Which handler answers which path, one file per resource.
//!
//! Who may come in was decided before; what a handler cannot do it returns as a `Problem`.

mod accept;
mod attempts;
pub(crate) mod bulk;
mod call;
mod calls;
mod cancel;
mod description;
mod docs;
mod events;
mod explain;
mod filter;
mod health;
mod later;
mod metrics;
mod operations;
mod permits;
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
use axum::routing::{MethodRouter, get, post};
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
use crate::openapi::{self, Operation};
use crate::places::Places;
use crate::problem::{Code, Problem};

/// Names the call that an answer is about.
pub(crate) const CALL_ID: HeaderName = HeaderName::from_static("farcall-call-id");

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

/// Paths with what answers them, and what the API's description says of it.
struct Routes {
    router: Router<Arc<Face>>,
    operations: Vec<(String, Operation)>,
}

impl Routes {
    /// Each of the path's methods has its operation; a test asks the server.
    fn on<const N: usize>(
        mut self,
        path: &str,
        methods: MethodRouter<Arc<Face>>,
        operations: [fn() -> Operation; N],
    ) -> Self {
        self.operations.extend(operations.map(|operation| (path.to_owned(), operation())));
        Self { router: self.router.route(path, methods), ..self }
    }
}

fn routes() -> Routes {
    Routes { router: Router::new(), operations: Vec::new() }
        .on("/healthz", get(health::show), [health::operation])
        .on("/readyz", get(health::ready), [health::ready_operation])
        .on("/metrics", get(metrics::show), [metrics::operation])
        .on("/v1/calls", calls::methods(), [calls::list_operation, calls::accept_operation])
        .on("/v1/calls/bulk", post(bulk::accept), [bulk::operation])
        .on("/v1/calls/{id}", get(call::show), [call::operation])
        .on("/v1/calls/{id}/attempts", get(attempts::list), [attempts::operation])
        .on("/v1/calls/{id}/response", get(response::show), [response::operation])
        .on("/v1/calls/{id}/explain", get(explain::show), [explain::operation])
        .on("/v1/calls/{id}/events", get(events::of_call), [events::call_operation])
        .on("/v1/calls/{id}/cancel", post(cancel::cancel), [cancel::operation])
        .on("/v1/calls/{id}/retry", post(retry::retry), [retry::operation])
        .on("/v1/operations", post(operations::begin), [operations::begin_operation])
        .on("/v1/operations/{id}", get(operations::show), [operations::show_operation])
        .on("/v1/events", get(events::of_all), [events::operation])
        .on("/v1/upstreams", get(upstreams::list), [upstreams::operation])
        .on("/v1/upstreams/{name}", upstream::methods(), [upstream::show_operation, upstream::patch_operation])
        .on("/v1/upstreams/{name}/pause", post(upstream::pause), [upstream::pause_operation])
        .on("/v1/upstreams/{name}/resume", post(upstream::resume), [upstream::resume_operation])
        .on("/v1/upstreams/{name}/permits", post(permits::lend), [permits::lend_operation])
        .on("/v1/upstreams/{name}/permits/{id}/release", post(permits::release), [permits::release_operation])
        .on(openapi::PATH, get(description::show), [description::operation])
        .on("/schema", get(description::show), [description::schema_operation])
        .on("/docs", get(docs::page), [docs::operation])
}

/// What the API's description says of each path.
pub(crate) fn operations() -> Vec<(String, Operation)> {
    routes().operations
}

/// All paths of the API; those of later versions are refused as such.
pub(crate) fn router(face: Arc<Face>) -> Router {
    routes()
        .router
        // Parts of the page: no operations of the API.
        .route("/docs/{file}", get(docs::file))
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

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let json = serde_json::to_vec(value).expect("strings, numbers and maps of strings are JSON");
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}

pub(crate) fn call_id_value(id: CallId) -> HeaderValue {
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
