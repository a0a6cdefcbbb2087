//! Answers that are answers: what is sent, what is kept of what comes back.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{HeaderName, Method};

use super::{answer, execute, get, post, request, transport};
use crate::upstream::{Step, Upstream, ok};

pub(super) fn br(plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
    brotli::BrotliCompress(&mut &plain[..], &mut coded, &params).expect("writing to memory succeeds");
    coded
}

pub(super) fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 19).expect("writing to memory succeeds")
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to memory succeeds")
}

pub(super) fn with_head(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), b"\r\n\r\n", body].concat()
}

async fn check(method: Method, reply: &[u8], expected: (u16, &[u8])) {
    for step in [Step::Send(reply.to_vec()), Step::Drip(reply.to_vec())] {
        let upstream = Upstream::always(vec![Step::Request, step]).await;
        let report = execute(&transport(), request(method.clone(), upstream.url("/"), "")).await;
        assert_eq!(answer(&report), expected, "{}", String::from_utf8_lossy(reply));
    }
}

#[tokio::test]
async fn the_request_arrives_as_it_was_given() {
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let mut request = post(upstream.url("/a%20b?q=1&q=2#part"), "{\"x\":1}");
    for (name, value) in [("x-second", "2"), ("content-type", "application/json"), ("x-first", "1")] {
        request.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    assert_eq!(answer(&execute(&transport(), request).await), (200, b"hi".as_slice()));

    let [arrival] = &upstream.arrivals()[..] else { panic!("one request, not {:?}", upstream.arrivals()) };
    let host = format!("host: 127.0.0.1:{}", upstream.port());
    let lines: Vec<&str> = arrival.head.trim_end().lines().collect();
    assert_eq!(
        lines,
        [
            "POST /a%20b?q=1&q=2 HTTP/1.1",
            &host,
            "x-second: 2",
            "content-type: application/json",
            "x-first: 1",
            "accept-encoding: gzip, br, zstd",
            "content-length: 7",
        ]
    );
    assert_eq!(arrival.body, b"{\"x\":1}");
}

#[tokio::test]
async fn every_framing_of_a_body_is_read() {
    check(Method::GET, &ok("hello"), (200, b"hello")).await;
    check(Method::GET, b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone", (404, b"gone")).await;
    check(Method::GET, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi", (200, b"hi")).await;
    check(Method::GET, b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, b"until the end")).await;
    check(Method::GET, b"HTTP/1.0 200 OK\r\n\r\nold", (200, b"old")).await;
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nx-sum: 1\r\n\r\n";
    check(Method::GET, chunked, (200, b"abcde")).await;
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    check(Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 900000000\r\n\r\n", (200, b"")).await;
    check(Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 30\r\n\r\n", (200, b"")).await;
    check(Method::GET, b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")).await;
    check(Method::GET, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n", (304, b"")).await;
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(100);
    check(Method::GET, &[interim, ok("hi")].concat(), (200, b"hi")).await;
}

#[tokio::test]
async fn redirects_are_answers() {
    let moved = b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::always(vec![Step::Serve(moved.to_vec())]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(answer(&report), (302, b"".as_slice()));
    assert_eq!(upstream.arrivals().len(), 1);
}

#[tokio::test]
async fn gzip_is_removed_whoever_asked_for_it() {
    let coded = gzip(b"hello hello hello");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}", coded.len());
    let reply = with_head(&head, &coded);
    check(Method::GET, &reply, (200, b"hello hello hello")).await;

    let upstream = Upstream::always(vec![Step::Serve(reply)]).await;
    let mut own = get(upstream.url("/"));
    own.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
    let report = execute(&transport(), own).await;
    assert_eq!(answer(&report).1, b"hello hello hello");
    let response = report.response.expect("a complete answer");
    assert!(response.decoded);
    assert_eq!(response.headers[0], ("content-encoding".to_owned(), b"gzip".to_vec()));
    assert!(upstream.arrivals()[0].head.contains("accept-encoding: gzip, br\r\n"));
}

#[tokio::test]
async fn an_unknown_coding_is_left_alone() {
    let reply = with_head("HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\ncontent-length: 3", b"\x0b\x01\x80");
    let upstream = Upstream::always(vec![Step::Serve(reply)]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(answer(&report).1, b"\x0b\x01\x80");
    assert!(!report.response.expect("a complete answer").decoded);
}

#[tokio::test]
async fn headers_are_kept_as_received_in_lower_case() {
    let reply = b"HTTP/1.1 200 OK\r\nX-Caf\xc3\xa9: 1\r\n\r\n";
    let upstream = Upstream::always(vec![Step::Request, Step::Send(reply.to_vec())]).await;
    let bad_name = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(bad_name.result.status, None, "a name that is no token is not HTTP");

    let reply = b"HTTP/1.1 200 OK\r\nX-Value: caf\xe9\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::always(vec![Step::Serve(reply.to_vec())]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    let headers = report.response.expect("a complete answer").headers;
    let expected: [(&str, &[u8]); 4] =
        [("x-value", b"caf\xe9"), ("set-cookie", b"a"), ("set-cookie", b"b"), ("content-length", b"0")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
}

#[tokio::test]
async fn the_wish_of_the_answer_is_reported_for_any_status() {
    let reply = b"HTTP/1.1 200 OK\r\nretry-after: 7\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::always(vec![Step::Serve(reply.to_vec())]).await;
    let transport = transport();
    let mut wishful = get(upstream.url("/"));
    wishful.content_type = Some("application/json".to_owned());
    let report = execute(&transport, wishful).await;
    assert_eq!((report.result.retry_after, report.result.content_ok), (Some(Duration::from_secs(7)), false));
    assert_eq!(report.message.as_deref(), Some("the upstream's answer is not of the type application/json"));
    assert!(execute(&transport, get(upstream.url("/"))).await.result.content_ok);
}
