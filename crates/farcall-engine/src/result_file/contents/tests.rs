//! Response files as users read them.

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Source, State, TenantId, Via};
use farcall_core::time::Timestamp;
use farcall_store::record::{ErrorRecord, Progress};
use serde_json::{Value, json};

use super::*;
use crate::document::RejectionKind;

const ID: &str = "call_01890a5d-ac96-774b-bcce-b302099a8057";

fn call(state: State) -> CallRecord {
    let at = |millis: i64| Timestamp::from_micros(1_795_165_200_000_000 + millis * 1_000);
    CallRecord {
        id: ID.parse().expect("a test's id"),
        source: Source::Inbox,
        via: Via::User,
        upstream: None,
        limit_key: "https://api.test".to_owned(),
        method: "GET".to_owned(),
        url: "https://api.test/".to_owned(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at: at(0),
        not_before: None,
        deadline: None,
        started_at: Some(at(5)),
        attempts: 1,
        progress: Progress {
            state,
            ready_at: None,
            retries: 0,
            requeues: 0,
            throttles: 0,
            deaths: 0,
            orphaned: 0,
            finished_at: Some(at(17)),
            status: None,
            error: None,
        },
        cancel_requested: false,
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: None,
        filed: false,
        idempotency: None,
        hop: None,
    }
}

fn answer(headers: &[(&str, &[u8])], body: &'static [u8]) -> ResponseRecord {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    ResponseRecord { status: 200, headers, body: Bytes::from_static(body), decoded: false }
}

fn read(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("it is JSON")
}

fn response_to(answer: &ResponseRecord) -> Value {
    read(&response(&call(State::Succeeded), Some(answer)))
}

#[test]
fn a_success_reads_as_the_contract_shows_it() {
    let text =
        response(&call(State::Succeeded), Some(&answer(&[("content-type", b"application/json")], b"{\"ok\": true}")));
    let expected = format!(
        "{{\"id\":\"{ID}\",\"state\":\"succeeded\",\"status\":200,\"headers\":{{\"content-type\":\"application/json\"}},\
         \"body\":{{\"ok\": true}},\"attempts\":1,\"accepted_at\":\"2026-11-20T09:00:00.000Z\",\
         \"started_at\":\"2026-11-20T09:00:00.005Z\",\"finished_at\":\"2026-11-20T09:00:00.017Z\",\"duration_ms\":12}}\n"
    );
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

#[test]
fn a_body_is_json_when_it_says_so_and_parses_else_text_else_base64() {
    let check = |content_type: &'static [u8], body: &'static [u8], expected: Value| {
        let seen = response_to(&answer(&[("content-type", content_type)], body));
        assert_eq!(json!([seen.get("body"), seen.get("body_base64")]), expected, "{}", body.escape_ascii());
    };
    check(b"application/json", b"[1]", json!([[1], null]));
    check(b"Application/JSON; charset=utf-8", b" 7 ", json!([7, null]));
    check(b"application/problem+json", b"null", json!([null, null]));
    check(b"application/json", b"[1", json!(["[1", null]));
    check(b"application/json", b"", json!(["", null]));
    check(b"application/json", b"\"\xff\"", json!([null, "Iv8i"]));
    check(b"text/plain", b"[1]", json!(["[1]", null]));
    check(b"application/jsonp", b"[1]", json!(["[1]", null]));
    check(b"image/png", b"\x89P", json!([null, "iVA="]));
    let without_type = response_to(&answer(&[], b"[1]"));
    assert_eq!(without_type["body"], "[1]");
}

#[test]
fn a_json_body_is_not_rewritten() {
    let body = br#"{"a":1e400,  "a":"\ud800", "b":0.10000000000000000000001}"#;
    let text = response(&call(State::Succeeded), Some(&answer(&[("content-type", b"application/json")], body)));
    assert!(text.windows(body.len()).any(|window| window == body));
}

#[test]
fn headers_are_joined_but_for_cookies() {
    let seen = response_to(&answer(
        &[
            ("b", b"1"),
            ("set-cookie", b"x=1"),
            ("a", b"J\xfcrgen"),
            ("b", b"2"),
            ("set-cookie", b"y=2"),
            ("c", "ü".as_bytes()),
        ],
        b"",
    ));
    assert_eq!(seen["headers"], json!({"b": "1, 2", "set-cookie": ["x=1", "y=2"], "a": "Jürgen", "c": "ü"}));
    let one = response_to(&answer(&[("set-cookie", b"x=1")], b""));
    assert_eq!(one["headers"], json!({"set-cookie": ["x=1"]}));
}

#[test]
fn coding_and_length_are_left_out_only_when_the_body_was_decoded() {
    let headers: &[(&str, &[u8])] = &[("content-encoding", b"gzip"), ("content-length", b"9"), ("x", b"y")];
    let mut record = answer(headers, b"text");
    assert_eq!(response_to(&record)["headers"].as_object().map(serde_json::Map::len), Some(3));
    record.decoded = true;
    assert_eq!(response_to(&record)["headers"], json!({"x": "y"}));
}

#[test]
fn an_end_without_an_answer_has_an_error_and_nothing_of_an_answer() {
    let mut record = call(State::Expired);
    record.started_at = None;
    record.attempts = 0;
    record.progress.error = Some(ErrorRecord { kind: ErrorKind::Deadline, message: "too \"late\"".to_owned() });
    let seen = read(&response(&record, None));
    let expected = json!({
        "id": ID, "state": "expired", "error": {"kind": "deadline", "message": "too \"late\""}, "attempts": 0,
        "accepted_at": "2026-11-20T09:00:00.000Z", "finished_at": "2026-11-20T09:00:00.017Z",
    });
    assert_eq!(seen, expected);
}

#[test]
fn rejections_have_no_id_and_tell_the_place() {
    let rejection = Rejection {
        kind: RejectionKind::Syntax,
        message: "expected `:` after a key".to_owned(),
        key: None,
        line: Some(7),
        column: Some(5),
    };
    let expected = json!({
        "state": "rejected",
        "error": {"kind": "invalid", "message": "expected `:` after a key", "line": 7, "column": 5},
    });
    assert_eq!(read(&rejected_response(&rejection)), expected);
    let expected = json!({
        "type": "about:blank", "title": "The document is not one JSON object", "status": 400, "code": "malformed_document",
        "detail": "expected `:` after a key", "line": 7, "column": 5,
    });
    assert_eq!(read(&problem(&rejection)), expected);
}

#[test]
fn a_response_tells_whose_it_is() {
    let record = call(State::Succeeded);
    let text = response(&record, None);
    assert_eq!(author(&text[..HEAD_BYTES]), Some(Author::Call(record.id)));
    let rejection =
        Rejection { kind: RejectionKind::Invalid, message: String::new(), key: None, line: None, column: None };
    assert_eq!(author(&rejected_response(&rejection)), Some(Author::Rejection));
    for other in ["", "{}", "{\"id\":\"x\"}", "{\"id\":\"call_", "hello"] {
        assert_eq!(author(other.as_bytes()), None, "{other}");
    }
}
