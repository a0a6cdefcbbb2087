//! Parts of a whole as people write them: shares such as `10%` and `2.5%`, percentiles such as `p95` and `p99.9`.
//!
//! One digit after the point at most, and one way to write each but for a zero there.

use farcall_core::hedge::{Percentile, Share};

/// A share from 0.1 % to 100 %, to a tenth of a percent.
///
/// # Example
/// ```
/// # use farcall_core::hedge::Share;
/// # use farcall_engine::quantity::share;
/// assert_eq!(share::from_text("10%"), Some(Share::from_permille(100)));
/// assert_eq!(share::from_text("2.5%"), Some(Share::from_permille(25)));
/// assert_eq!(share::from_text("101%"), None);
/// ```
pub fn from_text(text: &str) -> Option<Share> {
    let permille = tenths(text.strip_suffix('%')?)?;
    (1..=Share::ALL.permille()).contains(&permille).then(|| Share::from_permille(permille))
}

/// As it is written.
pub fn to_text(share: Share) -> String {
    format!("{}%", tenths_text(share.permille()))
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
    fn shares_and_percentiles_read_back_as_they_are_written() {
        for text in ["0.1%", "1%", "10%", "12.5%", "100%"] {
            assert_eq!(from_text(text).map(to_text).as_deref(), Some(text));
        }
        for text in ["p50", "p95", "p99", "p99.9"] {
            assert_eq!(percentile_from_text(text).map(percentile_to_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn other_texts_are_neither() {
        for text in [
            "", "%", "10", "10 %", "-1%", "+1%", "0%", "0.0%", "100.1%", "1.25%", ".5%", "5.%", "1e1%", "05%", "99999%",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
        for text in ["p", "95", "P95", "p49.9", "p100", "p99.95", "p9 5", "pp95", "p-95", "p095"] {
            assert_eq!(percentile_from_text(text), None, "{text}");
        }
    }
}
