//! Paths that later versions serve.
//!
//! They are refused as such, with 501, so that nobody takes them for mistyped.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, on};
use http::{Method, Uri};

use super::Face;
use crate::problem::{Code, Problem};

const GET: MethodFilter = MethodFilter::GET;
const POST: MethodFilter = MethodFilter::POST;

const PATHS: [(&str, MethodFilter); 14] = [
    ("/v1/calls/{id}/log", GET),
    ("/ui", GET),
    ("/ui/", GET),
    ("/ui/{*page}", GET),
    ("/", GET),
    ("/function/list/data", GET),
    ("/function/list/text", GET),
    ("/function/definition/{name}", GET),
    ("/function/running-count/{name}", GET),
    ("/task/info/{id}", GET),
    ("/task/done/{id}", GET),
    ("/task/result/{id}", GET),
    ("/task/list/{name}", GET),
    ("/terminate/{kind}/{id}", POST),
];

pub(super) fn router() -> Router<Arc<Face>> {
    PATHS.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, on(methods, not_available_yet)))
}

pub(super) async fn not_available_yet(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::NotAvailableYet, format!("{method} {} is not available yet in this version", uri.path()))
}
