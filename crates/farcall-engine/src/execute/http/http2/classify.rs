//! What went wrong on a stream, in the contract's words, and whether the other side says that it did nothing.
//!
//! Only two things say so (RFC 9113, section 8.7): a reset with REFUSED_STREAM, and a GOAWAY whose last stream lies before
//! ours. Any other end leaves open what became of the request.

use farcall_core::call::ErrorKind;
use h2::{Error, Reason};

use super::super::classify::{Failure, deepest};

/// Whether the other side has not looked at the request, by its own account.
///
/// The h2 crate hands a received GOAWAY to exactly the streams behind the last one that it names.
pub(super) fn is_refused(error: &Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether the other side wants this request by HTTP/1.1.
pub(super) fn asks_for_http1(error: &Error) -> bool {
    error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED)
}

/// The answer's head did not come.
pub(super) fn of_head(error: &Error) -> Failure {
    if error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED) {
        return Failure::new(ErrorKind::Protocol, "the other side wants HTTP/1.1 for this; the next attempt uses it");
    }
    broken(error).unwrap_or_else(|| {
        Failure::new(ErrorKind::Reset, format!("the connection broke before an answer came: {}", said(error)))
    })
}

/// The head is complete, the body is not.
pub(super) fn of_body(error: &Error) -> Failure {
    broken(error)
        .unwrap_or_else(|| Failure::new(ErrorKind::Truncated, format!("the answer broke off: {}", said(error))))
}

/// No connection came about.
pub(super) fn of_opening(error: &Error) -> Failure {
    broken(error).unwrap_or_else(|| Failure::new(ErrorKind::Connect, format!("no HTTP/2 connection: {}", said(error))))
}

/// Causes that have a kind of their own, at whatever point.
fn broken(error: &Error) -> Option<Failure> {
    let refused = error.get_io().and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    if let Some(refused) = refused {
        return Some(Failure::new(ErrorKind::Tls, format!("TLS failed: {refused}")));
    }
    error.is_library().then(|| Failure::new(ErrorKind::Protocol, format!("the answer is not HTTP/2: {}", said(error))))
}

fn said(error: &Error) -> String {
    match (error.reason(), error.is_go_away(), error.is_remote()) {
        (Some(reason), true, true) => format!("the other side takes no more requests ({reason})"),
        (Some(reason), false, true) => format!("the other side gave the request up ({reason})"),
        _ => deepest(error),
    }
}
