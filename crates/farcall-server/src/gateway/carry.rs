//! Bodies on their way through, and how long a client wants to wait.
//!
//! The answer's body is held together with the attention that is paid to its client: who hangs up gives both up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use farcall_engine::forward::{ForwardBody, ForwardedBody};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::attended::Attending;
use crate::problem::{Code, Problem};
use crate::routes::Face;

/// How long the whole call may take, in milliseconds.
const TIMEOUT: &str = "farcall-timeout";

/// An answer's body as its client gets it.
struct Answered {
    body: ForwardedBody,
    has_trailers: bool,
    /// It has broken off, and what came before it may have to go out first.
    broken: Option<<ForwardedBody as http_body::Body>::Error>,
    _attending: Attending,
}

/// How long the client wants to wait; nothing when it does not say.
///
/// # Errors
/// When what it says is no whole number of milliseconds.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let mut given = headers.get_all(TIMEOUT).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let milliseconds = value.to_str().ok().and_then(milliseconds).filter(|_| given.next().is_none());
    let detail = "Farcall-Timeout is a whole number of milliseconds, given once";
    milliseconds.map(Some).ok_or_else(|| Problem::new(Code::MalformedRequest, detail).at_key(TIMEOUT))
}

/// Digits and nothing else; as many as anybody likes.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    let are_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| Duration::from_millis(text.parse().unwrap_or(u64::MAX)))
}

/// The body of a request.
///
/// # Errors
/// When it is too large, too slow, or breaks off.
pub(super) async fn of_request(face: &Face, headers: &HeaderMap, body: Body) -> Result<ForwardBody, Problem> {
    if body.is_end_stream() {
        return Ok(ForwardBody::Empty);
    }
    let held = face.bodies.read(face.handle.config().server.max_body, headers, body).await?;
    Ok(ForwardBody::Whole(held.bytes))
}

/// The body of an answer, in chunks when trailers may follow it.
pub(super) fn of_answer(body: ForwardedBody, has_trailers: bool, attending: Attending) -> Body {
    Body::new(Answered { body, has_trailers, broken: None, _attending: attending })
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = <ForwardedBody as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            // hyper throws away what it has not written when it hears of it, so it hears of it a moment later.
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Behind a body of a known length there is no room for trailers.
        if self.has_trailers { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_timeout_is_digits_however_many() {
        let check = |values: &[&'static str], expected: Result<Option<u64>, ()>| {
            let headers: HeaderMap = values
                .iter()
                .map(|value| (http::HeaderName::from_static(TIMEOUT), HeaderValue::from_static(value)))
                .collect();
            let expected = expected.map(|milliseconds| milliseconds.map(Duration::from_millis));
            assert_eq!(timeout(&headers).map_err(|_| ()), expected, "{values:?}");
        };
        check(&[], Ok(None));
        check(&["0"], Ok(Some(0)));
        check(&["007"], Ok(Some(7)));
        check(&["18446744073709551615"], Ok(Some(u64::MAX)));
        check(&["99999999999999999999999999"], Ok(Some(u64::MAX)));
        for wrong in ["", "-1", "+1", "1.5", "1s", " 1", "0x1", "1,2"] {
            check(&[wrong], Err(()));
        }
        check(&["1", "1"], Err(()));
    }
}
