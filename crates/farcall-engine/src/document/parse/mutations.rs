//! A hundred thousand call documents made wrong in every way a byte or a part can be wrong, from one fixed seed.
//!
//! Held are: nothing panics, what is accepted is JSON, a mistake has a place inside the text, and no message repeats more
//! of a document than a line can show.

use serde::de::IgnoredAny;

use super::*;
use crate::config::Config;

const SEED: u64 = 0x5eed_0001;
const DOCUMENTS: u32 = 100_000;
/// The longest message and key; keys are repeated up to 128 bytes, some of them twice.
const MESSAGE_BYTES_MAX: usize = 600;

const VALID: [&str; 4] = [
    r#"{"url":"https://api.test/orders?x=1","method":"PUT","query":{"a":1,"b":"ü"},"headers":{"X-A":"1","accept":"*/*"},
        "body":{"order_id":123,"lines":[{"sku":"a","n":1.5e-3},{"sku":"😀","n":null}]},"tags":["x","y"]}"#,
    r#"{"base_url":"http://127.0.0.1:8080/a/","end_point":"/../a/b%2e%2e/c","body_base64":"aGVsbG8=","cost":3,"priority":5}"#,
    r#"{"url":"https://h/","retry":{"max":3,"base":"1s","factor":2,"max_delay":"1h","jitter":"full","statuses":[408,"500-599"],
        "methods":["GET","PUT"]},"on_unknown":"retry","success":{"statuses":["200-299"],"content_type":"application/json"}}"#,
    r#"{"upstream":"x","url":"https://h/","idempotency_key":"k-1","idempotent":true,"delay":"1m30s","deadline":600,"timeout":0.5,
        "tenant":"t","max_response":"16MiB","not_before":"2026-11-20T09:00:00Z","body":"\u00e9\ud83d\ude00"}"#,
];

const PARTS: [&str; 32] = [
    "\0",
    "\u{feff}",
    "\n",
    "\r\n",
    "\u{202e}",
    "\u{1b}[31m",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00\\ud800",
    "\\u12",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "{}{}",
    "1e400",
    "-1e-400",
    "01",
    "NaN",
    "18446744073709551616",
    "null",
    "true",
    "//",
    "/*",
    "\"a\":1,\"\\u0061\":2",
    "\"../../../etc/passwd\"",
    "\"http://user:pw@[::1]:99999/#f\"",
];

/// Bytes that were a document before something happened to them.
fn mutated(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = VALID[rng.usize(..VALID.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(1..=4) {
        mutate(rng, &mut bytes);
    }
    bytes
}

fn mutate(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(..=bytes.len());
    let until = (at + rng.usize(..24)).min(bytes.len());
    match rng.u8(..8) {
        0 if at < bytes.len() => bytes[at] = rng.u8(..),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..until)),
        // A part twice: a duplicate key, often.
        3 => {
            let part = bytes[at..until].to_vec();
            drop(bytes.splice(at..at, part));
        }
        4 => {
            let other = VALID[rng.usize(..VALID.len())].as_bytes();
            let from = rng.usize(..other.len());
            drop(bytes.splice(at..until, other[from..(from + 40).min(other.len())].iter().copied()));
        }
        5 => {
            let deep = [b"[".repeat(rng.usize(..300)), b"{\"a\":".repeat(rng.usize(..300))].concat();
            drop(bytes.splice(at..at, deep));
        }
        // In a value's place, where there is one.
        6 => {
            let colon = bytes[at..].iter().position(|&byte| byte == b':').map_or(at, |found| at + found + 1);
            let end = bytes[colon..].iter().position(|&byte| byte == b',').map_or(colon, |found| colon + found);
            drop(bytes.splice(colon..end, PARTS[rng.usize(..PARTS.len())].bytes()));
        }
        _ => drop(bytes.splice(at..at, PARTS[rng.usize(..PARTS.len())].bytes())),
    }
}

fn check_place(text: &str, rejection: &Rejection) {
    let (Some(line), Some(column)) = (rejection.line, rejection.column) else { panic!("no place: {rejection:?}") };
    let lines: Vec<&str> = text.split('\n').collect();
    let shown = lines.get(line as usize - 1).unwrap_or_else(|| panic!("no such line: {rejection:?} of {text:?}"));
    assert!(column as usize <= shown.chars().count() + 1, "no such column: {rejection:?} of {text:?}");
}

#[test]
fn a_hundred_thousand_spoiled_documents_are_accepted_or_told_what_is_wrong() {
    let (config, mut rng) = (Config::default(), fastrand::Rng::with_seed(SEED));
    let (mut accepted, mut rejected) = (0, 0);
    for _ in 0..DOCUMENTS {
        let bytes = Bytes::from(mutated(&mut rng));
        match parse(&bytes, &Routing::from(&config)) {
            Ok(_) => {
                accepted += 1;
                let read = serde_json::from_slice::<IgnoredAny>(&bytes);
                assert!(read.is_ok(), "accepted, and no JSON: {read:?} of {}", bytes.escape_ascii());
            }
            Err(rejection) => {
                rejected += 1;
                let told = rejection.message.len().max(rejection.key.as_ref().map_or(0, String::len));
                assert!((1..=MESSAGE_BYTES_MAX).contains(&told), "{rejection:?}");
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    check_place(text, &rejection);
                }
            }
        }
    }
    assert!(accepted > DOCUMENTS / 100 && rejected > DOCUMENTS / 2, "{accepted} accepted, {rejected} rejected");
}

#[test]
fn an_object_of_a_million_keys_is_refused_at_the_first_that_is_none() {
    let keys: Vec<String> = (0..1_000_000).map(|number| format!("\"{number}\":0")).collect();
    let rejection = parse(&Bytes::from(format!("{{{}}}", keys.join(","))), &Routing::from(&Config::default()));
    assert_eq!(rejection.expect_err("unknown keys").key.as_deref(), Some("0"));
    let query = format!(r#"{{"url":"https://h/","query":{{{}}}}}"#, keys.join(","));
    let rejection = parse(&Bytes::from(query), &Routing::from(&Config::default())).expect_err("a long query");
    assert_eq!(rejection.message, "`query` must have at most 10000 keys");
}
