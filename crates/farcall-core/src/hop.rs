//! Redirects: which answers lead on, with which method, and where a call that follows one goes on.
//!
//! A hop is an attempt of its own for every limit, and no new try for the retry policy. URLs and headers stay with the
//! engine; what a chain of hops comes to is decided in `classify`, `settle` and the dispatcher.

use crate::call::{Method, UpstreamId};

/// The most redirects that one try may follow.
pub const REDIRECTS_MAX: u32 = 20;

/// What becomes of a request on its way to where an answer redirects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// Method and body go along.
    Keep,
    /// The method stays, the body is left behind.
    DropBody,
    /// It becomes a GET without a body: what was asked for has been accepted, and the answer stands elsewhere.
    Get,
}

/// Where an answer redirects to, when somebody could follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// To this upstream, by a request of this method.
    To { upstream: UpstreamId, method: Method },
    /// From https to http, which is refused.
    Downgrade,
}

/// Where redirects have led a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Whose limits hold there, and in whose lanes the call waits.
    pub upstream: UpstreamId,
    pub method: Method,
    /// Redirects followed so far.
    pub count: u32,
}

/// Where a call goes from now on, when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// To where the answer redirects.
    Hop(Hop),
    /// To its own URL again.
    Home,
}

impl Hop {
    /// Whether the next try of a call of this method begins here. Once a redirect has turned a request into another,
    /// that request has been accepted, and is not made a second time.
    pub fn is_begun_from(&self, method: Method) -> bool {
        self.method != method
    }
}

/// What becomes of a request of this method when it is answered with this status; nothing when the status is no redirect
/// that can be followed.
///
/// RFC 9110, sections 15.4.2 to 15.4.9, and what browsers have long done with POST: the tables of the Fetch standard, "HTTP-redirect
/// fetch".
///
/// # Example
/// ```
/// # use farcall_core::{call::Method, hop::{Rewrite, rewrite}};
/// assert_eq!(rewrite(302, Method::Post), Some(Rewrite::Get));
/// assert_eq!(rewrite(302, Method::Put), Some(Rewrite::Keep));
/// assert_eq!(rewrite(303, Method::Put), Some(Rewrite::Get));
/// assert_eq!(rewrite(307, Method::Post), Some(Rewrite::Keep));
/// assert_eq!(rewrite(304, Method::Get), None);
/// ```
pub const fn rewrite(status: u16, method: Method) -> Option<Rewrite> {
    match (status, method) {
        (301 | 302, Method::Post) => Some(Rewrite::Get),
        (301 | 302 | 307 | 308, _) => Some(Rewrite::Keep),
        (303, Method::Get | Method::Head) => Some(Rewrite::DropBody),
        (303, _) => Some(Rewrite::Get),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_treats_each_method_by_its_rule() {
        use Rewrite::{DropBody, Get, Keep};
        let methods =
            [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Other];
        let expected = [
            (301, [Keep, Keep, Get, Keep, Keep, Keep, Keep]),
            (302, [Keep, Keep, Get, Keep, Keep, Keep, Keep]),
            (303, [DropBody, DropBody, Get, Get, Get, Get, Get]),
            (307, [Keep; 7]),
            (308, [Keep; 7]),
        ];
        for (status, rewrites) in expected {
            assert_eq!(methods.map(|method| rewrite(status, method)), rewrites.map(Some), "{status}");
        }
    }

    #[test]
    fn other_statuses_lead_nowhere() {
        let others = (100..600).filter(|status| ![301, 302, 303, 307, 308].contains(status));
        assert!(others.into_iter().all(|status| rewrite(status, Method::Get).is_none()));
    }
}
