//! Dates as HTTP writes them (RFC 9110, section 5.6.7), in each of the three forms.
//!
//! Whether a date makes sense where it stands is for others to say.

use farcall_core::time::Timestamp;
use http::HeaderMap;
use http::header::DATE;
use jiff::civil::DateTime;
use jiff::fmt::strtime;

/// A date in one of the three forms. The weekday is not read: the date says it too.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let date = match text.split_once(", ") {
        Some((_, rest)) => civil("%d %b %Y %H:%M:%S GMT", rest).or_else(|| civil("%d-%b-%y %H:%M:%S GMT", rest)),
        None => civil("%b %e %H:%M:%S %Y", text.get(4..)?),
    };
    // Not by way of a time zone: those end a day before the year 9999 does, which upstreams use for never.
    let since_1970 = date?.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    Some(Timestamp::from_micros(i64::try_from(since_1970.as_micros()).ok()?))
}

/// What the clock of whoever answered showed, or `now` when the answer does not tell. Moments in an answer are meant on that
/// clock, so they are compared with it: the difference to ours falls out.
pub(super) fn of_answer(headers: &HeaderMap, now: Timestamp) -> Timestamp {
    let text = headers.get(DATE).and_then(|value| value.to_str().ok());
    text.and_then(|text| parse(text.trim())).unwrap_or(now)
}

fn civil(format: &str, text: &str) -> Option<DateTime> {
    strtime::parse(format, text).and_then(|parsed| parsed.to_datetime()).ok()
}
