//! `Retry-After`: how long an answer asks us to stay away (RFC 9110, section 10.2.3).
//!
//! A date is meant on the upstream's clock, so it is compared with the answer's own `Date`; only without one is our
//! clock asked. Beside whole seconds a fraction of them is read, and `Retry-After-Ms`, which some send for more precision. It
//! is read for any status; whether it means anything there is the core's decision.

use std::time::Duration;

use farcall_core::time::Timestamp;
use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::http_date;

/// Not registered anywhere; only believed when it makes sense.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// The wait asked for, from now. Nothing for what is no valid wish: garbage, a point in the past.
///
/// Numbers too large for a clock saturate.
pub(super) fn wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait) = text(RETRY_AFTER_MS).and_then(seconds) {
        return Some(wait / 1_000);
    }
    let wish = text(RETRY_AFTER.as_str())?;
    seconds(wish).or_else(|| {
        let until = http_date::parse(wish)?;
        let from = http_date::of_answer(headers, now);
        (until >= from).then(|| until.since(from))
    })
}

/// Digits, and a fraction behind them.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    // Only too many digits can fail here.
    Some(Duration::new(whole.parse().unwrap_or(u64::MAX), nanos))
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
    fn seconds_may_have_a_fraction() {
        check("3.0", Some(3));
        let check =
            |text, ms| assert_eq!(wait(&headers(text, None), EXAMPLE), Some(Duration::from_millis(ms)), "{text}");
        check("1.5", 1_500);
        check("64.570", 64_570);
        check("0.065", 65);
    }

    #[test]
    fn milliseconds_are_believed_rather_than_seconds() {
        let with = |retry_after: &str, ms: &str| {
            let mut headers = headers(retry_after, None);
            headers.insert(RETRY_AFTER_MS, ms.parse().expect("a header value"));
            wait(&headers, EXAMPLE)
        };
        assert_eq!(with("2", "1250"), Some(Duration::from_millis(1_250)));
        assert_eq!(with("2", "soon"), Some(Duration::from_secs(2)));
        assert_eq!(with("soon", "1"), Some(Duration::from_millis(1)));
    }

    #[test]
    fn garbage_is_no_wish() {
        for garbage in ["", "-1", "+5", ".5", "5.", "1.2.3", "1e3", "soon", "12 s", "0x10", "٣", "Sun", "Su\u{e9}"] {
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
    fn the_difference_of_the_clocks_is_removed_whichever_is_ahead_and_however_both_are_written() {
        let year = Duration::from_secs(86_400 * 365);
        let wishes = ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"];
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];
        for now in [EXAMPLE - year, EXAMPLE, EXAMPLE + year] {
            for (wish, date) in wishes.into_iter().flat_map(|wish| dates.map(|date| (wish, date))) {
                let found = wait(&headers(wish, Some(date)), now);
                assert_eq!(found, Some(Duration::from_secs(30)), "{wish}, {date}, {now:?}");
            }
            let seconds = wait(&headers("30", Some(dates[0])), now);
            assert_eq!(seconds, Some(Duration::from_secs(30)), "seconds need no clock");
        }
        let past = headers(dates[0], Some(wishes[0]));
        assert_eq!(wait(&past, EXAMPLE - year), None, "on their clock it is past, whatever ours shows");
        let badly_dated = headers("Sun, 06 Nov 1994 08:50:07 GMT", Some("yesterday"));
        assert_eq!(wait(&badly_dated, EXAMPLE), Some(Duration::from_secs(30)));
    }
}
