//! Parts of a whole as people write them: shares such as `50%` and `12.5%`, percentiles such as `p95` and `p99.9`.
//!
//! Without its sign a number is none: whether 0.5 means a half or half of a hundredth nobody can tell.

use farcall_core::hedge::Percentile;
use farcall_core::share::Share;

/// Reads a share from 0 % to 100 %; nothing for any other text.
///
/// # Example
/// ```
/// # use farcall_engine::quantity::share::from_text;
/// assert_eq!(from_text("12.5%").map(|share| share.percent()), Some(12.5));
/// assert_eq!(from_text("0.5"), None);
/// ```
pub fn from_text(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = (whole.len() <= 2 || whole == "100") && fraction.len() <= 2;
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    let is_plain = is_number(whole) && is_number(fraction) && is_short && !is_padded;
    number.parse().ok().filter(|_| is_plain).and_then(Share::from_percent)
}

/// As it is read.
pub fn to_text(share: Share) -> String {
    format!("{}%", share.percent())
}

/// A percentile from p50 to p99.9.
///
/// # Example
/// ```
/// # use farcall_core::hedge::Percentile;
/// # use farcall_engine::quantity::share;
/// assert_eq!(share::percentile_from_text("p95"), Percentile::from_permille(950));
/// assert_eq!(share::percentile_from_text("p49"), None);
/// ```
pub fn percentile_from_text(text: &str) -> Option<Percentile> {
    let permille = tenths(text.strip_prefix('p')?)?;
    u16::try_from(permille).ok().and_then(Percentile::from_permille)
}

/// As it is written.
pub fn percentile_to_text(percentile: Percentile) -> String {
    format!("p{}", tenths_text(percentile.permille().into()))
}

/// A decimal number with at most one digit after the point, in tenths.
fn tenths(text: &str) -> Option<u32> {
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    if !is_digits(whole) || is_padded || !is_digits(tenth) || tenth.len() != 1 {
        return None;
    }
    Some(whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?)
}

fn tenths_text(tenths: u32) -> String {
    match (tenths / 10, tenths % 10) {
        (whole, 0) => whole.to_string(),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_read_back_as_they_are_written() {
        for text in ["p50", "p95", "p99", "p99.9"] {
            assert_eq!(percentile_from_text(text).map(percentile_to_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn other_texts_are_no_percentiles() {
        for text in ["p", "95", "P95", "p49.9", "p100", "p99.95", "p9 5", "pp95", "p-95", "p095"] {
            assert_eq!(percentile_from_text(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_has_its_sign_and_lies_between_nothing_and_all() {
        for text in ["0%", "0.01%", "12.5%", "100%"] {
            assert_eq!(from_text(text).map(to_text).as_deref(), Some(text));
        }
        assert_eq!(from_text("20 %"), from_text("20.00%"));
        for text in [
            "", "%", "50", "0.5", "-1%", "+5%", "100.01%", "101%", "1e1%", ".5%", "5.%", "50%%", "inf%", "1.001%",
            "005%", "05%", "5  %",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
