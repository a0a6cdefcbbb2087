//! Who may come in: everybody through the socket, loopback without tokens, or whoever has a token.
//!
//! Without tokens, whoever reaches the port acts as the user, so a web page in the user's browser must not: neither
//! under a name of its own that points here (DNS rebinding: `host`), nor by sending a request across (`site`). With
//! tokens neither can, because no browser adds our headers by itself.

mod gate;
mod host;
mod site;
mod token;

use farcall_core::call::Via;
use http::request::Parts;

use crate::problem::{Code, Problem};
pub(crate) use gate::Gate;
use host::Authority;
use token::Tokens;

/// The rule of one listener.
#[derive(Debug)]
pub(crate) enum Access {
    /// The socket: its file's mode has checked already.
    User,
    /// TCP without tokens; bound to loopback addresses only.
    Loopback,
    /// TCP with tokens.
    Tokens(Tokens),
}

/// Whose idempotency keys count: those of a token, or the user's own (empty).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope(pub(crate) String);

impl Access {
    /// The rule of a TCP listener.
    pub(crate) fn tcp(tokens: &[String]) -> Self {
        if tokens.is_empty() { Self::Loopback } else { Self::Tokens(Tokens::new(tokens)) }
    }

    /// In whose name requests act that come in so. Web pages and other users reach a port, the socket only its owner.
    pub(crate) const fn via(&self) -> Via {
        match self {
            Self::User => Via::User,
            Self::Loopback | Self::Tokens(_) => Via::Tcp,
        }
    }

    /// Lets a request in, or says why not.
    pub(crate) fn admit(&self, request: &Parts) -> Result<Scope, Problem> {
        match self {
            Self::User => Ok(Scope::default()),
            Self::Loopback => {
                let authority = Authority::of(request)?;
                if !authority.is_loopback() {
                    let detail = "without tokens farcall answers to localhost, 127.0.0.0/8 and [::1] only";
                    return Err(Problem::new(Code::ForeignHost, detail));
                }
                site::check(request, &authority)?;
                Ok(Scope::default())
            }
            Self::Tokens(tokens) => {
                Authority::of(request)?;
                if is_open(request.uri.path()) { Ok(Scope::default()) } else { tokens.admit(&request.headers) }
            }
        }
    }
}

/// Health, and pages that hold no data.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/ui" | "/docs") || path.starts_with("/ui/") || path.starts_with("/docs/")
}

#[cfg(test)]
mod tests;
