//! Metrics of the HTTP face itself: requests by route and status, how long they took, how many are under way.
//!
//! A route is its pattern, never the path that somebody asked for. What each metric says to its readers is in
//! `docs/metrics.md`; the engine's are its own matter.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use farcall_core::time::Instant;
use farcall_engine::clock;
use farcall_engine::metrics::{PREFIX, text};
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::gateway::RouteName;

/// The label of requests that no route answered, or that were not let in.
const NO_ROUTE: &str = "none";
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 60.0];

type Labels<const N: usize> = [(&'static str, String); N];

/// All metrics of the HTTP face.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels<2>, Counter>,
    seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

/// A request under way; counted as such until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let in_flight = Gauge::default();
        registry.register("http_requests", "HTTP requests answered, by route and status", requests.clone());
        let help = "Time from the head of an HTTP request to the head of its answer";
        registry.register("http_request_duration_seconds", help, seconds.clone());
        let help = "HTTP requests without an answer yet";
        registry.register("http_requests_in_flight", help, in_flight.clone());
        Self { registry, requests, seconds, in_flight }
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.in_flight.inc();
        UnderWay { metrics: self, since: clock::instant() }
    }

    pub(crate) fn text(&self) -> String {
        text(&self.registry)
    }
}

impl UnderWay<'_> {
    /// Its answer is there.
    pub(crate) fn answered(self, response: &Response) {
        let extensions = response.extensions();
        let route = match (extensions.get::<RouteName>(), extensions.get::<MatchedPath>()) {
            (Some(RouteName(name)), _) => name,
            (None, Some(pattern)) => pattern.as_str(),
            (None, None) => NO_ROUTE,
        };
        let status: StatusCode = response.status();
        let labels = [("route", route.to_owned()), ("status", status.as_str().to_owned())];
        self.metrics.requests.get_or_create(&labels).inc();
        let seconds = clock::instant().since(self.since).as_secs_f64();
        self.metrics.seconds.get_or_create(&[("route", route.to_owned())]).observe(seconds);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

/// Lets the answer tell which route it came from.
pub(crate) async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}
