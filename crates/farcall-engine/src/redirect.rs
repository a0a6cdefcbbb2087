//! Where an answer redirects to: its `Location`, and what of the request goes along.
//!
//! Parsed once, by the url crate; what that would forgive is refused, so that a place means the same to everyone who
//! reads it. Whether to follow is decided in the core, which headers go along in `request`.

use farcall_core::call::Method;
use farcall_core::hop::{Rewrite, rewrite};
use farcall_store::record::ResponseRecord;
use url::Url;

use crate::execute::HttpRequest;
use crate::one_host::with_one_host;

/// The longest `Location` that is followed, in bytes.
const LOCATION_BYTES_MAX: usize = 8 << 10;
/// The longest URL, which is what the HTTP client can carry.
const URL_BYTES_MAX: usize = 65_534;

/// A request, as far as redirects change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) url: Url,
    pub(crate) method: http::Method,
    /// It carries the body of the call.
    pub(crate) has_body: bool,
    /// It has left the origin of the call's URL, now or before.
    pub(crate) is_elsewhere: bool,
}

/// What an answer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// This request.
    To(Box<Asked>),
    /// One that would go from https to http.
    Downgrade,
}

impl Asked {
    /// The request of a call as it stands.
    pub(crate) fn first(request: &HttpRequest) -> Self {
        let (url, method) = (request.url.clone(), request.method.clone());
        Self { url, method, has_body: true, is_elsewhere: false }
    }

    /// What this answer asks for next; nothing when it is no redirect, or leads to no place that can be asked by HTTP.
    pub(crate) fn next(self, answer: &ResponseRecord) -> Option<Next> {
        let rewrite = rewrite(answer.status, Method::of(self.method.as_str()))?;
        let url = resolve(&self.url, location(answer)?)?;
        if self.url.scheme() == "https" && url.scheme() == "http" {
            return Some(Next::Downgrade);
        }
        let is_elsewhere = self.is_elsewhere || url.origin() != self.url.origin();
        let (method, has_body) = match rewrite {
            Rewrite::Keep => (self.method, self.has_body),
            Rewrite::DropBody => (self.method, false),
            Rewrite::Get => (http::Method::GET, false),
        };
        Some(Next::To(Box::new(Self { url, method, has_body, is_elsewhere })))
    }
}

/// The one `Location` of an answer.
fn location(answer: &ResponseRecord) -> Option<&[u8]> {
    let mut locations = answer.headers.iter().filter(|(name, _)| name == "location");
    let (_, location) = locations.next()?;
    locations.next().is_none().then(|| location.trim_ascii())
}

/// The URL that a `Location` names, seen from another, without its fragment.
fn resolve(from: &Url, location: &[u8]) -> Option<Url> {
    let text = std::str::from_utf8(location).ok().filter(|text| (1..=LOCATION_BYTES_MAX).contains(&text.len()))?;
    if text.chars().any(|c| c.is_control() || c == '\\') || hides_its_host(text) {
        return None;
    }
    let mut url = with_one_host(from.join(text).ok()?)?;
    let is_http = matches!(url.scheme(), "http" | "https");
    if !is_http || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    url.set_fragment(None);
    (url.as_str().len() <= URL_BYTES_MAX).then_some(url)
}

/// Whether its host stands where RFC 3986 has none: `https:host`, `https:///host`, `///host`.
fn hides_its_host(text: &str) -> bool {
    let scheme_end = text.find([':', '/', '?', '#']).filter(|&end| text[end..].starts_with(':'));
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    match scheme_end {
        Some(end) if is_http(&text[..end]) => !text[end + 1..]
            .strip_prefix("//")
            .is_some_and(|rest| !rest.starts_with(['/', '?', '#']) && !rest.is_empty()),
        Some(_) | None => text.starts_with("///"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Method;

    use super::*;

    fn asked(method: Method, url: &str) -> Asked {
        Asked { url: url.parse().expect("a URL"), method, has_body: true, is_elsewhere: false }
    }

    fn answer(status: u16, locations: &[&str]) -> ResponseRecord {
        let headers = locations.iter().map(|location| ("location".to_owned(), location.as_bytes().to_vec())).collect();
        ResponseRecord { status, headers, body: Bytes::new(), decoded: false }
    }

    fn led(from: &str, location: &str) -> Option<String> {
        match asked(Method::GET, from).next(&answer(307, &[location])) {
            Some(Next::To(next)) => Some(next.url.into()),
            Some(Next::Downgrade) => Some("downgrade".to_owned()),
            None => None,
        }
    }

    #[test]
    fn a_location_is_resolved_against_the_url_that_was_asked() {
        let from = "http://a.test:81/x/y?q=1";
        for (location, url) in [
            ("/z", "http://a.test:81/z"),
            ("z?w#f", "http://a.test:81/x/z?w"),
            ("?w", "http://a.test:81/x/y?w"),
            ("../..//z", "http://a.test:81//z"),
            ("//b.test/z", "http://b.test/z"),
            ("HTTPS://B.test:443", "https://b.test/"),
            (" /z ", "http://a.test:81/z"),
            ("/ü z", "http://a.test:81/%C3%BC%20z"),
            ("/a:b//c", "http://a.test:81/a:b//c"),
        ] {
            assert_eq!(led(from, location).as_deref(), Some(url), "{location}");
        }
    }

    #[test]
    fn what_is_no_place_to_ask_by_http_leads_nowhere() {
        let long = format!("/{}", "x".repeat(LOCATION_BYTES_MAX));
        for location in [
            "",
            "ftp://b.test/",
            "file:///etc/passwd",
            "gopher://b.test/",
            "data:text/plain,x",
            "javascript:alert(1)",
            "unix:/run/x.sock",
            "mailto:a@b.test",
            "http://user@b.test/",
            "http://user:word@b.test/",
            "http://:word@b.test/",
            "//user@b.test/",
            "http://b.test:99999/",
            "http://[::1/",
            "http://",
            "http:b.test",
            "https:/b.test",
            "https:///b.test",
            "///b.test",
            "/\\b.test",
            "\\\\b.test",
            "/a\tb",
            "/a\u{85}b",
            long.as_str(),
        ] {
            assert_eq!(led("http://a.test/", location), None, "{location}");
        }
        assert_eq!(asked(Method::GET, "http://a.test/").next(&answer(302, &[])), None);
        assert_eq!(asked(Method::GET, "http://a.test/").next(&answer(302, &["/a", "/a"])), None, "two of them");
        assert_eq!(asked(Method::GET, "http://a.test/").next(&answer(304, &["/a"])), None);
        let bytes = ResponseRecord { headers: vec![("location".to_owned(), b"/\xff".to_vec())], ..answer(302, &[]) };
        assert_eq!(asked(Method::GET, "http://a.test/").next(&bytes), None);
    }

    #[test]
    fn from_https_to_http_is_a_downgrade_wherever_it_leads() {
        for location in ["http://a.test/", "http://b.test/", "HTTP://a.test:443/"] {
            assert_eq!(led("https://a.test/", location).as_deref(), Some("downgrade"), "{location}");
        }
        assert_eq!(led("http://a.test/", "https://a.test/").as_deref(), Some("https://a.test/"));
    }

    #[test]
    fn whoever_has_left_its_origin_stays_elsewhere() {
        let goes = |from: Asked, location: &str| match from.next(&answer(302, &[location])) {
            Some(Next::To(next)) => *next,
            other => panic!("{location}: {other:?}"),
        };
        for (location, is_elsewhere) in [
            ("/z", false),
            ("http://A.test:80/z", false),
            ("https://a.test/", true),
            ("http://a.test:81/", true),
            ("http://www.a.test/", true),
            // The dot of the root makes no other host.
            ("http://a.test./", false),
            ("http://b.test./", true),
        ] {
            let there = goes(asked(Method::GET, "http://a.test/"), location);
            assert_eq!(there.is_elsewhere, is_elsewhere, "{location}");
            if there.url.scheme() == "http" {
                assert_eq!(goes(there, "http://a.test/").is_elsewhere, is_elsewhere, "back from {location}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_location_is_it_leads_to_a_place_that_can_be_asked_or_nowhere(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            text in "(https?:|HTTP:|//|/|\\\\|\\.\\./|@|:|%2f|#|\\?|a|b\\.test|\\[::1\\]|127\\.1| ){0,8}",
        ) {
            for location in [bytes, text.into_bytes()] {
                let headers = vec![("location".to_owned(), location)];
                for from in ["http://a.test/x", "https://a.test:8443/x?y"] {
                    let asked = asked(Method::POST, from);
                    let Some(Next::To(next)) = asked.clone().next(&ResponseRecord { headers: headers.clone(), ..answer(307, &[]) })
                    else {
                        continue;
                    };
                    proptest::prop_assert!(matches!(next.url.scheme(), "http" | "https") && next.url.has_host());
                    proptest::prop_assert!(next.url.username().is_empty() && next.url.password().is_none());
                    proptest::prop_assert!(next.url.fragment().is_none());
                    proptest::prop_assert_eq!(next.is_elsewhere, next.url.origin() != asked.url.origin());
                    proptest::prop_assert!(asked.url.scheme() == "http" || next.url.scheme() == "https");
                    // What is stored is read again.
                    proptest::prop_assert_eq!(Url::parse(next.url.as_str()).ok(), Some(next.url));
                }
            }
        }
    }

    #[test]
    fn the_status_says_what_becomes_of_method_and_body() {
        for (status, method, then, has_body) in [
            (301, Method::POST, Method::GET, false),
            (302, Method::PUT, Method::PUT, true),
            (303, Method::DELETE, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, false),
            (303, Method::GET, Method::GET, false),
            (307, Method::POST, Method::POST, true),
            (308, Method::PATCH, Method::PATCH, true),
        ] {
            let Some(Next::To(next)) = asked(method.clone(), "http://a.test/").next(&answer(status, &["/z"])) else {
                panic!("{status} of {method} is followed")
            };
            assert_eq!((next.method, next.has_body), (then, has_body), "{status} {method}");
        }
    }
}
