//! What happens to every request, whichever way it came, in this order: may it come in, what answers it, what every
//! answer carries.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request};
use tower::ServiceExt;

use crate::access::Access;
use crate::connection::Visitor;
use crate::gateway::{self, Asked, Passed};
use crate::panics::caught;
use crate::problem::{Advised, Code, Problem};
use crate::routes::{self, Face};

/// All of the API.
#[derive(Debug)]
pub(crate) struct App {
    router: Router,
    face: Arc<Face>,
}

impl App {
    pub(crate) fn new(face: Arc<Face>) -> Self {
        Self { router: routes::router(Arc::clone(&face)), face }
    }

    pub(crate) async fn answer(&self, access: &Access, visitor: Visitor, request: Request<Body>) -> Response {
        let under_way = self.face.metrics.begin();
        let (mut parts, body) = request.into_parts();
        let mut response = match access.admit(&parts) {
            Ok(scope) => {
                parts.extensions.insert(scope);
                parts.extensions.insert(access.via());
                parts.extensions.insert(visitor);
                self.route(Request::from_parts(parts, body)).await
            }
            Err(problem) => problem.into_response(),
        };
        under_way.answered(&response);
        Advised::complete(&mut response, &self.face.handle);
        if response.extensions().get::<Passed>().is_some() {
            return response;
        }
        let headers = response.headers_mut();
        // Answers quote other people's text; no browser shall take it for a page.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    /// What goes out in the place of hyper's own words to whoever sent something that is no request.
    pub(crate) fn not_understood(&self, problem: Problem) -> Response {
        let under_way = self.face.metrics.begin();
        let response = problem.into_response();
        under_way.answered(&response);
        response
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let config = self.face.handle.config();
        let answer = async {
            match Asked::of(&config, request.uri()) {
                Some(asked) => gateway::answer(&self.face, &config, asked, request).await,
                None => self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
            }
        };
        match caught(answer).await {
            Ok(response) => response,
            Err(panicked) => {
                tracing::error!(%method, path, panic = panicked.message, "a request's handling panicked");
                Problem::new(Code::Internal, "the request could not be handled; farcall's log tells why")
                    .into_response()
            }
        }
    }
}
