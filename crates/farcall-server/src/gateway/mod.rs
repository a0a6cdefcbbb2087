//! Requests that become calls while their clients wait: `/proxy/{upstream}/{path}` and the configured routes.
//!
//! They are found before the router looks, by their path as it was written, because that is how it goes on. `fields` are
//! the rules for header fields, `pass` hands requests on and answers back, `smart` is Requestko's endpoint, `refusal`
//! says what a call without an answer is told as. Limits, retries and hedges are the engine's.

mod carry;
mod describe;
mod fields;
mod pass;
mod refusal;
mod smart;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use farcall_engine::config::{Config, Route, Style, Success};
use farcall_engine::forward::{ForwardOverrides, ForwardSuccess};
use http::header::ALLOW;
use http::{HeaderValue, Request, StatusCode, Uri};
use percent_encoding::percent_decode_str;

pub(crate) use describe::operations;

use crate::problem::Problem;
use crate::routes::Face;

/// What `/proxy/{upstream}/{path}` is called in metrics.
pub(crate) const PROXY_ROUTE: &str = "/proxy/{upstream}/{path}";

/// Methods that always go through; so do all that have no name here.
const PASSED_METHODS: &str = "GET,HEAD,PUT,POST,DELETE,OPTIONS,PATCH";

/// What answers a request, for metrics: a pattern or a configured path.
#[derive(Debug, Clone)]
pub(crate) struct RouteName(pub(crate) Arc<str>);

/// On an answer that is another's, which goes out as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed;

/// What a request asks for that is to become a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What metrics call it.
    name: Arc<str>,
    /// The upstream's name as it stands in the path.
    upstream: String,
    /// Path and query below its base URL.
    target: String,
    /// Nothing for the proxy.
    route: Option<Arc<Route>>,
}

impl Asked {
    /// What a request for this URI asks for; nothing when it is not for the gateway.
    pub(crate) fn of(config: &Config, uri: &Uri) -> Option<Self> {
        let path = uri.path();
        if let Some(rest) = path.strip_prefix("/proxy/") {
            let (upstream, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            // A name that is no text is no upstream's.
            let upstream =
                percent_decode_str(upstream).decode_utf8().map_or_else(|_| upstream.to_owned(), Cow::into_owned);
            let target = with_query(rest, uri.query());
            return Some(Self { name: Arc::from(PROXY_ROUTE), upstream, target, route: None });
        }
        let found = config.routes.find(path)?;
        let route = Arc::clone(found.route);
        let target = match route.style {
            Style::Proxy => with_query(&(route.path.clone() + found.rest), uri.query()),
            Style::Smart => route.path.clone(),
        };
        Some(Self { name: Arc::clone(found.name), upstream: route.upstream.clone(), target, route: Some(route) })
    }
}

impl Asked {
    /// What its route says over the upstream.
    fn overrides(&self) -> ForwardOverrides {
        let Some(route) = &self.route else { return ForwardOverrides::default() };
        let success = route.success.as_ref().map(|Success { statuses, content_type }| ForwardSuccess {
            statuses: Some(statuses.clone()),
            content_type: content_type.clone(),
            parses_as_json: route.style == Style::Smart,
        });
        ForwardOverrides { success: success.unwrap_or_default(), hedge: route.hedge, ..ForwardOverrides::default() }
    }
}

fn with_query(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

fn refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(PASSED_METHODS));
    }
    response
}

/// Makes the call that a request asks for, and answers with what came of it.
pub(crate) async fn answer(face: &Face, config: &Config, asked: Asked, request: Request<Body>) -> Response {
    let name = RouteName(Arc::clone(&asked.name));
    let (parts, body) = request.into_parts();
    let mut response = match asked.route.as_deref() {
        Some(route) if route.style == Style::Smart => smart::answer(face, &asked, route, &parts).await,
        _ => pass::answer(face, config, asked, parts, body).await.unwrap_or_else(refused),
    };
    response.extensions_mut().insert(name);
    response
}
