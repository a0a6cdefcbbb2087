//! Checksums of bodies: what is sent and what is answered must be what was stored, or be refused.
//!
//! SQLite notices a damaged page when its structure is broken, not when a bit of a value is. A CRC-32 over the body and
//! what belongs to it finds every single flipped bit, and a body that stands with the wrong call. What it covers is
//! what leaves the store for others to act on; rows have words and ids that do not read back when they are damaged.

use crc32fast::Hasher;
use farcall_core::id::CallId;

/// A body that is not what was stored.
#[derive(Debug, thiserror::Error)]
#[error("the stored {what} is damaged")]
pub(super) struct Damage {
    what: &'static str,
}

/// An answer, as its row holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a str,
    pub(super) decoded: bool,
    pub(super) body: &'a [u8],
}

/// Of a call's document.
pub(super) fn of_request(call: CallId, body: &[u8]) -> u32 {
    let mut hasher = begun(call);
    hasher.update(body);
    hasher.finalize()
}

/// Of a call's answer.
pub(super) fn of_response(call: CallId, answer: Answer<'_>) -> u32 {
    let mut hasher = begun(call);
    hasher.update(&answer.status.to_le_bytes());
    hasher.update(&[u8::from(answer.decoded)]);
    hasher.update(&(answer.headers.len() as u64).to_le_bytes());
    hasher.update(answer.headers.as_bytes());
    hasher.update(answer.body);
    hasher.finalize()
}

/// Compares what was found with what was stored.
pub(super) fn check(what: &'static str, found: u32, stored: u32) -> Result<(), Damage> {
    if found == stored { Ok(()) } else { Err(Damage { what }) }
}

fn begun(call: CallId) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&call.bits().to_le_bytes());
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_makes_another_sum() {
        let call = CallId::from_bits(1);
        let answer = Answer { status: 200, headers: "[]", decoded: false, body: b"body" };
        let sum = of_response(call, answer);
        assert!(check("response", of_response(call, answer), sum).is_ok());
        let others = [
            of_response(CallId::from_bits(3), answer),
            of_response(call, Answer { status: 201, ..answer }),
            of_response(call, Answer { headers: "[}", ..answer }),
            of_response(call, Answer { decoded: true, ..answer }),
            of_response(call, Answer { body: b"bodx", ..answer }),
        ];
        assert!(others.into_iter().all(|other| check("response", other, sum).is_err()));
        assert_ne!(of_request(call, b"a"), of_request(call, b"c"));
    }
}
