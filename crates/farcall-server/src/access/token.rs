//! Tokens: which of them a request brings, and whose keys it then has.
//!
//! They are compared by digest and in constant time, so that neither length nor content leaks by timing.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::Scope;
use crate::problem::{Code, Problem};

/// Bytes of a token's digest that name its scope.
const SCOPE_BYTES: usize = 16;

/// The tokens that open the door, as digests.
pub(crate) struct Tokens {
    digests: Vec<[u8; 32]>,
}

impl Tokens {
    pub(super) fn new(tokens: &[String]) -> Self {
        Self { digests: tokens.iter().map(|token| Sha256::digest(token.as_bytes()).into()).collect() }
    }

    /// The scope of the token that a request brings.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Scope, Problem> {
        let Some(token) = presented(headers) else {
            let detail = "send a token in `Authorization: Bearer` or in `Farcall-Token`";
            return Err(Problem::new(Code::Unauthorized, detail));
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        let is_known = self.digests.iter().fold(Choice::from(0), |known, one| known | one.ct_eq(&digest));
        if bool::from(is_known) {
            Ok(Scope(digest[..SCOPE_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()))
        } else {
            Err(Problem::new(Code::Unauthorized, "this token is not one of `server.tokens`"))
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.digests.len()).finish()
    }
}

/// `Farcall-Token` goes first: beside it `Authorization` may be meant for an upstream. A header that comes twice is none.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if headers.contains_key("farcall-token") {
        return only(headers, "farcall-token");
    }
    let credentials = only(headers, AUTHORIZATION.as_str())?;
    let (scheme, token) = credentials.split_at_checked("Bearer".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && credentials.get(scheme.len()) == Some(&b' ') && !token.is_empty())
        .then_some(token)
}

fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value.as_bytes())
}
