//! GET `/docs/problems` and `/docs/problems/{code}`: what each kind of problem means and what helps, as text.
//!
//! Where the `type` of a problem document leads. The text is `docs/problems.md`, whose commands a test runs.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::problem::{Code, Problem};

const PAGE: &str = include_str!("../../../../docs/problems.md");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(super) async fn all() -> Response {
    ([(CONTENT_TYPE, TEXT)], PAGE).into_response()
}

pub(super) async fn one(code: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let unknown = || Problem::new(Code::NotFound, "there is no problem of this code; /docs/problems has them all");
    let section = code.ok().and_then(|Path(code)| section(&code)).ok_or_else(unknown)?;
    Ok(([(CONTENT_TYPE, TEXT)], section).into_response())
}

/// The part of the page about a code, from its heading to the next.
fn section(code: &str) -> Option<&'static str> {
    let mut sections = PAGE.split("\n## ").skip(1);
    sections.find(|section| section.split_whitespace().next() == Some(code))
}
