//! Signing by Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>): HMAC-SHA256 over id, timestamp and body.
//!
//! Only the symmetric scheme, `v1`. What is signed is `id.timestamp.body`; neither our ids nor a number of seconds
//! holds a dot, so nothing can be moved from one part into another. Receivers verify, we never do.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const PREFIX: &str = "whsec_";
/// A key shorter than this can be guessed, a longer one adds nothing.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secret that a receiver shares with us. It shows itself to nobody.
///
/// Boxed, because it is a kilobyte and most calls have none.
#[derive(Clone)]
pub struct SigningKey(Box<hmac::Key>);

/// Why a text is no signing secret. Never with the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    #[error("a signing secret begins with `whsec_`")]
    Prefix,
    #[error("what follows `whsec_` in a signing secret is base64")]
    Base64,
    #[error("a signing secret is 24 to 64 bytes long, this one {bytes}")]
    Length { bytes: usize },
}

impl SigningKey {
    /// Reads `whsec_` and the base64 of 24 to 64 bytes, padded or not.
    ///
    /// # Errors
    /// Text of any other form.
    ///
    /// # Example
    /// ```
    /// # use farcall_engine::callback::{SigningKey, SigningKeyError};
    /// assert!(SigningKey::from_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
    /// assert_eq!(SigningKey::from_text("whsec_c2hvcnQ=").err(), Some(SigningKeyError::Length { bytes: 5 }));
    /// ```
    pub fn from_text(text: &str) -> Result<Self, SigningKeyError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SigningKeyError::Prefix)?;
        let key = BASE64.decode(encoded).map_err(|_| SigningKeyError::Base64)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SigningKeyError::Length { bytes: key.len() });
        }
        Ok(Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key))))
    }

    /// The signature of a message, as the header `webhook-signature` has it.
    pub(super) fn sign(&self, id: &str, unix_seconds: i64, body: &[u8]) -> String {
        debug_assert!(!id.contains('.'), "{id} could be read as an id and a timestamp");
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{unix_seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the reference implementations, in `libraries/` of github.com/standard-webhooks/standard-webhooks:
    /// the first stands in go/webhook_test.go, python/tests/test_webhooks.py and others, the second in rust/src/lib.rs.
    #[test]
    fn the_published_vectors_are_met() {
        let check = |secret, id, unix_seconds, body: &str, expected| {
            let key = SigningKey::from_text(secret).expect("a published secret");
            assert_eq!(key.sign(id, unix_seconds, body.as_bytes()), expected);
        };
        check(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        );
        check(
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        );
    }

    #[test]
    fn every_part_of_a_message_is_signed() {
        let key = SigningKey::from_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a valid secret");
        let other = SigningKey::from_text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").expect("a valid secret");
        let signed = key.sign("call_1", 5, b"{}");
        for changed in [
            key.sign("call_2", 5, b"{}"),
            key.sign("call_1", 6, b"{}"),
            key.sign("call_1", 5, b"{ }"),
            other.sign("call_1", 5, b"{}"),
        ] {
            assert_ne!(signed, changed);
        }
    }

    #[test]
    fn only_secrets_of_the_standard_are_taken() {
        let text = |bytes: usize| format!("{PREFIX}{}", BASE64.encode(vec![7; bytes]));
        for bytes in [24, 25, 26, 32, 64] {
            let padded = text(bytes);
            assert!(SigningKey::from_text(&padded).is_ok(), "{bytes}");
            assert!(SigningKey::from_text(padded.trim_end_matches('=')).is_ok(), "{bytes}");
        }
        let refused = |text: &str| SigningKey::from_text(text).err();
        for bytes in [0, 1, 23, 65] {
            assert_eq!(refused(&text(bytes)), Some(SigningKeyError::Length { bytes }));
        }
        assert_eq!(refused("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Some(SigningKeyError::Prefix));
        assert_eq!(refused("whsec_not base64"), Some(SigningKeyError::Base64));
        assert_eq!(
            refused("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_"),
            Some(SigningKeyError::Base64),
            "the URL alphabet"
        );
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        let key = SigningKey::from_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a valid secret");
        assert_eq!(format!("{key:?}"), "SigningKey(***)");
    }
}
