//! GET `/docs`: the API's description to read and to try, a page without anything from elsewhere.
//!
//! The page holds no data, so it is open; what it shows it fetches from `/openapi.json`, with a token when one is needed.
//! The renderer is Swagger UI, embedded packed as it is sent (`page/vendor`); whoever cannot unpack gets it unpacked.

use std::io::Read as _;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::openapi::{Answer, Content, Operation};
use crate::problem::{Code, Problem};

/// Scripts and styles of our own only, nothing in the page itself; data is asked for here and nowhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";

/// What the page is made of: name, type, contents, and whether these are packed.
const FILES: [(&str, &str, &[u8], bool); 4] = [
    ("docs.css", "text/css; charset=utf-8", include_bytes!("../../page/docs.css"), false),
    ("docs.js", "text/javascript; charset=utf-8", include_bytes!("../../page/docs.js"), false),
    ("swagger-ui.css", "text/css; charset=utf-8", include_bytes!("../../page/vendor/swagger-ui.css.gz"), true),
    (
        "swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../page/vendor/swagger-ui-bundle.js.gz"),
        true,
    ),
];

pub(super) async fn page() -> Response {
    let policy = HeaderValue::from_static(POLICY);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(HTML)),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::OK, headers, include_str!("../../page/docs.html")).into_response()
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let unknown = || Problem::new(Code::NotFound, format!("there is nothing at /docs/{name}"));
    let &(_, media_type, contents, is_packed) = found.ok_or_else(unknown)?;
    let is_sent_packed = is_packed && takes_gzip(&headers);
    let mut response = if is_sent_packed == is_packed {
        contents.into_response()
    } else {
        let mut unpacked = Vec::new();
        GzDecoder::new(contents).read_to_end(&mut unpacked).expect("a test unpacks it");
        unpacked.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Another version of farcall may have others.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_sent_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Whether `Accept-Encoding` names gzip, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = weight.split_once('=').is_some_and(|(_, q)| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

pub(super) fn operation() -> Operation {
    Operation::get("getReference", "This document as a page")
        .tag("Description")
        .about("To read and to try, without anything from elsewhere.")
        .open()
        .answer(Answer::new(200, "The page", Content::text(HTML)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let check = |value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, GZIP;q=0.8", true);
        check("gzip;q=0", false);
        check("br", false);
        check("", false);
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
