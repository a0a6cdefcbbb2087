//! The scanner against tables, and against serde_json's grammar.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn problem(text: &str) -> Option<(usize, Problem)> {
    scan(text, usize::MAX).err().map(|flaw| (flaw.at, flaw.problem))
}

#[test]
fn syntax_errors_tell_what_and_where() {
    let check = |text: &str, at: usize, message: &'static str| {
        assert_eq!(problem(text), Some((at, Problem::Syntax(message))), "{text}");
    };
    check("", 0, "the text ends where a value was expected");
    check("  ", 2, "the text ends where a value was expected");
    check("{", 1, "the text ends inside an object");
    check(r#"{"a""#, 4, "the text ends after a key");
    check(r#"{"a"}"#, 4, "expected `:` after a key");
    check(r#"{"a":}"#, 5, "expected a value");
    check(r#"{"a":1,}"#, 7, "trailing comma: expected a key");
    check(r#"{"a":1 "b":2}"#, 7, "expected `,` or `}`");
    check(r#"{a:1}"#, 1, "expected a key in double quotes");
    check(r#"{"a":[1,]}"#, 8, "trailing comma: expected a value");
    check(r#"{"a":[1}"#, 7, "expected `,` or `]`");
    check("{} {}", 3, "unexpected text after the value");
    check(r#"{"a":01}"#, 6, "a number must not begin with 0");
    check(r#"{"a":1.}"#, 7, "expected a digit");
    check(r#"{"a":+1}"#, 5, "expected a value");
    check(r#"{"a":nul}"#, 5, "expected a value");
    check("{\"a\":\"b\nc\"}", 7, "a control character in a string must be escaped");
    check(r#"{"a":"\x"}"#, 7, "unknown escape in a string");
    check(r#"{"a":"\u12g4"}"#, 10, "expected four hexadecimal digits after `\\u`");
    check(r#"{"a":"b"#, 7, "the text ends inside a string");
}

#[test]
fn duplicate_keys_are_found_at_any_depth_and_in_any_spelling() {
    let check = |text: &str, at: usize, key: &str| {
        assert_eq!(problem(text), Some((at, Problem::DuplicateKey(key.to_owned()))), "{text}");
    };
    check(r#"{"a":1,"a":2}"#, 7, "a");
    check(r#"{"a":1,"\u0061":2}"#, 7, "a");
    check(r#"{"b":[{"x":{"a":1,"c":2,"a":3}}]}"#, 24, "a");
    check(r#"{"\ud83d\ude00":1,"😀":2}"#, 18, "😀");
    check(r#"{"\ud800":1,"\uD800":2}"#, 12, r"\uD800");
    assert_eq!(problem(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#), None);
}

#[test]
fn duplicates_among_many_keys_are_found() {
    let mut keys: Vec<String> = (0..1_000).map(|number| format!(r#""k{number}":{number}"#)).collect();
    assert_eq!(problem(&format!("{{{}}}", keys.join(","))), None);
    keys.push(r#""\u006b500":0"#.to_owned());
    let text = format!("{{{}}}", keys.join(","));
    let at = text.rfind(r#""\u006b"#).expect("it was put in");
    assert_eq!(problem(&text), Some((at, Problem::DuplicateKey("k500".to_owned()))));
}

#[test]
fn nesting_of_128_passes_and_129_does_not() {
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(problem(&nested(128)), None);
    assert_eq!(problem(&nested(129)), Some((5 + 127, Problem::TooDeep)));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    assert_eq!(problem(&objects(128)), None);
    assert_eq!(problem(&objects(129)), Some((5 * 128, Problem::TooDeep)));
    assert!(matches!(problem(&"[".repeat(1_000_000)), Some((_, Problem::TooDeep))));
}

#[test]
fn members_are_found_where_they_lie() {
    let text = r#" {"a" : [1, "x", {}] , "b\u0021": {"c": null},"d":-0.5e+3 } "#;
    let (whole, members) = scan(text, usize::MAX).expect("it is JSON");
    assert_eq!(whole.raw(), text.trim());
    let seen: Vec<(&str, &str)> = members.iter().map(|member| (member.key.as_ref(), member.value.raw())).collect();
    assert_eq!(seen, [("a", r#"[1, "x", {}]"#), ("b!", r#"{"c": null}"#), ("d", "-0.5e+3")]);
    let elements: Vec<&str> = members[0].value.children(usize::MAX).iter().map(|element| element.value.raw()).collect();
    assert_eq!(elements, ["1", r#""x""#, "{}"]);
    for member in &members {
        assert!(text[member.key_at..].starts_with('"'), "{member:?}");
    }
}

/// Texts that are JSON, almost JSON, or neither.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"b\"", "\"a\":", "\"b\":", "1", "-", "0", ".5", "e9", "1e400",
        "true", "fals", "null", " ", "\n", "\\", "\\u00e9", "\\ud800", "\\n", "é", "😀", "\u{0}",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// JSON by construction.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..20)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn the_plain_bytes_of_a_string_end_at_the_first_that_is_not() {
    let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    let check = |text: &[u8]| {
        let expected = text.iter().position(|&byte| is_special(byte)).unwrap_or(text.len());
        assert_eq!(plain_length(text), expected, "{text:x?}");
    };
    // Every byte at every place of a word and behind it, beside those that are next to special ones.
    for (byte, place) in (0..=u8::MAX).flat_map(|byte| (0..20).map(move |place| (byte, place))) {
        for around in [b'a', b'!', b'#', b'[', b']', 0x20, 0x80, 0xa2, 0xff] {
            let mut text = [around; 20];
            text[place] = byte;
            check(&text);
            text[19] = b'"';
            check(&text[..=place]);
        }
    }
}

proptest! {
    #[test]
    fn the_grammar_is_serde_jsons(text in texts()) {
        let theirs = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        let ours = match problem(&text) {
            None | Some((_, Problem::DuplicateKey(_))) => true,
            Some((_, Problem::Syntax(_) | Problem::TooDeep)) => false,
        };
        // A duplicate is reported before a later error of syntax.
        prop_assert!(ours == theirs || matches!(problem(&text), Some((_, Problem::DuplicateKey(_)))), "{text}");
    }

    #[test]
    fn whatever_serde_json_writes_reads_back(value in values()) {
        for text in [value.to_string(), format!("{value:#}")] {
            let (whole, members) = scan(&text, usize::MAX).map_err(|flaw| TestCaseError::fail(format!("{flaw:?} in {text}")))?;
            prop_assert_eq!(whole.raw(), &text);
            for member in members {
                let expected = match &value {
                    serde_json::Value::Object(map) => map[member.key.as_ref()].clone(),
                    _ => continue,
                };
                let read: serde_json::Value = serde_json::from_str(member.value.raw()).expect("a part of JSON is JSON");
                prop_assert_eq!(read.is_null(), expected.is_null());
                if let Some(text) = expected.as_str() {
                    prop_assert_eq!(member.value.string(), Some(Cow::Borrowed(text)));
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_scanner_panic(text in any::<String>()) {
        let _ = scan(&text, usize::MAX);
    }
}
