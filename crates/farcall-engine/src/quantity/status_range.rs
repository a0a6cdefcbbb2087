//! Ranges of status codes as people write them: `404`, `500-599`.
//!
//! Codes lie between 100 and 599; both ends of a range belong to it.

use std::ops::RangeInclusive;

/// The codes there are.
const CODES: RangeInclusive<u16> = 100..=599;

/// Why something is no range of status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatusRangeError {
    #[error("no status code or range")]
    Malformed,
    /// Both ends are codes, in the wrong order.
    #[error("a range that ends before it begins")]
    Backwards { first: u16, last: u16 },
}

/// Reads a code or a range as its first and last code.
///
/// # Errors
/// When an end is no code from 100 to 599, or the range ends before it begins.
///
/// # Example
/// ```
/// # use farcall_engine::quantity::status_range::from_text;
/// assert_eq!(from_text("500-599"), Ok((500, 599)));
/// assert_eq!(from_text("404"), Ok((404, 404)));
/// ```
pub fn from_text(text: &str) -> Result<(u16, u16), StatusRangeError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| CODES.contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first > last => Err(StatusRangeError::Backwards { first, last }),
        (Some(first), Some(last)) => Ok((first, last)),
        (None, _) | (_, None) => Err(StatusRangeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_bounded() {
        let check = |text, expected| assert_eq!(from_text(text), expected, "{text}");
        check("404", Ok((404, 404)));
        check("500-599", Ok((500, 599)));
        check("100 - 599", Ok((100, 599)));
        check("599-500", Err(StatusRangeError::Backwards { first: 599, last: 500 }));
        for text in ["", "99", "600", "5xx", "200-", "-200", "200-300-400", "99-200", "600-100"] {
            check(text, Err(StatusRangeError::Malformed));
        }
    }
}
