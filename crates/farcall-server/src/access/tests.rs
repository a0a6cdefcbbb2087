//! Who is let in, by host, site and token.

use axum::response::IntoResponse;
use http::Request;

use super::*;

const SECRET: &str = "correct horse";

/// What a GET with these headers is answered: the scope, or the status of the refusal.
fn seen(access: &Access, target: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
    request(access, "GET", target, headers)
}

fn request(access: &Access, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
    let builder = Request::builder().method(method).uri(target);
    let request = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let (parts, ()) = request.body(()).expect("a request").into_parts();
    access.admit(&parts).map(|scope| scope.0).map_err(|problem| problem.into_response().status().as_u16())
}

fn tokens() -> Access {
    Access::tcp(&["other".to_owned(), SECRET.to_owned()])
}

#[test]
fn without_tokens_only_loopback_hosts_are_answered() {
    let check = |host: &str, expected: Result<(), u16>| {
        let seen = seen(&Access::Loopback, "/v1/calls", &[("host", host)]);
        assert_eq!(seen.map(|_| ()), expected, "{host}");
    };
    for host in [
        "localhost",
        "LocalHost:8888",
        "127.0.0.1",
        "127.0.0.1:8888",
        "127.255.3.4:1",
        "[::1]",
        "[::1]:8888",
        "localhost:",
    ] {
        check(host, Ok(()));
    }
    for host in [
        "example.com",
        "example.com:8888",
        "localhost.example.com",
        "evil-localhost",
        "localhost.",
        "10.0.0.1",
        "0.0.0.0",
        "128.0.0.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.1.evil.test",
        "[::2]",
        "[::1",
        "::1",
        "[::1]x",
        "[::ffff:127.0.0.1]",
        "localhost:80:80",
        "localhost:x",
        "user@localhost",
        "localhost@evil.test",
        "",
        " ",
        "[::1]@evil.test",
    ] {
        check(host, Err(421));
    }
}

#[test]
fn a_request_has_one_host_and_its_target_agrees() {
    let check = |target: &str, headers: &[(&str, &str)], expected: Result<(), u16>| {
        assert_eq!(seen(&Access::Loopback, target, headers).map(|_| ()), expected, "{target} {headers:?}");
    };
    check("/", &[], Err(400));
    check("/", &[("host", "localhost"), ("host", "localhost")], Err(400));
    check("http://localhost:8888/", &[("host", "localhost:8888")], Ok(()));
    check("http://LOCALHOST:8888/", &[("host", "localhost:8888")], Ok(()));
    check("http://evil.test/", &[("host", "localhost:8888")], Err(400));
    check("http://localhost:8888/", &[("host", "evil.test")], Err(400));
    check("http://evil.test/", &[("host", "evil.test")], Err(421));
    check("http://localhost/", &[], Err(400));
}

#[test]
fn without_tokens_only_our_own_pages_may_call() {
    let check = |origin: &str, expected: Result<(), u16>| {
        let headers = [("host", "localhost:8888"), ("origin", origin)];
        assert_eq!(seen(&Access::Loopback, "/v1/calls", &headers).map(|_| ()), expected, "{origin}");
    };
    check("http://localhost:8888", Ok(()));
    check("http://LOCALHOST:8888", Ok(()));
    for origin in [
        "http://localhost:3000",
        "http://localhost",
        "https://localhost:8888",
        "http://127.0.0.1:8888",
        "http://evil.test",
        "null",
        "",
        "http://localhost:8888.evil.test",
        "http://localhost:8888/",
        "file://",
    ] {
        check(origin, Err(403));
    }
    let default_port = [("host", "localhost:80"), ("origin", "http://localhost")];
    assert_eq!(seen(&Access::Loopback, "/", &default_port), Ok(String::new()));
    let two = [("host", "localhost:8888"), ("origin", "http://localhost:8888"), ("origin", "http://evil.test")];
    assert_eq!(seen(&Access::Loopback, "/", &two), Err(403));
}

#[test]
fn other_sites_may_only_link_to_our_pages() {
    let check = |method: &str, path: &str, fetch: &[(&str, &str)], expected: Result<(), u16>| {
        let headers = [&[("host", "localhost:8888")], fetch].concat();
        assert_eq!(
            request(&Access::Loopback, method, path, &headers).map(|_| ()),
            expected,
            "{method} {path} {fetch:?}"
        );
    };
    let link = |site| [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for path in ["/", "/ui/", "/ui/calls", "/v1/calls", "/healthz"] {
        check("GET", path, &[], Ok(()));
        check("GET", path, &[("sec-fetch-site", "none")], Ok(()));
        check("POST", path, &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], Ok(()));
    }
    for site in ["cross-site", "same-site", "who-knows"] {
        for path in ["/", "/ui/", "/ui/calls"] {
            check("GET", path, &link(site), Ok(()));
            check("POST", path, &link(site), Err(403));
            check("GET", path, &[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")], Err(403));
            check("GET", path, &[("sec-fetch-site", site)], Err(403));
        }
        for path in ["/v1/calls", "/healthz", "/docs", "/uix", "/ui%2f"] {
            check("GET", path, &link(site), Err(403));
        }
    }
    let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    check("GET", "/ui/", &frame, Err(403));
}

#[test]
fn with_tokens_one_of_them_opens() {
    let check = |headers: &[(&str, &str)], is_let_in: bool| {
        let headers = [&[("host", "farcall.example")], headers].concat();
        assert_eq!(seen(&tokens(), "/v1/calls", &headers).is_ok(), is_let_in, "{headers:?}");
    };
    check(&[("authorization", "Bearer correct horse")], true);
    check(&[("authorization", "bearer  correct horse")], true);
    check(&[("farcall-token", SECRET)], true);
    check(&[("farcall-token", "other"), ("authorization", "Basic dXNlcg==")], true);
    check(&[("farcall-token", "wrong"), ("authorization", "Bearer correct horse")], false);
    check(&[("authorization", "Bearer wrong")], false);
    check(&[("authorization", "Bearer ")], false);
    check(&[("authorization", "Bearer")], false);
    check(&[("authorization", "Bearercorrect horse")], false);
    check(&[("authorization", "Basic correct horse")], false);
    check(&[("authorization", "correct horse")], false);
    check(&[("farcall-token", "")], false);
    check(&[("farcall-token", SECRET), ("farcall-token", SECRET)], false);
    check(&[("authorization", "Bearer correct horse"), ("authorization", "Bearer correct horse")], false);
    check(&[], false);
}

#[test]
fn with_tokens_hosts_and_origins_do_not_matter_and_some_paths_are_open() {
    let foreign = [("host", "farcall.example"), ("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
    for path in ["/healthz", "/readyz", "/ui/", "/ui/x", "/docs"] {
        assert_eq!(seen(&tokens(), path, &foreign), Ok(String::new()), "{path}");
    }
    for path in ["/", "/metrics", "/healthz/", "/v1/calls", "/docsx", "//healthz", "/uix"] {
        assert_eq!(seen(&tokens(), path, &foreign), Err(401), "{path}");
    }
    let with_token = [foreign.as_slice(), &[("farcall-token", SECRET)]].concat();
    assert!(seen(&tokens(), "/v1/calls", &with_token).is_ok());
}

#[test]
fn each_token_has_a_scope_of_its_own_and_the_user_has_the_empty_one() {
    let scope = |token| seen(&tokens(), "/v1/calls", &[("host", "h"), ("farcall-token", token)]);
    let first = scope(SECRET).expect("it is let in");
    assert_eq!(first.len(), 32);
    assert!(first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(Ok(first), scope("other"));
    assert_eq!(seen(&Access::User, "/v1/calls", &[("host", "evil.test"), ("origin", "null")]), Ok(String::new()));
    assert_eq!(seen(&Access::User, "/v1/calls", &[]), Ok(String::new()));
}
