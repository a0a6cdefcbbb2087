//! Requests that a web page of another site made the user's browser send.
//!
//! Two witnesses, either of which is enough: `Origin`, which every browser sends with what may change something, and
//! `Sec-Fetch-Site` (Fetch Metadata), which current ones send with everything. Another port of this machine is another
//! site's page to us. Following a link to our pages is allowed.

use http::Method;
use http::header::ORIGIN;
use http::request::Parts;

use super::host::Authority;
use crate::problem::{Code, Problem};

pub(super) fn check(request: &Parts, own: &Authority<'_>) -> Result<(), Problem> {
    let headers = &request.headers;
    if headers.get_all(ORIGIN).iter().any(|origin| !own.is_origin(origin.as_bytes())) {
        let detail =
            "the request comes from a page of another origin; without tokens only farcall's own pages may call";
        return Err(Problem::new(Code::ForeignOrigin, detail).at_key("origin"));
    }
    let is_own = |site: &http::HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    if !headers.get_all("sec-fetch-site").iter().all(is_own) && !is_visit(request) {
        let detail = "the request comes from a page of another site; without tokens only farcall's own pages may call";
        return Err(Problem::new(Code::ForeignOrigin, detail).at_key("sec-fetch-site"));
    }
    Ok(())
}

/// The user follows a link to one of our pages. A page that shows ours in a frame is none of it.
fn is_visit(request: &Parts) -> bool {
    let header = |name| request.headers.get(name).map(http::HeaderValue::as_bytes);
    let is_page = matches!(request.uri.path(), "/" | "/ui") || request.uri.path().starts_with("/ui/");
    is_page
        && matches!(request.method, Method::GET | Method::HEAD)
        && header("sec-fetch-mode") == Some(b"navigate")
        && header("sec-fetch-dest").is_none_or(|destination| destination == b"document")
}
