//! The characters of JSON strings, escapes undone.
//!
//! A lone surrogate is no character: it is told and never replaced.

use std::borrow::Cow;

/// The characters that the inside of a string token stands for; nothing when it holds a lone surrogate.
pub(super) fn decode(inside: &str, escaped: bool) -> Option<Cow<'_, str>> {
    if !escaped {
        return Some(Cow::Borrowed(inside));
    }
    Characters(inside).map(char::from_u32).collect::<Option<String>>().map(Cow::Owned)
}

/// Code points of the inside of a string token, escapes undone; lone surrogates stay what they are.
pub(super) struct Characters<'a>(pub(super) &'a str);

impl Iterator for Characters<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let first = self.0.chars().next()?;
        self.0 = &self.0[first.len_utf8()..];
        if first != '\\' {
            return Some(u32::from(first));
        }
        let letter = self.0.chars().next()?;
        self.0 = &self.0[letter.len_utf8()..];
        let point = match letter {
            'b' => 0x08,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'u' => {
                let unit = self.hex()?;
                self.0 = &self.0[4..];
                return Some(self.joined(unit));
            }
            plain => u32::from(plain),
        };
        Some(point)
    }
}

impl Characters<'_> {
    /// A high surrogate with the low one that follows it, as one code point; anything else as it is.
    fn joined(&mut self, unit: u32) -> u32 {
        if !(0xd800..0xdc00).contains(&unit) || !self.0.starts_with("\\u") {
            return unit;
        }
        let low = Characters(&self.0[2..]).hex().filter(|low| (0xdc00..0xe000).contains(low));
        let Some(low) = low else { return unit };
        self.0 = &self.0[6..];
        0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
    }

    fn hex(&self) -> Option<u32> {
        u32::from_str_radix(self.0.get(..4)?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_their_characters() {
        let check =
            |inside: &str, expected: Option<&str>| assert_eq!(decode(inside, true).as_deref(), expected, "{inside}");
        check(r#"a\"b\\\/\b\f\n\r\t"#, Some("a\"b\\/\u{8}\u{c}\n\r\t"));
        check(r"\u0041\u00e9\u20ac", Some("Aé€"));
        check(r"\ud83d\ude00!", Some("😀!"));
        check(r"\ud83d", None);
        check(r"\ude00\ud83d", None);
        check(r"\ud83d\u0041", None);
    }

    #[test]
    fn lone_surrogates_differ_from_each_other() {
        assert!(Characters(r"\ud800").ne(Characters(r"\ud801")));
        assert!(Characters(r"\uD800").eq(Characters(r"\ud800")));
    }
}
