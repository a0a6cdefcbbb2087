//! Shares as people write them: `50%`, `12.5%`.
//!
//! Without its sign a number is none: whether 0.5 means a half or half of a hundredth nobody can tell.

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
    let is_plain = is_number(whole) && is_number(fraction) && is_short;
    number.parse().ok().filter(|_| is_plain).and_then(Share::from_percent)
}

/// As it is read.
pub fn to_text(share: Share) -> String {
    format!("{}%", share.percent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_its_sign_and_lies_between_nothing_and_all() {
        for text in ["0%", "0.01%", "12.5%", "100%"] {
            assert_eq!(from_text(text).map(to_text).as_deref(), Some(text));
        }
        assert_eq!(from_text("20 %"), from_text("20.00%"));
        for text in [
            "", "%", "50", "0.5", "-1%", "+5%", "100.01%", "101%", "1e1%", ".5%", "5.%", "50%%", "inf%", "1.001%",
            "005%", "5  %",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
