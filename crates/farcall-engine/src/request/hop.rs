//! The request of a hop: what of a call's request goes along to where redirects have led it.
//!
//! At another origin than the call's URL, and ever after in the same try, nothing goes along that is meant for the first:
//! the upstream's headers, authorization, cookies, `*-key` and `*-token`. The upstream that the hop goes to gives its
//! way there and its limits, never its headers: nobody can be sent to fetch another's secrets.

use std::path::Path;

use bytes::Bytes;
use farcall_core::call::Via;
use farcall_core::id::AttemptId;
use http::header::{CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::{AGENT, RequestError, add_own, body, idempotency, proxy, trace_of, upstream_headers, with_host};
use crate::config::{Addresses, Upstream};
use crate::document::Document;
use crate::execute::{Coding, HttpRequest};
use crate::redirect::Asked;

/// The upstreams that a hop has to do with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends<'a> {
    /// The call's own.
    pub(crate) home: &'a Upstream,
    /// The one that the place belongs to.
    pub(crate) there: &'a Upstream,
}

impl<'a> Ends<'a> {
    /// Whose connections are used: the ways to a declared upstream are its own; what is declared nowhere and lies at the
    /// call's own origin is reached as that is.
    pub(crate) fn way(&self, asked: &Asked) -> &'a Upstream {
        if self.is_side_door(asked) { self.home } else { self.there }
    }

    /// Whether it goes to a part of the call's own origin that no upstream is declared for.
    pub(crate) fn is_side_door(&self, asked: &Asked) -> bool {
        self.there.base_url.is_none() && !asked.is_elsewhere
    }

    /// Where the connection may lead. Nobody chose an origin that an answer named, unless it is declared.
    fn addresses(&self, asked: &Asked, via: Via) -> Addresses {
        match self.there.base_url {
            Some(_) => self.there.addresses_for(via),
            None if asked.is_elsewhere => Addresses::Public,
            None => self.home.addresses_for(via),
        }
    }
}

/// The request of an attempt at a hop.
///
/// # Errors
/// When a secret cannot be resolved: nothing must be sent then.
pub(crate) fn build(
    attempt: AttemptId,
    (document, via): (&Document, Via),
    ends: Ends<'_>,
    asked: Asked,
    directory: &Path,
) -> Result<HttpRequest, RequestError> {
    let Ends { home, there } = ends;
    let mut headers = with_host(&asked.url, document.headers.len());
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if there.base_url.is_some() {
        trace_of(document, attempt.call).add_to(&mut headers, attempt);
    }
    if !asked.is_elsewhere {
        headers.extend(idempotency(attempt.call, &asked.method, home));
        upstream_headers(home, directory, &mut headers)?;
    }
    let (body, is_json) = if asked.has_body { body(document) } else { (Bytes::new(), false) };
    if is_json {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    add_own(document, &mut headers);
    leave_behind(&mut headers, &asked, home);
    Ok(HttpRequest {
        headers,
        body,
        coding: Coding::Removed,
        content_type: document.success.content_type.clone().unwrap_or_else(|| home.success.content_type.clone()),
        max_response: document.max_response.unwrap_or(home.max_response),
        addresses: ends.addresses(&asked, via),
        proxy: proxy(ends.way(&asked), directory)?,
        method: asked.method,
        url: asked.url,
    })
}

/// Takes out what must not go along.
fn leave_behind(headers: &mut HeaderMap, asked: &Asked, home: &Upstream) {
    let stays = |name: &HeaderName| {
        (asked.is_elsewhere && is_for_home_only(name, home)) || (!asked.has_body && describes_a_body(name))
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| stays(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What we add ourselves goes by a default name that the upstream may have given, too.
fn is_for_home_only(name: &HeaderName, home: &Upstream) -> bool {
    let name = name.as_str();
    let is_secret = matches!(name, "authorization" | "proxy-authorization" | "cookie")
        || name.ends_with("-key")
        || name.ends_with("-token");
    let is_ours = matches!(name, "user-agent" | "traceparent" | "tracestate");
    is_secret || (!is_ours && home.headers.iter().any(|(own, _)| own == name))
}

/// Fields that speak of the content (RFC 9110, section 15.4: to be removed with it).
fn describes_a_body(name: &HeaderName) -> bool {
    name == EXPECT
        || matches!(name.as_str(), "digest" | "repr-digest" | "last-modified")
        || name.as_str().starts_with("content-")
}

#[cfg(test)]
mod tests {
    use farcall_core::id::CallId;

    use super::*;
    use crate::config::Config;
    use crate::document::{Routing, parse};

    fn upstream(base_url: Option<&str>, addresses: Option<Addresses>) -> Upstream {
        let base_url = base_url.map(|url| url.parse().expect("a URL"));
        Upstream { base_url, addresses, ..Upstream::default() }
    }

    fn asked(method: http::Method, is_elsewhere: bool) -> Asked {
        Asked { url: "http://b.test/x".parse().expect("a URL"), method, has_body: true, is_elsewhere }
    }

    fn built(via: Via, ends: Ends<'_>, asked: Asked) -> HttpRequest {
        let text = br#"{"url": "http://a.test/", "method": "POST", "body": {"n":  1}}"#;
        let config = Config::default();
        let document = parse(&text.to_vec().into(), &Routing::from(&config)).expect("a valid document");
        let attempt = AttemptId { call: CallId::from_bits(7), number: 2 };
        build(attempt, (&document, via), ends, asked, Path::new("/")).expect("a request")
    }

    #[test]
    fn an_origin_that_an_answer_named_is_public_unless_somebody_declared_it() {
        use Addresses::{Any, Public};
        let declared = |addresses| upstream(Some("http://b.test"), addresses);
        let (user, tcp) = (Via::User, Via::Tcp);
        for (home, there, is_elsewhere, via, expected) in [
            (upstream(Some("http://a.test"), None), upstream(None, Some(Any)), true, user, Public),
            (upstream(None, Some(Any)), upstream(None, Some(Any)), true, user, Public),
            (upstream(None, None), upstream(None, None), false, user, Any),
            (upstream(None, None), upstream(None, None), false, tcp, Public),
            (upstream(Some("http://a.test/api"), None), upstream(None, None), false, tcp, Any),
            (upstream(Some("http://a.test/api"), Some(Public)), upstream(None, Some(Any)), false, user, Public),
            (upstream(Some("http://a.test"), Some(Public)), declared(None), true, tcp, Any),
            (upstream(Some("http://a.test"), None), declared(Some(Public)), true, user, Public),
        ] {
            let request = built(via, Ends { home: &home, there: &there }, asked(http::Method::GET, is_elsewhere));
            assert_eq!(request.addresses, expected, "{home:?} {there:?} {is_elsewhere} {via}");
        }
    }

    #[test]
    fn a_request_that_goes_elsewhere_carries_no_key_of_ours_and_says_who_asks_only_to_the_declared() {
        let (home, undeclared) = (upstream(Some("http://a.test"), None), upstream(None, None));
        let declared = upstream(Some("http://b.test"), None);
        for (there, is_elsewhere, has_key, is_traced) in [
            (&home, false, true, true),
            (&undeclared, false, true, false),
            (&declared, true, false, true),
            (&undeclared, true, false, false),
        ] {
            let request = built(Via::User, Ends { home: &home, there }, asked(http::Method::POST, is_elsewhere));
            let has = |name| request.headers.contains_key(name);
            assert_eq!((has("idempotency-key"), has("traceparent")), (has_key, is_traced), "{there:?}");
            assert_eq!((&request.body[..], has("content-type")), (br#"{"n":  1}"#.as_slice(), true));
        }
        let renamed = Upstream { idempotency_header: "X-Once".to_owned(), ..home };
        let ends = Ends { home: &renamed, there: &declared };
        assert!(!built(Via::User, ends, asked(http::Method::POST, true)).headers.contains_key("x-once"));
        assert!(built(Via::User, ends, asked(http::Method::POST, false)).headers.contains_key("x-once"));
    }
}
