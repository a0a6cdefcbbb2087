//! `Retry-After`: how long an answer asks us to stay away (RFC 9110, section 10.2.3).
//!
//! A date is meant on the upstream's clock, so it is compared with the answer's own `Date`; only without one is our
//! clock asked. It is read for any status; whether it means anything there is the core's decision.

use std::time::Duration;

use farcall_core::time::Timestamp;
use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::http_date;

/// The wait asked for, from now. Nothing for what is no valid wish: garbage, a fraction, a point in the past.
///
/// Numbers too large for a clock saturate.
pub(super) fn wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let wish = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only too many digits can fail here.
        return Some(Duration::from_secs(wish.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date::parse(wish)?;
    let from = http_date::of_answer(headers, now);
    (until >= from).then(|| until.since(from))
}

#[cfg(test)]
mod tests {
    use http::header::DATE;

    use super::*;

    /// 1994-11-06T08:49:37Z, the RFC's own example.
    const EXAMPLE: Timestamp = Timestamp::from_micros(784_111_777_000_000);

    fn headers(retry_after: &str, date: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().expect("a header value"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a header value"));
        }
        headers
    }

    fn check(retry_after: &str, expected_seconds: Option<u64>) {
        let found = wait(&headers(retry_after, None), EXAMPLE);
        assert_eq!(found, expected_seconds.map(Duration::from_secs), "{retry_after:?}");
    }

    #[test]
    fn seconds_are_digits_and_saturate() {
        check("120", Some(120));
        check(" 7 ", Some(7));
        check("0", Some(0));
        check("007", Some(7));
        check("18446744073709551615", Some(u64::MAX));
        check("99999999999999999999999999999", Some(u64::MAX));
    }

    #[test]
    fn garbage_is_no_wish() {
        for garbage in ["", "-1", "+5", "1.5", "1e3", "soon", "12 s", "0x10", "٣", "Sun", "Su\u{e9}"] {
            check(garbage, None);
        }
        assert_eq!(wait(&HeaderMap::new(), EXAMPLE), None);
    }

    #[test]
    fn a_date_has_three_forms() {
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("Sun Nov  6 08:50:37 1994", Some(60));
        check("Mon, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(252_618_189_022));
    }

    #[test]
    fn no_date_and_a_date_in_the_past_are_no_wish() {
        for text in [
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Sun, 31 Feb 1999 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "Sun, 06 Nov 1994 08:49:37 GMT and more",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn the_difference_of_the_clocks_is_removed() {
        let now = EXAMPLE + Duration::from_secs(86_400 * 365);
        let dated = headers("Sun, 06 Nov 1994 08:50:07 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(wait(&dated, now), Some(Duration::from_secs(30)));
        let badly_dated = headers("Sun, 06 Nov 1994 08:50:07 GMT", Some("yesterday"));
        assert_eq!(wait(&badly_dated, EXAMPLE), Some(Duration::from_secs(30)));
    }
}
