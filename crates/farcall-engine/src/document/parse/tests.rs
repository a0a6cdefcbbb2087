//! Every key read, every mistake refused with its key and place.

use std::time::Duration;

use farcall_core::retry::OnUnknown;
use farcall_core::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::document::{Body, UpstreamRef};

fn read_text(text: &str) -> Result<Document, Rejection> {
    parse(&Bytes::copy_from_slice(text.as_bytes()), &Routing::from(&Config::default()))
}

fn accept(text: &str) -> Document {
    read_text(text).unwrap_or_else(|rejection| panic!("{rejection:?} of {text}"))
}

/// The members given, after a URL.
fn with(members: &str) -> String {
    format!(r#"{{"url":"https://api.test/",{members}}}"#)
}

#[test]
fn kofafs_four_keys_make_a_call() {
    let call = accept(
        r#"{ "base_url": "https://korakot.myshopify.com/admin", "end_point": "/orders",
             "headers": {"X-API": "111222"}, "body": {"order_id": 123} }"#,
    );
    assert_eq!(call.upstream, UpstreamRef::Undeclared("https://korakot.myshopify.com".to_owned()));
    assert_eq!(call.url.as_str(), "https://korakot.myshopify.com/admin/orders");
    assert_eq!(call.method, "POST");
    assert_eq!(call.headers[0].0, "x-api");
    assert_eq!(call.headers[0].1, "111222");
    assert_eq!(call.body, Body::Json(Bytes::from_static(br#"{"order_id": 123}"#)));
}

#[test]
fn kofafs_sample_is_rejected_where_its_mistake_is() {
    let sample = r#"{
    "base_url": "https://korakot.myshopify.com/admin",
    "end_point": "/orders",
    "headers": {
      "X-API": "111222",
      "asa"
    },
    "body": {
      "order_id": 123,
      "customer": "abc inc."
    }
}         
"#;
    let rejection = read_text(sample).expect_err("it has a syntax error");
    assert_eq!(rejection.kind, RejectionKind::Syntax);
    assert_eq!((rejection.line, rejection.column), (Some(7), Some(5)));
    assert_eq!(rejection.message, "expected `:` after a key");
}

#[test]
fn every_key_is_read() {
    let call = accept(&with(
        r#""method":"PUT","headers":{"A":1,"b":true},"body_base64":"AP8=","idempotency_key":"k","idempotent":true,
           "delay":"1m30s","deadline":3600,"timeout":2.5,"retry":0,"on_unknown":"stop","max_response":"1MiB",
           "priority":1,"tenant":"acme","cost":10,"tags":["x","y"],
           "success":{"statuses":[200,"300-399"],"content_type":"Application/JSON"}"#,
    ));
    assert_eq!(call.method, "PUT");
    assert_eq!(call.body, Body::Raw(Bytes::from_static(&[0, 255])));
    assert_eq!(call.idempotency_key.as_deref(), Some("k"));
    assert_eq!(call.schedule.not_before, Some(When::After(Duration::from_secs(90))));
    assert_eq!(call.schedule.deadline, Some(When::After(Duration::from_secs(3_600))));
    assert_eq!(call.overrides.timeout, Some(Duration::from_millis(2_500)));
    assert_eq!(call.overrides.retry, Some(RetryPolicy { max: 0, ..RetryPolicy::durable() }));
    assert_eq!(call.overrides.on_unknown, Some(OnUnknown::Stop));
    assert_eq!(call.overrides.idempotent, Some(true));
    assert_eq!(call.max_response, Some(1 << 20));
    assert_eq!((call.priority.level(), call.cost.get()), (1, 10));
    assert_eq!((call.tenant.as_deref(), call.tags.len()), (Some("acme"), 2));
    let statuses = call.success.statuses.expect("they are given");
    assert_eq!(statuses.ranges(), [(200, 200), (300, 399)]);
    assert_eq!(call.success.content_type, Some(Some("application/json".to_owned())));
}

#[test]
fn what_is_left_out_has_its_default() {
    let call = accept(r#"{"url":"https://api.test/"}"#);
    assert_eq!(call.method, "GET");
    assert_eq!((call.priority.level(), call.cost.get()), (3, 1));
    assert_eq!(call.schedule, Schedule::default());
    assert_eq!(call.overrides, Overrides::default());
    assert_eq!((call.tenant, call.idempotency_key, call.max_response), (None, None, None));
}

#[test]
fn a_whole_number_is_one_however_it_is_written() {
    let call =
        accept(&with(r#""priority":1.0,"cost":1e1,"max_response":1024.0,"retry":2.0,"success":{"statuses":[2e2]}"#));
    assert_eq!((call.priority.level(), call.cost.get(), call.max_response), (1, 10, Some(1_024)));
    assert_eq!(call.overrides.retry.map(|retry| retry.max), Some(2));
    assert_eq!(call.success.statuses.expect("they are given").ranges(), [(200, 200)]);
}

#[test]
fn times_are_rfc_3339() {
    let call = accept(&with(r#""not_before":"2026-11-20T10:00:00+01:00","deadline":"2026-11-20T09:00:01.5Z""#));
    let nine = 1_795_165_200_000_000;
    assert_eq!(call.schedule.not_before, Some(When::At(Timestamp::from_micros(nine))));
    assert_eq!(call.schedule.deadline, Some(When::At(Timestamp::from_micros(nine + 1_500_000))));
}

#[test]
fn mistakes_name_their_key_and_place() {
    let check = |members: &str, key: &str, message: &str| {
        let text = format!("{{\"url\": \"https://api.test/\",\n  {members}}}");
        let rejection = read_text(&text).expect_err(&text);
        assert_eq!(rejection.kind, RejectionKind::Invalid, "{text}");
        assert_eq!(rejection.key.as_deref(), Some(key), "{text}: {rejection}");
        assert!(rejection.message.contains(message), "{text}: {rejection}");
        assert!(rejection.message.contains(key), "{text}: {rejection}");
        assert_eq!(rejection.line, Some(2), "{text}: {rejection}");
    };
    check(r#""method ":"GET""#, "method ", "is `method` meant?");
    check(r#""header":{}"#, "header", "is `headers` meant?");
    check(r#""xyzzy":1"#, "xyzzy", "unknown key `xyzzy`");
    check(r#""priority":1,"priority":2"#, "priority", "duplicate key");
    check(r#""body":{"x":[{"a":1,"a":2}]}"#, "a", "duplicate key `a`");
    check(r#""priority":6"#, "priority", "whole number from 1 to 5");
    check(r#""priority":"1""#, "priority", "whole number");
    check(r#""priority":1.5"#, "priority", "whole number");
    check(r#""cost":0"#, "cost", "from 1 to 10000");
    check(r#""cost":10001"#, "cost", "from 1 to 10000");
    check(r#""tenant":"""#, "tenant", "1 to 128 bytes");
    check(r#""tenant":"a\nb""#, "tenant", "control characters");
    check(r#""idempotency_key":"""#, "idempotency_key", "1 to 255 bytes");
    check(r#""idempotent":1"#, "idempotent", "true or false");
    check(r#""tags":"a""#, "tags", "must be an array");
    check(r#""tags":[1]"#, "tags", "must be an array of strings");
    check(r#""delay":-1"#, "delay", "must be a duration");
    check(r#""delay":"soon""#, "delay", "must be a duration");
    check(r#""delay":1e400"#, "delay", "100 years");
    check(r#""delay":1,"not_before":"2026-11-20T09:00:00Z""#, "not_before", "excludes `delay`");
    check(r#""not_before":5"#, "not_before", "must be a time");
    check(r#""not_before":"2026-11-20T09:00:00""#, "not_before", "must be a time");
    check(r#""deadline":"tomorrow""#, "deadline", "or a duration");
    check(r#""deadline":0"#, "deadline", "or a duration");
    check(r#""timeout":0"#, "timeout", "longer than 0");
    check(r#""timeout":null"#, "timeout", "must be a duration");
    check(r#""on_unknown":"maybe""#, "on_unknown", r#""retry" or "stop""#);
    check(r#""max_response":0"#, "max_response", "more than 0");
    check(r#""max_response":"big""#, "max_response", "must be a size");
    check(r#""method":"get""#, "method", r#"is "GET" meant?"#);
    check(r#""body":"\ud800""#, "body", "surrogate");
    check(r#""success":{"status":200}"#, "success.status", "is `statuses` meant?");
    check(r#""retry":{"maximum":1}"#, "retry.maximum", "unknown key");
    check(r#""hedge":1"#, "hedge", "must be an object such as");
    check(r#""hedge":{"extra":2}"#, "hedge", "must say `after` how long");
    check(r#""hedge":{"after":0}"#, "hedge.after", "longer than 0");
    check(r#""hedge":{"after":"p20"}"#, "hedge.after", "a percentile from");
    check(r#""hedge":{"after":1,"extra":11}"#, "hedge.extra", "from 1 to 10");
    check(r#""hedge":{"after":1,"budget":10}"#, "hedge.budget", "must be a share");
    check(r#""hedge":{"afer":1}"#, "hedge.afer", "is `after` meant?");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    for key in ["function", "args"] {
        let rejection = read_text(&with(&format!(r#""{key}":{{}}"#))).expect_err(key);
        assert_eq!(rejection.kind, RejectionKind::NotAvailableYet);
        assert_eq!(rejection.key.as_deref(), Some(key));
    }
    let rejection = read_text(&with(r#""callback":{"function":"x"}"#)).expect_err("it comes later");
    assert_eq!((rejection.kind, rejection.key.as_deref()), (RejectionKind::NotAvailableYet, Some("callback.function")));
    let rejection = read_text(&with(r#""retry":{"budget":"20%"}"#)).expect_err("it comes later");
    assert_eq!((rejection.kind, rejection.key.as_deref()), (RejectionKind::NotAvailableYet, Some("retry.budget")));
}

#[test]
fn what_is_not_one_object_is_no_call() {
    let check = |bytes: &[u8], place: (u32, u32), message: &str| {
        let routing = Config::default();
        let rejection = parse(&Bytes::copy_from_slice(bytes), &Routing::from(&routing)).expect_err(message);
        assert_eq!(rejection.kind, RejectionKind::Syntax, "{rejection}");
        assert_eq!((rejection.line, rejection.column), (Some(place.0), Some(place.1)), "{rejection}");
        assert!(rejection.message.contains(message), "{rejection}");
        assert_eq!(rejection.key, None);
    };
    check(b"", (1, 1), "empty");
    check(b" \n\t", (1, 1), "empty");
    check(b"\xef\xbb\xbf{}", (1, 1), "byte order mark");
    check(b"[]", (1, 1), "one JSON object");
    check(b"\n  \"x\"", (2, 3), "one JSON object");
    check(b"{}{}", (1, 3), "unexpected text");
    check(b"{\"a\":\"\xff\"}", (1, 7), "UTF-8");
    check("{\"é\":\n\"é\" x}".as_bytes(), (2, 5), "expected `,`");
    check(b"{\"a\":1\0}", (1, 7), "expected `,`");
}

#[test]
fn a_body_passes_as_written() {
    // With the document's own object 128 deep.
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for body in [r#"{"x" : 1e400 , "y":"\ud800"}"#, "-0.0", "true", "[1,\n 2]", r#"{"ä":"\u00e4"}"#, &deep] {
        let call = accept(&with(&format!(r#""body": {body} "#)));
        assert_eq!(call.body, Body::Json(Bytes::copy_from_slice(body.as_bytes())));
        assert_eq!(call.method, "POST");
    }
    let rejection = read_text(&with(&format!(r#""body":[{deep}]"#))).expect_err("129 deep");
    assert_eq!((rejection.kind, rejection.message.as_str()), (RejectionKind::Invalid, "nesting deeper than 128"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes.into(), &Routing::from(&Config::default()));
    }

    #[test]
    fn no_value_of_a_key_makes_it_panic(
        key in prop::sample::select(CallKeys::KEYS),
        value in prop::sample::select(vec![
            "null", "true", "-1", "0", "1.5", "1e999", "18446744073709551616", "\"\"", "\"x\"", "\"\\ud800\"", "[]", "{}",
            "[[]]", "[null]", "{\"\":null}", "{\"a\":{\"b\":[]}}", "\"http://[\"", "\"https://h:99999/\"", "\"1d1d\"",
        ]),
    ) {
        let _ = read_text(&with(&format!("\"{key}\":{value}")));
        let _ = read_text(&format!("{{\"{key}\":{value}}}"));
    }

    #[test]
    fn a_place_lies_in_the_text(text in "[{}\\[\\]:,\"a1 \n\u{e9}]{0,30}") {
        if let Err(rejection) = read_text(&text) {
            let lines: Vec<&str> = text.split('\n').collect();
            let line = lines[rejection.line.expect("a mistake in a text has a place") as usize - 1];
            prop_assert!(rejection.column.expect("and a column") as usize <= line.chars().count() + 1);
        }
    }
}
