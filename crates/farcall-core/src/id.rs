//! Identities: a call's id, as users see it, and the pair that names one attempt.
//!
//! Ids are UUIDv7 (RFC 9562, section 5.7), so they sort by acceptance. Time and chance are arguments.

use std::fmt;
use std::str::FromStr;

use crate::time::Timestamp;

/// The id of a call: `call_` and a hyphenated UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u128);

/// One attempt of a call: its number counts from 1 over the whole life of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub call: CallId,
    pub number: u32,
}

/// Text that is no call id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a call id is \"call_\" followed by a UUID")]
pub struct CallIdError;

impl CallId {
    /// A version 7 UUID: 48 bits of milliseconds, then 74 of the given chance.
    pub fn new(accepted_at: Timestamp, chance: u128) -> Self {
        let millis = u128::try_from(accepted_at.as_micros() / 1_000).unwrap_or(0) & 0xffff_ffff_ffff;
        let random_a = (chance >> 64) & 0x0fff;
        let random_b = chance & 0x3fff_ffff_ffff_ffff;
        Self((millis << 80) | (0x7 << 76) | (random_a << 64) | (0b10 << 62) | random_b)
    }

    /// The id with these 128 bits, as a store gives them back.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits; big-endian bytes of it sort like the id.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The hyphenated UUID without the prefix.
    pub fn uuid(self) -> String {
        Text::of(self).uuid().to_owned()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::of(*self).id())
    }
}

/// An id as text; each request carries one, so it is not put together by the formatter.
struct Text([u8; Text::LENGTH]);

impl Text {
    const PREFIX: &'static [u8] = b"call_";
    const LENGTH: usize = 41;

    fn of(id: CallId) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; Self::LENGTH];
        text[..Self::PREFIX.len()].copy_from_slice(Self::PREFIX);
        let mut at = Self::PREFIX.len();
        for (index, byte) in id.0.to_be_bytes().into_iter().enumerate() {
            // Hyphens stand before the bytes 4, 6, 8 and 10.
            at += usize::from(matches!(index, 4 | 6 | 8 | 10));
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0xf)];
            at += 2;
        }
        Self(text)
    }

    fn id(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and hyphens are ASCII")
    }

    fn uuid(&self) -> &str {
        &self.id()[Self::PREFIX.len()..]
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CallId {
    type Err = CallIdError;

    /// Reads `call_` and a hyphenated UUID, or the UUID alone.
    fn from_str(text: &str) -> Result<Self, CallIdError> {
        let uuid = text.strip_prefix("call_").unwrap_or(text).as_bytes();
        if uuid.len() != 36 {
            return Err(CallIdError);
        }
        let mut bits = 0u128;
        for (index, &byte) in uuid.iter().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(CallIdError);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(CallIdError)?;
            bits = (bits << 4) | u128::from(digit);
        }
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_7_uuid_and_reads_back() {
        let id = CallId::new(Timestamp::from_micros(1_700_000_000_123_000), u128::MAX);
        let text = id.to_string();
        assert_eq!(text.len(), 41);
        assert_eq!(&text[19..20], "7", "version digit of {text}");
        assert!("89ab".contains(&text[24..25]), "variant digit of {text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text, format!("call_{}", id.uuid()));
        let known = CallId::from_bits(0x0123_4567_89ab_7cde_8f01_2345_6789_abcd);
        assert_eq!(known.to_string(), "call_01234567-89ab-7cde-8f01-23456789abcd");
        assert_eq!(text[5..].parse(), Ok(id));
    }

    #[test]
    fn later_ids_sort_later() {
        let early = CallId::new(Timestamp::from_micros(1_000_000), u128::MAX);
        let late = CallId::new(Timestamp::from_micros(1_001_000), 0);
        assert!(early < late);
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "call_",
            "call_01890a5d",
            "01890a5d_ac96-774b-bcce-b302099a8057",
            "call_zz890a5d-ac96-774b-bcce-b302099a8057",
        ] {
            assert_eq!(text.parse::<CallId>(), Err(CallIdError), "{text}");
        }
    }
}
