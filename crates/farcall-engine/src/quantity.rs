//! Quantities as people write them: durations, sizes, and ranges of status codes.
//!
//! Pure parsers of text, shared by everything that reads settings. A number without a unit is seconds, or bytes.
//! Messages say what would be right; the caller says where it stands.

use std::time::Duration;

/// The longest duration that any setting may have: a hundred years.
pub const DURATION_MAX: Duration = Duration::from_secs(36_525 * 86_400);

/// Text that is no quantity of the wanted sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("must be a duration such as 30, \"300ms\" or \"1m30s\"")]
    Duration,
    #[error("must be at most 100 years")]
    TooLong,
    #[error("must be a size such as 1048576, \"64KiB\" or \"16MiB\"")]
    Size,
    #[error("must be a status code such as 404, or a range such as \"500-599\", from 100 to 999")]
    StatusRange,
}

/// Reads a duration such as `"1m30s"`, `"300ms"` or `"1.5h"`; bare numbers are seconds.
///
/// # Errors
/// When the text is no duration or longer than [`DURATION_MAX`].
///
/// # Example
/// ```
/// # use std::time::Duration;
/// assert_eq!(farcall_engine::quantity::duration("1m30s"), Ok(Duration::from_secs(90)));
/// ```
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    let mut rest = text.trim();
    if let Ok(bare) = rest.parse::<f64>()
        && rest.starts_with(|first: char| first.is_ascii_digit())
    {
        return seconds(bare);
    }
    if rest.is_empty() {
        return Err(QuantityError::Duration);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (amount, after) = leading_number(rest).ok_or(QuantityError::Duration)?;
        let unit_length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_length);
        total = total.saturating_add(seconds(amount * unit_seconds(unit).ok_or(QuantityError::Duration)?)?);
        rest = next.trim_start();
    }
    if total <= DURATION_MAX { Ok(total) } else { Err(QuantityError::TooLong) }
}

/// A number of seconds as a duration, rounded to microseconds.
///
/// # Errors
/// When it is negative, not a number, or more than [`DURATION_MAX`].
pub fn seconds(number: f64) -> Result<Duration, QuantityError> {
    if number.is_nan() || number < 0.0 {
        return Err(QuantityError::Duration);
    }
    if number > DURATION_MAX.as_secs_f64() {
        return Err(QuantityError::TooLong);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and DURATION_MAX")]
    let micros = (number * 1e6).round() as u64;
    Ok(Duration::from_micros(micros))
}

/// Reads a number of bytes such as `"16MiB"`, `"64kB"` or `"1048576"`.
///
/// # Errors
/// When the text is no whole number of bytes.
pub fn size(text: &str) -> Result<u64, QuantityError> {
    let (amount, unit) = leading_number(text.trim()).ok_or(QuantityError::Size)?;
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(QuantityError::Size),
    };
    #[expect(clippy::cast_precision_loss, reason = "factors are small powers of two and ten")]
    let bytes = amount * factor as f64;
    if bytes.fract() != 0.0 || bytes >= 9e15 {
        return Err(QuantityError::Size);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative, below 2^53")]
    Ok(bytes as u64)
}

/// Reads `"500-599"` or `"404"` as an inclusive range of status codes.
///
/// # Errors
/// When a bound is no status code, or the range is empty.
pub fn status_range(text: &str) -> Result<(u16, u16), QuantityError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (status_code(low)?, status_code(high)?);
    if low <= high { Ok((low, high)) } else { Err(QuantityError::StatusRange) }
}

fn status_code(text: &str) -> Result<u16, QuantityError> {
    match text.trim().parse() {
        Ok(code) if (100..=999).contains(&code) => Ok(code),
        Ok(_) | Err(_) => Err(QuantityError::StatusRange),
    }
}

/// Digits with at most one point, and what follows them.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let length = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(length);
    number.starts_with(|first: char| first.is_ascii_digit()).then(|| number.parse().ok())?.map(|number| (number, rest))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_written() {
        let check = |text: &str, millis: u64| assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        check("30", 30_000);
        check("0", 0);
        check("0.25", 250);
        check("1m30s", 90_000);
        check("1m 30s", 90_000);
        check("300ms", 300);
        check("1.5h", 5_400_000);
        check("2d", 172_800_000);
        check("86400s", 86_400_000);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", " ", "s", "1x", "-1s", "-1", "1m30", "1..5s", "nan", "inf", "NaN", "1e", "s1", "30 seconds"] {
            assert_eq!(duration(text), Err(QuantityError::Duration), "{text}");
        }
        for text in ["1e400", "999999999d", "36526d"] {
            assert_eq!(duration(text), Err(QuantityError::TooLong), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_written() {
        let check = |text: &str, bytes: u64| assert_eq!(size(text), Ok(bytes), "{text}");
        check("0", 0);
        check("1048576", 1 << 20);
        check("16MiB", 16 << 20);
        check("1.5 KiB", 1_536);
        check("64kB", 64_000);
        check("2GB", 2_000_000_000);
        for text in ["", "MiB", "-1", "16 mib", "0.3KiB", "1e3", "99999999GiB"] {
            assert_eq!(size(text), Err(QuantityError::Size), "{text}");
        }
    }

    #[test]
    fn status_ranges_are_inclusive_and_bounded() {
        assert_eq!(status_range("404"), Ok((404, 404)));
        assert_eq!(status_range("500-599"), Ok((500, 599)));
        assert_eq!(status_range("100 - 999"), Ok((100, 999)));
        for text in ["", "99", "1000", "599-500", "5xx", "200-", "-200", "200-300-400"] {
            assert_eq!(status_range(text), Err(QuantityError::StatusRange), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,20}") {
            let _ = (duration(&text), size(&text), status_range(&text));
        }

        #[test]
        fn whole_seconds_read_back(number in 0u64..3_000_000_000) {
            prop_assert_eq!(duration(&format!("{number}s")), Ok(Duration::from_secs(number)));
        }
    }
}
