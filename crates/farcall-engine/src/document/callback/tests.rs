//! Callbacks that calls ask for: what is taken, and what is refused with its key and never with the secret.

use bytes::Bytes;
use url::Url;

use crate::config::{Config, Upstream};
use crate::document::{RejectionKind, Routing, UpstreamRef, callback_of, parse};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn config() -> Config {
    let base_url = Url::parse("https://shop.example/admin").expect("a URL");
    let shop = Upstream { base_url: Some(base_url), ..Upstream::default() };
    Config { upstreams: [("shop", shop)].into_iter().collect(), ..Config::default() }
}

fn document(callback: &str) -> Bytes {
    format!(r#"{{"url": "http://127.0.0.1/", "callback": {callback}}}"#).into()
}

#[test]
fn a_callback_has_a_url_and_perhaps_a_secret() {
    let config = config();
    let check = |callback: &str, upstream: UpstreamRef, is_signed: bool| {
        let document = document(callback);
        let parsed = parse(&document, &Routing::from(&config)).expect("a valid call").callback.expect("a callback");
        let parsed = *parsed;
        let alone = callback_of(&document, &Routing::from(&config)).expect("the same callback");
        for own in [parsed, alone] {
            assert_eq!((&own.upstream, own.key.is_some()), (&upstream, is_signed), "{callback}");
        }
    };
    let declared = || UpstreamRef::Declared("shop".to_owned());
    let undeclared = |origin: &str| UpstreamRef::Undeclared(origin.to_owned());
    check(r#"{"url": "https://shop.example/admin/hook?x=1"}"#, declared(), false);
    check(r#"{"url": "https://shop.example/administrator"}"#, undeclared("https://shop.example"), false);
    check(
        &format!(r#"{{"url": "http://hook.example:8080", "secret": "{SECRET}"}}"#),
        undeclared("http://hook.example:8080"),
        true,
    );
}

#[test]
fn what_is_no_callback_is_refused_by_key() {
    let check = |callback: &str, key: &str, message: &str| {
        let rejection = parse(&document(callback), &Routing::from(&config())).expect_err(callback);
        assert_eq!((rejection.kind, rejection.key.as_deref()), (RejectionKind::Invalid, Some(key)), "{rejection}");
        assert!(rejection.message.contains(message), "{rejection}");
        assert!(!rejection.message.contains("hunter"), "{rejection}");
        assert!(callback_of(&document(callback), &Routing::from(&config())).is_none());
    };
    check(r#""curl https://hook.example""#, "callback", "command lines stand in the configuration only");
    check("null", "callback", "must be an object");
    check("{}", "callback", "must have a `url`");
    check(r#"{"url": "https://h.example", "secrets": "x"}"#, "callback.secrets", "is `secret` meant?");
    check(r#"{"url": "ftp://h.example"}"#, "callback.url", "http:// or https://");
    check(r#"{"url": "https://u:p@h.example"}"#, "callback.url", "user information");
    check(r#"{"url": "https://h.example/#x"}"#, "callback.url", "fragment");
    check(r#"{"url": 1}"#, "callback.url", "must be a string");
    check(r#"{"url": "https://h.example", "secret": "hunter2"}"#, "callback.secret", "begins with `whsec_`");
    check(r#"{"url": "https://h.example", "secret": "whsec_hunter2"}"#, "callback.secret", "base64");
    check(r#"{"url": "https://h.example", "secret": "whsec_hunter22"}"#, "callback.secret", "24 to 64 bytes");
    check(r#"{"url": "https://h.example", "secret": "${env:HOME}"}"#, "callback.secret", "whsec_");
    check(r#"{"url": "https://h.example", "secret": null}"#, "callback.secret", "must be a string");
}
