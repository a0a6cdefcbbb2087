//! Reading a request's body: at most so large, no slower than so, and never more of them in memory than so.
//!
//! What is in a body is none of this module's business.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::problem::{Code, Problem};

/// Memory is reserved in units of this many bytes.
const UNIT_BYTES: u64 = 1_024;

/// What holds for all bodies together.
#[derive(Debug)]
pub(crate) struct Bodies {
    body_bytes_max: u64,
    /// The longest wait for the next piece of a body.
    idle_timeout: Duration,
    free_units: Arc<Semaphore>,
}

/// A body in memory; counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _reservation: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// `all_bytes_max` bounds all bodies together, but one of the largest size always has room.
    pub(crate) fn new(body_bytes_max: u64, all_bytes_max: u64, idle_timeout: Duration) -> Self {
        let units = usize::try_from(units(all_bytes_max.max(body_bytes_max))).unwrap_or(usize::MAX);
        let free_units = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        Self { body_bytes_max, idle_timeout, free_units }
    }

    /// Reads a body to its end.
    pub(crate) async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Held, Problem> {
        // A length that is no number is refused before it comes here.
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let mut reservation = self.reserve(None, announced.unwrap_or(0))?;
        let mut bytes = BytesMut::new();
        loop {
            let Ok(frame) = timeout(self.idle_timeout, body.frame()).await else {
                return Err(Problem::new(Code::RequestTimeout, "the next part of the body did not come in time"));
            };
            let Some(frame) = frame else { return Ok(Held { bytes: bytes.freeze(), _reservation: reservation }) };
            let broken = |_| Problem::new(Code::MalformedRequest, "the body broke off or is badly framed");
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                reservation = self.reserve(reservation, length(bytes.len()).saturating_add(length(data.len())))?;
                bytes.extend_from_slice(&data);
            }
        }
    }

    /// Room for so many bytes, adding to what is reserved already.
    fn reserve(&self, held: Option<OwnedSemaphorePermit>, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if bytes > self.body_bytes_max {
            let detail = format!("the body is larger than `server.max_body`, which is {} bytes", self.body_bytes_max);
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        let held_units = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = units(bytes).saturating_sub(length(held_units));
        if missing == 0 {
            return Ok(held);
        }
        let busy = || Problem::new(Code::Busy, "too many large bodies arrive at once");
        let missing = u32::try_from(missing).map_err(|_| busy())?;
        let more = Arc::clone(&self.free_units).try_acquire_many_owned(missing).map_err(|_| busy())?;
        Ok(Some(match held {
            Some(mut held) => {
                held.merge(more);
                held
            }
            None => more,
        }))
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

const fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::response::IntoResponse;
    use http::{HeaderValue, StatusCode};
    use http_body::Frame;

    use super::*;

    type Polled = Poll<Option<Result<Frame<Bytes>, &'static str>>>;

    /// A body that brings one answer again and again: nothing yet, or a failure.
    struct Scripted(fn() -> Polled);

    impl http_body::Body for Scripted {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
            (self.0)()
        }
    }

    fn stalled() -> Body {
        Body::new(Scripted(|| Poll::Pending))
    }

    fn bodies(body_bytes_max: u64, all_bytes_max: u64) -> Bodies {
        Bodies::new(body_bytes_max, all_bytes_max, Duration::from_secs(1))
    }

    fn announcing(length: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static(length))])
    }

    fn status(result: Result<Held, Problem>) -> StatusCode {
        result.expect_err("the body is refused").into_response().status()
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_largest_size_is_read() {
        let held = bodies(5, 0).read(&HeaderMap::new(), Body::from("12345")).await.expect("it fits");
        assert_eq!(held.bytes, "12345");
    }

    #[tokio::test]
    async fn a_longer_body_is_refused_whether_it_says_so_or_not() {
        assert_eq!(status(bodies(5, 0).read(&HeaderMap::new(), Body::from("123456")).await), 413);
        assert_eq!(status(bodies(5, 0).read(&announcing("6"), stalled()).await), 413);
        assert_eq!(status(bodies(5, 0).read(&announcing("18446744073709551615"), stalled()).await), 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        assert_eq!(status(bodies(5, 0).read(&HeaderMap::new(), stalled()).await), 408);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_malformed() {
        let broken = Body::new(Scripted(|| Poll::Ready(Some(Err("reset")))));
        assert_eq!(status(bodies(5, 0).read(&HeaderMap::new(), broken).await), 400);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_until_they_are_dropped() {
        let bodies = bodies(2_048, 3_072);
        let first = bodies.read(&announcing("2048"), Body::from(vec![b'x'; 2_048])).await.expect("there is room");
        assert_eq!(status(bodies.read(&announcing("2048"), Body::from(vec![b'x'; 2_048])).await), 503);
        let small = bodies.read(&HeaderMap::new(), Body::from("x")).await.expect("there is room for a small one");
        assert_eq!(status(bodies.read(&HeaderMap::new(), Body::from("x")).await), 503);
        drop((first, small));
        assert!(bodies.read(&announcing("2048"), Body::from(vec![b'x'; 2_048])).await.is_ok());
    }
}
