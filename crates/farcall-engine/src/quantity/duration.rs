//! Lengths of time as people write them: seconds as a number, or `1m30s`.
//!
//! Exact: nothing is rounded but below the nanosecond.

use std::time::Duration;

/// The longest length of time anybody may ask for: 100 years.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Why something is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("not a length of time")]
    Malformed,
    #[error("a number without a unit")]
    NoUnit,
    #[error("negative, which no length of time is")]
    Negative,
    #[error("not a finite number")]
    NotFinite,
    #[error("longer than 100 years")]
    TooLong,
}

/// Reads a text such as `300ms`, `1m30s`, `1.5h` or `2d`: numbers with a unit (`ms`, `s`, `m`, `h`, `d`), largest first.
///
/// # Errors
/// When the text is something else, or a length above [`DURATION_MAX`].
///
/// # Example
/// ```
/// # use farcall_engine::quantity::duration::from_text;
/// # use std::time::Duration;
/// assert_eq!(from_text("1m30s"), Ok(Duration::from_secs(90)));
/// ```
pub fn from_text(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text;
    let mut total_ns = 0_u128;
    let mut unit_before = u128::MAX;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
        let unit_ns = unit_ns(unit)?;
        if unit_ns >= unit_before {
            return Err(DurationError::Malformed);
        }
        total_ns = total_ns.checked_add(scaled(number, unit_ns)?).ok_or(DurationError::TooLong)?;
        (rest, unit_before) = (after, unit_ns);
    }
    if text.is_empty() { Err(DurationError::Malformed) } else { bounded(total_ns) }
}

/// Reads a whole number of seconds.
///
/// # Errors
/// When it is negative, or above [`DURATION_MAX`].
pub fn from_whole_seconds(seconds: i128) -> Result<Duration, DurationError> {
    let seconds = u128::try_from(seconds).map_err(|_| DurationError::Negative)?;
    bounded(seconds.checked_mul(1_000_000_000).ok_or(DurationError::TooLong)?)
}

/// Reads a number of seconds with decimals.
///
/// # Errors
/// When it is negative, not finite, or above [`DURATION_MAX`].
pub fn from_seconds(seconds: f64) -> Result<Duration, DurationError> {
    if !seconds.is_finite() {
        return Err(DurationError::NotFinite);
    }
    if seconds < 0.0 {
        return Err(DurationError::Negative);
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| DurationError::TooLong)?;
    bounded(duration.as_nanos())
}

/// Writes a length of time as [`from_text`] reads it.
pub fn to_text(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    let mut text = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest_ms >= unit_ms {
            text.push_str(&format!("{}{unit}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn unit_ns(unit: &str) -> Result<u128, DurationError> {
    match unit {
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60 * 1_000_000_000),
        "h" => Ok(3_600 * 1_000_000_000),
        "d" => Ok(86_400 * 1_000_000_000),
        "" => Err(DurationError::NoUnit),
        _ => Err(DurationError::Malformed),
    }
}

/// `12.5` of a unit, in nanoseconds.
fn scaled(number: &str, unit_ns: u128) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    // More decimals than these are below the nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: u128 = whole.parse().map_err(|_| DurationError::TooLong)?;
    let part: u128 = fraction.parse().map_err(|_| DurationError::Malformed)?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).expect("at most 18 digits"));
    let whole_ns = whole.checked_mul(unit_ns).ok_or(DurationError::TooLong)?;
    Ok(whole_ns.saturating_add(part * unit_ns / scale))
}

fn bounded(total_ns: u128) -> Result<Duration, DurationError> {
    if total_ns > DURATION_MAX.as_nanos() {
        return Err(DurationError::TooLong);
    }
    let seconds = u64::try_from(total_ns / 1_000_000_000).expect("bounded above");
    let subsec_ns = u32::try_from(total_ns % 1_000_000_000).expect("a remainder of a billion");
    Ok(Duration::new(seconds, subsec_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u64, DurationError>) {
        assert_eq!(from_text(text), expected.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn texts_are_read_exactly() {
        check("300ms", Ok(300));
        check("1m30s", Ok(90_000));
        check("1h", Ok(3_600_000));
        check("2d", Ok(172_800_000));
        check("1.5h", Ok(5_400_000));
        check("0.1s", Ok(100));
        check("0s", Ok(0));
        check("1d2h3m4s5ms", Ok(93_784_005));
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        check("", Err(DurationError::Malformed));
        check("soon", Err(DurationError::Malformed));
        check("1 s", Err(DurationError::Malformed));
        check("30s1m", Err(DurationError::Malformed));
        check("1s1s", Err(DurationError::Malformed));
        check(".s", Err(DurationError::Malformed));
        check("1..5s", Err(DurationError::Malformed));
        check("30", Err(DurationError::NoUnit));
        check("1m30", Err(DurationError::NoUnit));
        check("-1s", Err(DurationError::Negative));
        check("36501d", Err(DurationError::TooLong));
        check(&format!("{}d", "9".repeat(60)), Err(DurationError::TooLong));
        check(&format!("{}d", u128::MAX), Err(DurationError::TooLong));
    }

    #[test]
    fn numbers_are_seconds() {
        assert_eq!(from_whole_seconds(30), Ok(Duration::from_secs(30)));
        assert_eq!(from_seconds(0.25), Ok(Duration::from_millis(250)));
        assert_eq!(from_whole_seconds(-1), Err(DurationError::Negative));
        assert_eq!(from_whole_seconds(i128::MAX), Err(DurationError::TooLong));
        assert_eq!(from_seconds(-0.5), Err(DurationError::Negative));
        assert_eq!(from_seconds(f64::NAN), Err(DurationError::NotFinite));
        assert_eq!(from_seconds(1e300), Err(DurationError::TooLong));
    }

    #[test]
    fn texts_written_are_read_back() {
        for millis in [0, 5, 300, 90_000, 3_600_000, 93_784_005] {
            let duration = Duration::from_millis(millis);
            assert_eq!(from_text(&to_text(duration)), Ok(duration));
        }
    }
}
