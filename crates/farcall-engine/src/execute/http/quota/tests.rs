//! What is read of real upstreams' answers, and of nonsense.

use farcall_core::time::Timestamp;
use http::HeaderName;
use proptest::prelude::*;

use super::*;

/// Answers of real upstreams; the form is explained at its top.
const DIALECTS: &str = include_str!("dialects.txt");
/// 2026-11-20T09:00:00Z.
const NOW: Timestamp = Timestamp::from_micros(1_795_165_200_000_000);

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, value.parse().expect("a header value"));
    }
    headers
}

fn said(lines: &[(&str, &str)]) -> String {
    told(read(&headers(lines), NOW))
}

fn told(said: Option<Remaining>) -> String {
    let Some(said) = said else { return "nothing".to_owned() };
    let one = |bound: &Bound| format!("{} in {}s", bound.remaining(), bound.resets_in().as_secs_f64());
    said.bounds().iter().map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn real_dialects_are_read() {
    let blocks: Vec<&str> = DIALECTS.split("\n\n").filter(|block| !block.starts_with('#')).collect();
    assert!(blocks.len() >= 60, "{} dialects", blocks.len());
    for block in blocks {
        let lines = |mark: &'static str| block.lines().filter_map(move |line| line.strip_prefix(mark));
        let at: jiff::Timestamp = lines("at ").next().and_then(|at| at.parse().ok()).expect("a moment");
        assert!(lines("source ").any(|source| source.starts_with("http")), "no source:\n{block}");
        let fields: Vec<(&str, &str)> = lines("> ").map(|line| line.split_once(": ").expect("a header")).collect();
        let found = told(read(&headers(&fields), Timestamp::from_micros(at.as_microsecond())));
        assert_eq!(found, lines("= ").collect::<Vec<_>>().join(", "), "{block}");
    }
}

#[test]
fn the_difference_of_the_clocks_is_removed() {
    let dated = [("date", "Fri, 20 Nov 2026 11:00:00 GMT"), ("ratelimit-remaining", "5")];
    for reset in ["1795172430", "1795172430000", "2026-11-20T11:00:30Z", "Fri, 20 Nov 2026 11:00:30 GMT", "30"] {
        assert_eq!(said(&[dated[0], dated[1], ("ratelimit-reset", reset)]), "5 in 30s", "{reset}");
    }
    assert_eq!(said(&[("date", "soon"), dated[1], ("ratelimit-reset", "1795165230")]), "5 in 30s");
}

#[test]
fn what_makes_no_sense_is_no_statement() {
    for remaining in ["", "-1", "unlimited", "many", "NaN", "1e9", "0x10"] {
        assert_eq!(
            said(&[("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "60")]),
            "nothing",
            "{remaining}"
        );
    }
    for reset in ["", "-1", "soon", "9999-12-31T23:59:59Z", "999999999", "null"] {
        assert_eq!(said(&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", reset)]), "3 in 1s", "{reset}");
    }
    assert_eq!(said(&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "1795165100")]), "nothing", "it is past");
    assert_eq!(
        said(&[("x-ratelimit-limit", "0"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9")]),
        "nothing"
    );
    assert_eq!(said(&[("x-ratelimit-limit", "100"), ("x-ratelimit-reset", "60")]), "nothing");
    assert_eq!(said(&[("x-ratelimit-used", "100"), ("x-ratelimit-reset", "60")]), "nothing");
}

#[test]
fn of_several_statements_about_the_same_the_lowest_holds() {
    let both = [("ratelimit-remaining", "9"), ("x-ratelimit-remaining", "7"), ("ratelimit-reset", "30")];
    assert_eq!(said(&both), "7 in 30s");
    assert_eq!(
        said(&[("ratelimit-remaining", "9"), ("ratelimit-remaining", "2"), ("ratelimit-reset", "30")]),
        "2 in 30s"
    );
}

#[test]
fn used_up_until_this_very_second_is_used_up_for_one_more() {
    assert_eq!(said(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "0")]), "0 in 1s");
    assert_eq!(said(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "1795165200")]), "0 in 1s");
    assert_eq!(said(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "1795165199")]), "nothing");
}

#[test]
fn what_comes_from_a_cache_is_out_of_date() {
    let fresh = [("ratelimit-remaining", "0"), ("ratelimit-reset", "60")];
    assert_eq!(said(&[fresh[0], fresh[1], ("age", "0")]), "0 in 60s");
    assert_eq!(said(&[fresh[0], fresh[1], ("age", "12")]), "nothing");
}

/// Names and values that are nearly right.
fn nearly() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let word = prop::sample::select(vec![
        "x",
        "ratelimit",
        "rate-limit",
        "limit",
        "remaining",
        "reset",
        "after",
        "ms",
        "used",
        "requests",
        "day",
        "policy",
        "window",
        "left",
        "concurrent",
        "userremaining",
    ]);
    let name = prop::collection::vec(word, 1..6).prop_map(|words| words.join("-"));
    let piece = prop::sample::select(vec![
        "0",
        "1",
        "99999999999999999999",
        "1795165230",
        "1795165230000",
        "-",
        ".",
        "r=",
        "t=",
        ";",
        ",",
        "\"",
        "/",
        ":",
        "w=",
        "s",
        "m",
        "h",
        "ms",
        " ",
        "Fri, 20 Nov 2026 09:00:30 GMT",
        "2026-11-20T09:00:30Z",
        "\\",
        "=",
        "remaining=",
        "\u{e9}",
    ]);
    let value = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes());
    let any = prop::collection::vec(32..=255_u8, 0..40);
    prop::collection::vec((name, prop_oneof![3 => value, 1 => any]), 0..12)
}

proptest! {
    #[test]
    fn nonsense_never_panics_and_never_says_more_than_it_may(fields in nearly()) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value.as_slice().try_into()) {
                let value: http::HeaderValue = value;
                headers.append(name, value);
            }
        }
        if let Some(said) = read(&headers, NOW) {
            let bounds = said.bounds();
            prop_assert!(!bounds.is_empty() && bounds.len() <= 3);
            for pair in bounds.windows(2) {
                prop_assert!(pair[0].remaining() < pair[1].remaining() && pair[0].resets_in() < pair[1].resets_in());
            }
            for bound in bounds {
                prop_assert!(!bound.resets_in().is_zero() && bound.resets_in() <= Duration::from_secs(366 * 86_400));
            }
        }
    }

    #[test]
    fn another_statement_only_ever_lowers_what_may_start(remaining in 0..50_u64, other in 0..50_u64, seconds in 1..90_u64) {
        let statement = |remaining: u64| (remaining.to_string(), seconds.to_string());
        let ((one, reset), (two, _)) = (statement(remaining), statement(other));
        let alone = read(&headers(&[("ratelimit-remaining", &one), ("ratelimit-reset", &reset)]), NOW);
        let fields = [("ratelimit-remaining", &*one), ("ratelimit-reset", &*reset), ("x-ratelimit-remaining-user", &*two)];
        let both = read(&headers(&fields), NOW);
        let tightest = |said: Option<Remaining>| said.map_or(u32::MAX, |said| said.bounds()[0].remaining());
        prop_assert!(tightest(both) <= tightest(alone));
    }
}
