//! The request of a call that somebody waits for: the client's, with what we add, and the upstream's headers over both.

use std::borrow::Cow;
use std::path::Path;

use farcall_core::id::AttemptId;
use http::header::{HeaderValue, USER_AGENT};

use super::{AGENT, RequestError, idempotency, proxy, upstream_headers, with_host};
use crate::config::Upstream;
use crate::execute::{Coding, HttpRequest};
use crate::forward::{AnswerMode, Request};
use crate::trace::{TRACEPARENT, TraceContext};

/// The request of one attempt.
///
/// # Errors
/// When a secret cannot be resolved: nothing must be sent then.
pub(crate) fn build(
    attempt: AttemptId,
    request: &Request,
    upstream: &Upstream,
    directory: &Path,
) -> Result<HttpRequest, RequestError> {
    let mut headers = with_host(&request.url, request.headers.len());
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    if let Some((name, value)) = idempotency(attempt.call, &request.method, upstream) {
        headers.entry(name).or_insert(value);
    }
    if !headers.contains_key(TRACEPARENT) {
        let own = || Cow::Owned(TraceContext::of_call(attempt.call));
        request.trace.as_ref().map_or_else(own, Cow::Borrowed).add_to(&mut headers, attempt);
    }
    upstream_headers(upstream, directory, &mut headers)?;
    Ok(HttpRequest {
        method: request.method.clone(),
        url: request.url.clone(),
        headers,
        body: request.body.clone(),
        content_type: request.content_type.clone(),
        coding: match request.answer {
            AnswerMode::Streamed => Coding::Kept,
            AnswerMode::Whole => Coding::Removed,
        },
        max_response: upstream.max_response,
        addresses: upstream.addresses_for(request.via),
        proxy: proxy(upstream, directory)?,
    })
}
