//! Where calls may go, and every way out that was thought of.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, Upstream};
use crate::document::{Rejection, parse};

fn config() -> Config {
    let upstream =
        |base: &str| Upstream { base_url: Some(Url::parse(base).expect("a test's URL")), ..Upstream::default() };
    let upstreams = [
        ("shop", upstream("https://shop.test/admin")),
        ("orders", upstream("https://shop.test/admin/orders/")),
        ("root", upstream("http://root.test:8080")),
    ];
    Config { upstreams: upstreams.into_iter().collect(), ..Config::default() }
}

fn resolve_members(members: &str) -> Result<(UpstreamRef, String), Rejection> {
    let config = config();
    let document = parse(&Bytes::from(format!("{{{members}}}")), &Routing::from(&config))?;
    Ok((document.upstream, document.url.into()))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

fn based(base: &str, end_point: &str) -> Result<(UpstreamRef, String), Rejection> {
    resolve_members(&format!(r#""base_url":{},"end_point":{}"#, quoted(base), quoted(end_point)))
}

#[test]
fn base_url_and_end_point_join_with_one_slash() {
    let check = |base: &str, end_point: &str, expected: &str| {
        let (_, url) = based(base, end_point).unwrap_or_else(|rejection| panic!("{rejection}: {base} {end_point}"));
        assert_eq!(url, expected, "{base} {end_point}");
    };
    check("https://x.test/a", "/b", "https://x.test/a/b");
    check("https://x.test/a//", "//b/", "https://x.test/a/b/");
    check("https://x.test", "b", "https://x.test/b");
    check("https://x.test/a", "", "https://x.test/a");
    check("https://x.test/a/", "", "https://x.test/a/");
    check("https://x.test/a", "/", "https://x.test/a/");
    check("https://x.test/a", "?q=1", "https://x.test/a/?q=1");
    check("https://x.test/a", "b?q=1&r=/../x", "https://x.test/a/b?q=1&r=/../x");
    check("https://x.test/a", "b/../c", "https://x.test/a/c");
    check("https://x.test/a", "b/%2e%2E/c/./d", "https://x.test/a/c/d");
    check("https://x.test/a", "b/..", "https://x.test/a/");
    check("https://x.test/a", "ü b", "https://x.test/a/%C3%BC%20b");
    check("https://x.test/a/../b", "c", "https://x.test/b/c");
    check("HTTPS://X.TEST:443/a", "b", "https://x.test/a/b");
    check("https://bücher.test/", "a", "https://xn--bcher-kva.test/a");
    check("http://[::1]:9/a", "b", "http://[::1]:9/a/b");
    check("https://x.test/a", "//evil.test/b", "https://x.test/a/evil.test/b");
    check("https://x.test/a", "https://evil.test/b", "https://x.test/a/https://evil.test/b");
    check("https://x.test", "@evil.test/", "https://x.test/@evil.test/");
    check("https://x.test/a", "b%2Fc", "https://x.test/a/b%2Fc");
}

#[test]
fn no_end_point_leads_out_of_its_base() {
    let check = |end_point: &str| {
        for members in [
            format!(r#""base_url":"https://shop.test/admin","end_point":{}"#, quoted(end_point)),
            format!(r#""upstream":"shop","end_point":{}"#, quoted(end_point)),
        ] {
            let rejection = resolve_members(&members).expect_err(&members);
            assert_eq!(rejection.key.as_deref(), Some("end_point"), "{members}: {rejection}");
        }
    };
    for end_point in [
        "..",
        "../",
        "/../",
        "/../x",
        "a/../../x",
        "%2e%2e",
        "%2E%2e/",
        ".%2e/x",
        "a/%2e%2e/%2e./x",
        "/../admin2",
        "/../administrator/x",
        "..\\x",
        "a\\..\\..\\x",
        "\\\\evil.test",
        "\t/../x",
        ".\t./x",
        ".\n./x",
        "..%2fx",
        "a/..%2f..%2fx",
        "..%5cx",
        "%2e%2e%2fx",
        "%2e%2e%5Cx",
        "x#y",
        "#",
        "x\u{0}",
        "x\u{7f}",
        " x",
        "x ",
    ] {
        check(end_point);
    }
}

#[test]
fn the_upstream_is_the_longest_base_on_a_segment_boundary() {
    let check = |url: &str, expected: Option<&str>| {
        let (upstream, _) =
            resolve_members(&format!(r#""url":{}"#, quoted(url))).unwrap_or_else(|r| panic!("{r}: {url}"));
        match (upstream, expected) {
            (UpstreamRef::Declared(name), Some(expected)) => assert_eq!(name, expected, "{url}"),
            (UpstreamRef::Undeclared(_), None) => {}
            (other, expected) => panic!("{url}: {other:?}, expected {expected:?}"),
        }
    };
    check("https://shop.test/admin", Some("shop"));
    check("https://shop.test/admin/", Some("shop"));
    check("https://shop.test/admin?x=1", Some("shop"));
    check("https://SHOP.test:443/admin/x", Some("shop"));
    check("https://shop.test/admin/orders", Some("orders"));
    check("https://shop.test/admin/orders/1", Some("orders"));
    check("https://shop.test/admin/ordersheet", Some("shop"));
    check("https://shop.test/administrator", None);
    check("https://shop.test/", None);
    check("https://shop.test/admin/../x", None);
    check("https://shop.test/%61dmin", None);
    check("http://shop.test/admin", None);
    check("https://shop.test:8443/admin", None);
    check("https://shop.test.evil.test/admin", None);
    check("http://root.test:8080/any/thing", Some("root"));
    check("http://root.test/any", None);
}

#[test]
fn undeclared_upstreams_go_by_their_origin() {
    let origin = |url: &str| match resolve_members(&format!(r#""url":{}"#, quoted(url))) {
        Ok((UpstreamRef::Undeclared(origin), _)) => origin,
        other => panic!("{other:?}"),
    };
    assert_eq!(origin("https://API.Test:443/a?b"), "https://api.test");
    assert_eq!(origin("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    assert_eq!(origin("https://api.test./a"), "https://api.test", "the dot of the root makes no other origin");
}

#[test]
fn the_dot_of_the_root_leads_round_no_upstream() {
    let declared =
        |members: &str| resolve_members(members).unwrap_or_else(|rejection| panic!("{rejection}: {members}"));
    let orders = (UpstreamRef::Declared("shop".to_owned()), "https://shop.test/admin/x".to_owned());
    assert_eq!(declared(r#""url":"https://shop.test./admin/x""#), orders);
    assert_eq!(declared(r#""base_url":"https://Shop.Test./admin","end_point":"/x""#), orders);
    assert_eq!(declared(r#""upstream":"shop","url":"https://shop.test.:443/admin/x""#), orders);
}

#[test]
fn a_url_beside_an_upstream_must_be_its_own() {
    for (key, url) in [
        ("url", "https://evil.test/admin"),
        ("base_url", "https://shop.test/administrator"),
        ("url", "https://shop.test/admin/../x"),
        ("base_url", "http://shop.test/admin"),
        ("url", "https://shop.test/"),
    ] {
        let members = format!(r#""upstream":"shop","{key}":"{url}""#);
        let rejection = resolve_members(&members).expect_err(&members);
        assert_eq!(rejection.key.as_deref(), Some(key), "{members}");
    }
    let named =
        resolve_members(r#""upstream":"shop","url":"https://shop.test/admin/orders/1""#).expect("it lies below");
    assert_eq!(named.0, UpstreamRef::Declared("shop".to_owned()));
    let bare = resolve_members(r#""upstream":"orders""#).expect("the upstream has a URL");
    assert_eq!(bare.1, "https://shop.test/admin/orders/");
    let below = resolve_members(r#""upstream":"orders","end_point":"7""#).expect("it lies below");
    assert_eq!(below.1, "https://shop.test/admin/orders/7");
}

#[test]
fn urls_that_could_be_misread_are_refused() {
    for url in [
        "",
        "x.test/a",
        "//x.test/a",
        "ftp://x.test/",
        "file:///etc/passwd",
        "unix:///x",
        "https:x.test",
        "https:/x.test",
        "https:///x.test",
        "https://",
        "https://?x",
        "https://user@x.test/",
        "https://user:pw@x.test/",
        "https://@x.test/",
        "https://x.test\\@evil.test/",
        "https:\\\\x.test/",
        "https://x.test/#",
        "https://x.test/a#b",
        "ht\ttps://x.test/",
        "https://x.te\nst/",
        " https://x.test/",
        "https://x.test/ ",
        "https://x y.test/",
        "https://x.test:99999/",
        "https://[::1/",
        "https://x.test/a/..%2fb",
        "javascript://x.test/",
    ] {
        for key in ["url", "base_url"] {
            let members = format!(r#""{key}":{}"#, quoted(url));
            let rejection = resolve_members(&members).expect_err(&members);
            assert_eq!(rejection.key.as_deref(), Some(key), "{members}: {rejection}");
        }
    }
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    let check = |members: &str, key: &str, message: &str| {
        let rejection = resolve_members(members).expect_err(members);
        assert_eq!(rejection.key.as_deref(), Some(key), "{members}: {rejection}");
        assert!(rejection.message.contains(message), "{members}: {rejection}");
    };
    check(r#""url":"https://x.test","base_url":"https://x.test""#, "url", "excludes");
    check(r#""url":"https://x.test","end_point":"a""#, "url", "excludes");
    check(r#""end_point":"a""#, "end_point", "needs a `base_url`");
    check(r#""method":"GET""#, "url", "a call needs");
    check(r#""upstream":"shp""#, "upstream", r#"is "shop" meant?"#);
    check(r#""upstream":"nothing-like-it""#, "upstream", "names no configured upstream");
    check(r#""base_url":"https://x.test/?k=1","end_point":"a""#, "end_point", "has a query");
    check(r#""url":7"#, "url", "must be a string");
    let long = format!(r#""url":"https://x.test/{}""#, "a".repeat(70_000));
    check(&long, "url", "longer than");
}

#[test]
fn query_is_appended_and_encoded() {
    let check = |url: &str, query: &str, expected: &str| {
        let (_, seen) =
            resolve_members(&format!(r#""url":"{url}","query":{query}"#)).unwrap_or_else(|r| panic!("{r}: {query}"));
        assert_eq!(seen, expected);
    };
    check("https://x.test/a", r#"{"b":1,"c":"x y&z=ü","d":true}"#, "https://x.test/a?b=1&c=x%20y%26z%3D%C3%BC&d=true");
    check("https://x.test/a?z=0", r#"{"b":[1,"2",false]}"#, "https://x.test/a?z=0&b=1&b=2&b=false");
    check("https://x.test/a?", r#"{"b":1.50}"#, "https://x.test/a?b=1.50");
    check("https://x.test/a", "{}", "https://x.test/a");
    check("https://x.test/a", r#"{"b":[]}"#, "https://x.test/a");
    check("https://x.test/a", r##"{"#":"#"}"##, "https://x.test/a?%23=%23");
    for query in [r#"{"b":null}"#, r#"{"b":{}}"#, r#"{"b":[[1]]}"#, r#"{"b":[null]}"#] {
        let rejection = resolve_members(&format!(r#""url":"https://x.test","query":{query}"#)).expect_err(query);
        assert_eq!(rejection.key.as_deref(), Some("query.b"));
    }
    let rejection = resolve_members(r#""url":"https://x.test","query":"a=1""#).expect_err("not an object");
    assert_eq!(rejection.key.as_deref(), Some("query"));
}

proptest! {
    #[test]
    fn whatever_is_accepted_stays_in_its_base_and_can_be_sent(
        end_point in "([.a%2eE5cfF/\\\\?@:#&;= \t\"{}|^`<>é]|\\.\\.|%2e|%2f|//){0,12}",
    ) {
        if let Ok((upstream, url)) = based("https://shop.test/admin", &end_point) {
            prop_assert!(matches!(upstream, UpstreamRef::Declared(_)));
            prop_assert!(url.parse::<http::Uri>().is_ok(), "{url}");
            let path = Url::parse(&url).expect("it was one").path().to_owned();
            // An independent look: decode everything, resolve segments by hand, never rise above the base.
            let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().replace('\\', "/");
            let rest = decoded.strip_prefix("/admin").expect("below its base");
            prop_assert!(rest.is_empty() || rest.starts_with('/'));
            let mut depth = 0i32;
            for segment in rest.split('/').skip(1) {
                depth += match segment { ".." => -1, "." | "" => 0, _ => 1 };
                prop_assert!(depth >= 0, "{url}");
            }
        }
    }
}
