//! Methods, headers and bodies, accepted and refused.

use bytes::Bytes;

use crate::config::Config;
use crate::document::{Body, Document, Rejection, Routing, parse};

fn read(members: &str) -> Result<Document, Rejection> {
    let text = format!(r#"{{"url":"https://api.test/",{members}}}"#);
    parse(&Bytes::from(text), &Routing::from(&Config::default()))
}

fn refuse(members: &str, key: &str, message: &str) {
    let rejection = read(members).expect_err(members);
    assert_eq!(rejection.key.as_deref(), Some(key), "{members}: {rejection}");
    assert!(rejection.message.contains(message), "{members}: {rejection}");
}

#[test]
fn the_method_is_the_one_given_or_follows_from_the_body() {
    let check = |members: &str, expected: &str| assert_eq!(read(members).expect(members).method, expected, "{members}");
    check(r#""body":null"#, "GET");
    check(r#""body":{}"#, "POST");
    check(r#""body":"""#, "POST");
    check(r#""body_base64":"""#, "POST");
    check(r#""body":{},"method":"GET""#, "GET");
    check(r#""method":"PROPFIND""#, "PROPFIND");
    check(r#""method":"propfind""#, "propfind");
    check(r#""method":"TRACE""#, "TRACE");
    refuse(r#""method":"Post""#, "method", r#"is "POST" meant?"#);
    refuse(r#""method":"CONNECT""#, "method", "tunnel");
    refuse(r#""method":"TRACE","body":{}"#, "method", "TRACE");
    refuse(r#""method":"""#, "method", "a method's name");
    refuse(r#""method":"GET /x HTTP/1.1\r\nX:""#, "method", "a method's name");
    refuse(r#""method":1"#, "method", "must be a string");
}

#[test]
fn bodies_are_sent_as_they_are_meant() {
    let check = |members: &str, expected: Body| assert_eq!(read(members).expect(members).body, expected, "{members}");
    check(r#""body":"a\n\u00e9""#, Body::Raw(Bytes::from("a\né")));
    check(r#""body":7"#, Body::Json(Bytes::from("7")));
    check(r#""body":null"#, Body::None);
    check(r#""body_base64":"AAEC/w==""#, Body::Raw(Bytes::from_static(&[0, 1, 2, 255])));
    check(r#""body_base64":"AAEC/w""#, Body::Raw(Bytes::from_static(&[0, 1, 2, 255])));
    check(r#""body_base64":null"#, Body::None);
    refuse(r#""body":{},"body_base64":"""#, "body_base64", "excludes `body`");
    refuse(r#""body_base64":"*""#, "body_base64", "must be base64");
    refuse(r#""body_base64":5"#, "body_base64", "must be a string");
}

#[test]
fn headers_are_read_in_order_and_lower_case() {
    let call =
        read(r#""headers":{"X-B":"b c","x-a":1.50,"X-C":false,"x-d":"J\u00fcrgen","x-e":""}"#).expect("they are fine");
    let seen: Vec<(&str, &[u8])> = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let expected: [(&str, &[u8]); 5] =
        [("x-b", b"b c"), ("x-a", b"1.50"), ("x-c", b"false"), ("x-d", "Jürgen".as_bytes()), ("x-e", b"")];
    assert_eq!(seen, expected);
}

#[test]
fn headers_of_the_connection_and_split_headers_are_refused_by_name() {
    for name in [
        "Connection",
        "keep-alive",
        "Proxy-Authorization",
        "proxy-connection",
        "TE",
        "Trailer",
        "transfer-encoding",
        "Upgrade",
        "Host",
        "Content-Length",
    ] {
        refuse(
            &format!(r#""headers":{{"ok":1,"{name}":"x"}}"#),
            &format!("headers.{name}"),
            "belongs to the connection",
        );
    }
    refuse(r#""headers":{"x":"a\r\nb: c"}"#, "headers.x", "CR, LF or NUL");
    refuse(r#""headers":{"x":"a\nb"}"#, "headers.x", "CR, LF or NUL");
    refuse(r#""headers":{"x":"a\u0000"}"#, "headers.x", "CR, LF or NUL");
    refuse(r#""headers":{"x":"a\u0007"}"#, "headers.x", "control characters");
    refuse(r#""headers":{"a b":"c"}"#, "headers.a b", "no name of a header");
    refuse(r#""headers":{"":"c"}"#, "headers.", "no name of a header");
    refuse(r#""headers":{"X-A":"1","x-a":"2"}"#, "headers.x-a", "given twice");
    refuse(r#""headers":{"x":null}"#, "headers.x", "string, a number or a boolean");
    refuse(r#""headers":{"x":["a"]}"#, "headers.x", "string, a number or a boolean");
    refuse(r#""headers":["x"]"#, "headers", "must be an object");
    let many: Vec<String> = (0..101).map(|number| format!(r#""h{number}":1"#)).collect();
    refuse(&format!(r#""headers":{{{}}}"#, many.join(",")), "headers", "at most 100");
    refuse(&format!(r#""headers":{{"x":"{}"}}"#, "a".repeat(65_536)), "headers", "65536 bytes");
}
