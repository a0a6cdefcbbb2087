//! What went wrong below HTTP, in the contract's words.
//!
//! Before the head is complete a broken connection is a `reset`, after it a `truncated` answer. What is not HTTP is
//! `protocol`, what is more than we take is `too_large`. Whether bytes were sent is not guessed here: the meter knows.

use std::error::Error as StdError;
use std::io;

use farcall_core::call::ErrorKind;

use super::meter::{INTERIM_ANSWERS_MAX, Meter};

/// Why an attempt has no complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// One sentence for people; without secrets, so without the URL's path and query.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The answer's head did not come.
    pub(super) fn of_head(error: &hyper::Error, meter: &Meter) -> Self {
        if meter.interim_answers() > INTERIM_ANSWERS_MAX {
            return Self::new(ErrorKind::TooLarge, format!("more than {INTERIM_ANSWERS_MAX} interim (1xx) answers"));
        }
        if meter.spoke_first() {
            return Self::new(ErrorKind::Protocol, "the other side spoke before it was asked: this is not HTTP");
        }
        if error.is_parse_too_large() {
            return Self::new(ErrorKind::TooLarge, "the answer's head has more bytes or fields than allowed");
        }
        if error.is_parse() {
            return Self::new(ErrorKind::Protocol, format!("the answer is not HTTP/1.1: {}", deepest(error)));
        }
        if let Some(failure) = of_tls(error) {
            return failure;
        }
        if error.is_user() {
            return Self::new(ErrorKind::Internal, format!("the request was not processed: {}", deepest(error)));
        }
        let cause = meter.write_error().unwrap_or_else(|| match io_error(error) {
            Some(broken) => broken.to_string(),
            None => "closed by the other side".to_owned(),
        });
        Self::new(ErrorKind::Reset, format!("the connection broke before an answer came: {cause}"))
    }

    /// The head is complete, the body is not.
    pub(super) fn of_body(error: &hyper::Error) -> Self {
        if let Some(failure) = of_tls(error) {
            return failure;
        }
        match io_error(error).map(io::Error::kind) {
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Self::new(
                ErrorKind::Protocol,
                format!("the answer's body is not framed as HTTP asks: {}", deepest(error)),
            ),
            _ => Self::new(ErrorKind::Truncated, format!("the answer broke off: {}", deepest(error))),
        }
    }
}

/// The TLS layer refused: a broken record, or an alert of the other side.
fn of_tls(error: &hyper::Error) -> Option<Failure> {
    let refused = io_error(error)?.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(Failure::new(ErrorKind::Tls, format!("TLS failed: {refused}")))
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    chain(error).find_map(|cause| cause.downcast_ref::<io::Error>())
}

/// The innermost cause says most; the layers around it only repeat that something failed.
pub(super) fn deepest(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}
