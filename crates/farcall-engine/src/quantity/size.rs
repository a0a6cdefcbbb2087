//! Numbers of bytes as people write them: `16MiB`, `64KiB`, `10MB`, or a plain number.
//!
//! Units are exact: `MB` is a million bytes, `MiB` is 2^20. Nothing is rounded, and there are no fractions.

/// The largest size anybody may ask for, in bytes: 1 PiB.
pub const SIZE_MAX: u64 = 1 << 50;

/// Reads a text of digits and a unit: `B`, `KB`, `MB`, `GB`, `TB` (thousands) or `KiB`, `MiB`, `GiB`, `TiB` (1,024);
/// nothing when it is something else, or more bytes than a `u64` counts.
///
/// # Example
/// ```
/// # use farcall_engine::quantity::size::from_text;
/// assert_eq!(from_text("16MiB"), Some(16_777_216));
/// ```
pub fn from_text(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let bytes: u64 = match unit.trim_start() {
        "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_known_unit() {
        let check = |text, expected| assert_eq!(from_text(text), expected, "{text}");
        check("16MiB", Some(16 << 20));
        check("64 KiB", Some(64 << 10));
        check("1GiB", Some(1 << 30));
        check("10MB", Some(10_000_000));
        check("512B", Some(512));
        check("16", None);
        check("MiB", None);
        check("-1MiB", None);
        check("1.5MiB", None);
        check("16mib", None);
        check("99999999999TiB", None);
    }
}
