//! A request as HTTP/2 carries it (RFC 9113, section 8.3.1): the host is `:authority`, the scheme is said, and whatever
//! belongs to an HTTP/1.1 connection is not there, because it never is in what is [`Outgoing`].

use farcall_core::call::ErrorKind;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, Request, Uri, Version};

use super::super::classify::Failure;
use super::super::outgoing::Outgoing;

/// Never put into a table that later requests refer to (RFC 7541, section 7.1.3).
const SECRET: [HeaderName; 2] = [AUTHORIZATION, COOKIE];

/// # Errors
/// `invalid` when the host or the target cannot be said in HTTP/2.
pub(super) fn head(outgoing: &Outgoing) -> Result<Request<()>, Failure> {
    let invalid = |_| Failure::new(ErrorKind::Invalid, "the URL cannot be sent over HTTP/2");
    let mut headers = HeaderMap::with_capacity(outgoing.headers.len());
    let mut uri = Uri::builder().scheme(Scheme::HTTPS);
    for (name, value) in &outgoing.headers {
        if name == HOST {
            uri = uri.authority(value.as_bytes());
            continue;
        }
        let mut value = value.clone();
        value.set_sensitive(SECRET.contains(name));
        headers.append(name, value);
    }
    if let Some(target) = outgoing.target.path_and_query() {
        uri = uri.path_and_query(target.clone());
    }
    let mut request = Request::new(());
    *request.method_mut() = outgoing.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.build().map_err(invalid)?;
    *request.headers_mut() = headers;
    Ok(request)
}
