//! Header fields on their way through: which belong to one connection and stay behind, which are added.
//!
//! RFC 9110, section 7.6: fields of a connection, and those that `Connection` names, are not passed on in either
//! direction. Neither is anything that is meant for farcall.

use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use crate::problem::{Code, Problem};

/// Fields of one connection.
const OF_A_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Fields of a request that are made anew, or were for us. `Expect` has been met when the body is read; trailers of a
/// request are not passed on.
const OF_A_REQUEST: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    HeaderName::from_static("proxy-authenticate"),
];
/// What begins with this is between farcall and its clients.
const OURS: &str = "farcall-";
/// What farcall calls itself in `Via`.
const PSEUDONYM: &str = "farcall";
/// A request that has come through so many of them goes in circles.
const VIA_MAX: usize = 8;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who asked, for upstreams that are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) address: Option<IpAddr>,
    pub(super) host: Option<&'a HeaderValue>,
}

/// The fields of a request that are passed on.
///
/// # Errors
/// When it asks for what cannot be passed on, or goes in circles.
pub(super) fn of_request(given: &HeaderMap, version: Version, tokens: &[String]) -> Result<HeaderMap, Problem> {
    if has_word(given, header::UPGRADE, "websocket") {
        let detail = "a WebSocket cannot be passed on; ask the upstream itself";
        return Err(Problem::new(Code::UpgradeUnsupported, detail).at_key("upgrade"));
    }
    let stays = |name: &HeaderName, value: &HeaderValue| {
        OF_A_REQUEST.contains(name)
            || name.as_str().starts_with(OURS)
            || (name == header::AUTHORIZATION && is_token(value, tokens))
    };
    let mut headers = passed(given, stays);
    let circles = values(given, header::VIA).flat_map(|value| value.split(','));
    if circles.filter(|via| via.split_whitespace().nth(1) == Some(PSEUDONYM)).count() >= VIA_MAX {
        let detail = format!("the request has come through farcall {VIA_MAX} times already");
        return Err(Problem::new(Code::LoopDetected, detail).at_key("via"));
    }
    let received = if version < Version::HTTP_11 { "1.0 farcall" } else { "1.1 farcall" };
    headers.append(header::VIA, HeaderValue::from_static(received));
    Ok(headers)
}

/// Tells the upstream who asked. What a proxy before us said stays in front.
pub(super) fn tell_who_asked(headers: &mut HeaderMap, asker: Asker<'_>) {
    if let Some(address) = asker.address {
        let before = values(headers, X_FORWARDED_FOR).map(|value| format!("{value}, ")).collect::<String>();
        if let Ok(value) = HeaderValue::try_from(format!("{before}{address}")) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if let Some(host) = asker.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

/// The fields of an answer that are passed back.
pub(super) fn of_answer(given: &HeaderMap) -> HeaderMap {
    passed(given, |name, _| name.as_str().starts_with(OURS))
}

/// All but those of the connection, those that it names, and what else stays.
fn passed(given: &HeaderMap, stays: impl Fn(&HeaderName, &HeaderValue) -> bool) -> HeaderMap {
    let named: Vec<HeaderName> = values(given, header::CONNECTION)
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let mut headers = HeaderMap::with_capacity(given.len() + 8);
    for (name, value) in given {
        if !OF_A_CONNECTION.contains(name) && !named.contains(name) && !stays(name, value) {
            headers.append(name, value.clone());
        }
    }
    headers
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    values(headers, name).flat_map(|value| value.split(',')).any(|other| other.trim().eq_ignore_ascii_case(word))
}

/// Whether these credentials are one of farcall's own tokens, whichever way the client came in.
fn is_token(credentials: &HeaderValue, tokens: &[String]) -> bool {
    let Some((scheme, token)) = credentials.as_bytes().split_at_checked("Bearer".len()) else { return false };
    let token = token.trim_ascii();
    scheme.eq_ignore_ascii_case(b"Bearer")
        && tokens.iter().fold(false, |is_one, own| is_one | bool::from(own.as_bytes().ct_eq(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        given.iter().map(field).collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect()
    }

    fn sent(given: &[(&'static str, &'static str)]) -> Vec<String> {
        let headers = of_request(&headers(given), Version::HTTP_11, &["s3cret".to_owned()]).expect("it is passed on");
        lines(&headers).into_iter().filter(|line| line != "via: 1.1 farcall").collect()
    }

    #[test]
    fn fields_of_the_connection_and_those_it_names_stay_behind() {
        let given = [
            ("connection", "close, X-One"),
            ("connection", "x-two,"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ];
        assert_eq!(sent(&given), ["x-three: 3"]);
        assert_eq!(lines(&of_answer(&headers(&given))), ["x-three: 3"]);
    }

    #[test]
    fn framing_and_what_is_for_us_are_not_the_upstreams() {
        let given = [
            ("host", "localhost"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("trailer", "x-sum"),
            ("proxy-authorization", "Basic eA=="),
            ("farcall-token", "s3cret"),
            ("farcall-timeout", "5"),
            ("accept-encoding", "gzip"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
        ];
        assert_eq!(sent(&given), ["accept-encoding: gzip", "cookie: a=b", "cookie: c=d"]);
    }

    #[test]
    fn a_token_of_ours_goes_to_no_upstream() {
        for own in ["Bearer s3cret", "bearer   s3cret ", "BEARER s3cret"] {
            assert_eq!(sent(&[("authorization", own)]), [""; 0], "{own}");
        }
        for other in ["Bearer s3cret2", "Bearer", "Basic s3cret", "s3cret", ""] {
            assert_eq!(sent(&[("authorization", other)]), [format!("authorization: {other}")]);
        }
    }

    #[test]
    fn each_passage_is_noted_and_circles_end() {
        let via = |given: &[(&'static str, &'static str)], version| {
            of_request(&headers(given), version, &[]).map(|headers| lines(&headers))
        };
        assert_eq!(
            via(&[("via", "1.0 fred")], Version::HTTP_10),
            Ok(vec!["via: 1.0 fred".into(), "via: 1.0 farcall".into()])
        );
        let often = "1.1 farcall, 1.1 farcall, 1.1 farcall (a), 1.1 farcall";
        assert!(
            via(&[("via", often), ("via", "1.1 farcall,1.1 farcall,1.1 farcall, 1.1 other")], Version::HTTP_11).is_ok()
        );
        assert!(via(&[("via", often), ("via", often)], Version::HTTP_11).is_err());
    }

    #[test]
    fn a_websocket_is_refused_and_other_upgrades_are_let_lie() {
        assert!(of_request(&headers(&[("upgrade", "h2c, WebSocket")]), Version::HTTP_11, &[]).is_err());
        assert_eq!(sent(&[("upgrade", "h2c")]), [""; 0]);
    }

    #[test]
    fn who_asked_is_told_behind_what_others_said() {
        let asker =
            Asker { address: Some([127, 0, 0, 1].into()), host: Some(&HeaderValue::from_static("localhost:1")) };
        let told = |given: &[(&'static str, &'static str)], asker| {
            let mut headers = headers(given);
            tell_who_asked(&mut headers, asker);
            lines(&headers)
        };
        let own = ["x-forwarded-for: 127.0.0.1", "x-forwarded-host: localhost:1", "x-forwarded-proto: http"];
        assert_eq!(told(&[], asker), own);
        let before = [("x-forwarded-for", "a"), ("x-forwarded-for", "b, c"), ("x-forwarded-proto", "https")];
        let after =
            ["x-forwarded-for: a, b, c, 127.0.0.1", "x-forwarded-proto: https", "x-forwarded-host: localhost:1"];
        assert_eq!(told(&before, asker), after);
        assert_eq!(told(&[], Asker { address: None, host: None }), ["x-forwarded-proto: http"]);
    }
}
