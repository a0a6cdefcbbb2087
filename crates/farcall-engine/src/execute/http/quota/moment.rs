//! How upstreams write when a quota is new: seconds from now, moments in seconds, milliseconds or microseconds since 1970,
//! lengths with units, dates of HTTP and of RFC 3339.
//!
//! A bare number is told apart by its size: nobody asks to wait for thirty years, and nobody resets in the last century.

use std::time::Duration;

use farcall_core::time::Timestamp;

use super::super::http_date;

/// What a name says of how a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nothing.
    Any,
    /// A length of time, in seconds.
    After,
    Milliseconds,
}

/// Bare numbers from here on are moments in seconds: 2001 and later.
const EPOCH_SECONDS_MIN: u128 = 1_000_000_000;
/// The same in milliseconds, from 1973 on.
const EPOCH_MILLISECONDS_MIN: u128 = 100_000_000_000;
/// The same in microseconds.
const EPOCH_MICROSECONDS_MIN: u128 = 100_000_000_000_000;
/// What is now, to the second, may be almost a second ahead: fractions were cut off.
const CUT_OFF: Duration = Duration::from_secs(1);
/// Longer is nonsense.
const WAIT_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A number is a length of time or a moment.
enum Ahead {
    By(Duration),
    At(Timestamp),
}

/// How long after `from`, which the other side's clock showed, the moment is; zero when it is past, nothing when it makes
/// no sense.
pub(super) fn until(text: &str, unit: Unit, from: Timestamp) -> Option<Duration> {
    let text = text.trim().trim_matches('"');
    let length = |wait: Duration| if wait.is_zero() { CUT_OFF } else { wait };
    let moment = |at: Timestamp| if at == from { CUT_OFF } else { at.since(from) };
    let wait = match decimal(text).map(|micros| number(micros, unit)) {
        Some(Ahead::By(wait)) => length(wait),
        Some(Ahead::At(at)) => moment(at),
        None => units(text).map(length).or_else(|| date(text).map(moment))?,
    };
    (wait <= WAIT_MAX).then_some(wait)
}

/// A length of time: a number, in seconds unless the name says otherwise, or one with units.
pub(super) fn length(text: &str, unit: Unit) -> Option<Duration> {
    let text = text.trim();
    let length = match decimal(text) {
        Some(micros) if unit == Unit::Milliseconds => duration(micros / 1_000),
        Some(micros) => duration(micros),
        None => units(text)?,
    };
    (!length.is_zero() && length <= WAIT_MAX).then_some(length)
}

fn number(micros: u128, unit: Unit) -> Ahead {
    let since_1970 = |micros: u128| Ahead::At(Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)));
    match (unit, micros / 1_000_000) {
        (Unit::After, _) => Ahead::By(duration(micros)),
        (_, EPOCH_MICROSECONDS_MIN..) => since_1970(micros / 1_000_000),
        (_, EPOCH_MILLISECONDS_MIN..) => since_1970(micros / 1_000),
        (Unit::Milliseconds, _) => Ahead::By(duration(micros / 1_000)),
        (Unit::Any, EPOCH_SECONDS_MIN..) => since_1970(micros),
        (Unit::Any, _) => Ahead::By(duration(micros)),
    }
}

fn duration(micros: u128) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// A number with or without a fraction, in millionths; saturates.
fn decimal(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let millionths = digits.fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    Some(u128::from(whole.parse::<u64>().unwrap_or(u64::MAX)) * 1_000_000 + millionths)
}

/// `1m30s`, `6ms`, `2m59.56s`.
fn units(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let micros = match unit.trim() {
            "ns" => 0,
            "us" | "µs" => 1,
            "ms" => 1_000,
            "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            _ => return None,
        };
        sum = sum.saturating_add(duration(decimal(number)? * micros / 1_000_000));
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

fn date(text: &str) -> Option<Timestamp> {
    let rfc_3339 = || text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp::from_micros(at.as_microsecond()));
    http_date::parse(text).or_else(rfc_3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T09:00:00Z.
    const FROM: Timestamp = Timestamp::from_micros(1_795_165_200_000_000);

    fn check(text: &str, unit: Unit, expected_ms: Option<u64>) {
        assert_eq!(until(text, unit, FROM), expected_ms.map(Duration::from_millis), "{text:?}, {unit:?}");
    }

    #[test]
    fn numbers_are_told_apart_by_their_size() {
        check("30", Unit::Any, Some(30_000));
        check("0.25", Unit::Any, Some(250));
        check("1795165230", Unit::Any, Some(30_000));
        check("1795165230.5", Unit::Any, Some(30_500));
        check("1795165230250", Unit::Any, Some(30_250));
        check("1795165230250000", Unit::Any, Some(30_250));
        check("1795165100", Unit::Any, Some(0));
        check("1795165200", Unit::Any, Some(1_000));
        check("0", Unit::Any, Some(1_000));
    }

    #[test]
    fn a_name_may_tell_the_unit() {
        check("1500", Unit::Milliseconds, Some(1_500));
        check("1795165230250", Unit::Milliseconds, Some(30_250));
        check("64.57", Unit::After, Some(64_570));
        assert_eq!(length("10000", Unit::Milliseconds), Some(Duration::from_secs(10)));
        assert_eq!(
            (length("60", Unit::Any), length("1h", Unit::Any)),
            (Some(Duration::from_secs(60)), Some(Duration::from_secs(3_600)))
        );
        assert_eq!((length("0", Unit::Any), length("soon", Unit::Any)), (None, None));
    }

    #[test]
    fn lengths_may_have_units() {
        check("6m0s", Unit::Any, Some(360_000));
        check("1m30s", Unit::Any, Some(90_000));
        check("6ms", Unit::Any, Some(6));
        check("2m59.56s", Unit::Any, Some(179_560));
        check("1 min", Unit::Any, Some(60_000));
        check("12 hours", Unit::Any, Some(43_200_000));
    }

    #[test]
    fn moments_may_be_dates() {
        check("Fri, 20 Nov 2026 09:00:30 GMT", Unit::Any, Some(30_000));
        check("2026-11-20T09:00:30Z", Unit::Any, Some(30_000));
        check("2026-11-20T10:00:30.5+01:00", Unit::Any, Some(30_500));
        check("2026-11-20T09:01Z", Unit::Any, Some(60_000));
        check("2026-11-20T08:00:00Z", Unit::Any, Some(0));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in [
            "",
            "-5",
            "soon",
            "5x",
            "s",
            "1.2.3",
            ".",
            "3m-2s",
            "999999999",
            "9999-12-31T23:59:59Z",
            "400 days",
            "never",
        ] {
            check(text, Unit::Any, None);
        }
        check("99999999999999999999999999999", Unit::After, None);
    }
}
