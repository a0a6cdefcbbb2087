//! Reading a request's body: at most so large, no slower than so, and never more of them in memory than so.
//!
//! What is in a body is none of this module's business.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::places::{Hold, Pace};
use crate::problem::{Code, Problem, Quota, Unit};

/// Memory is reserved in units of this many bytes.
const UNIT_BYTES: u64 = 1_024;

/// What holds for all bodies together.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// The longest wait for the next piece of a body.
    idle_timeout: Duration,
    free_units: Arc<Semaphore>,
    /// Units in all, free or not.
    all_units: Mutex<u64>,
    pace: Pace,
}

/// A body in memory; counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _reservation: Option<Reservation>,
}

/// Memory that is reserved for a body.
#[derive(Debug)]
struct Reservation {
    units: OwnedSemaphorePermit,
    _hold: Hold,
}

impl Bodies {
    /// `all_bytes_max` bounds all bodies together, but one of the largest size always has room.
    pub(crate) fn new(all_bytes_max: u64, idle_timeout: Duration) -> Self {
        let bodies = Self {
            idle_timeout,
            free_units: Arc::new(Semaphore::new(0)),
            all_units: Mutex::new(0),
            pace: Pace::default(),
        };
        bodies.make_room(all_bytes_max);
        bodies
    }

    /// The longest wait for the next piece of a body.
    pub(crate) const fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Reads a body to its end, if it is no larger than `bytes_max`.
    pub(crate) async fn read(&self, bytes_max: u64, headers: &HeaderMap, mut body: Body) -> Result<Held, Problem> {
        self.make_room(bytes_max);
        // A length that is no number is refused before it comes here.
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let mut reservation = self.reserve(bytes_max, None, announced.unwrap_or(0))?;
        let mut bytes = BytesMut::new();
        loop {
            let Ok(frame) = timeout(self.idle_timeout, body.frame()).await else {
                return Err(Problem::new(Code::RequestTimeout, "the next part of the body did not come in time"));
            };
            let Some(frame) = frame else { return Ok(Held { bytes: bytes.freeze(), _reservation: reservation }) };
            let broken = |_| Problem::new(Code::MalformedRequest, "the body broke off or is badly framed");
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                let so_far = length(bytes.len()).saturating_add(length(data.len()));
                reservation = self.reserve(bytes_max, reservation, so_far)?;
                bytes.extend_from_slice(&data);
            }
        }
    }

    /// There is room for so many bytes in all at least.
    fn make_room(&self, bytes: u64) {
        let most = length(Semaphore::MAX_PERMITS);
        let mut all = self.all_units.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = units(bytes).min(most).saturating_sub(*all);
        if let Ok(permits @ 1..) = usize::try_from(missing) {
            self.free_units.add_permits(permits);
            *all += missing;
        }
    }

    /// Room for so many bytes, adding to what is reserved already.
    fn reserve(&self, bytes_max: u64, held: Option<Reservation>, bytes: u64) -> Result<Option<Reservation>, Problem> {
        if bytes > bytes_max {
            let detail = format!("the body is larger than `server.max_body`, which is {bytes_max} bytes");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        let held_units = held.as_ref().map_or(0, |held| held.units.num_permits());
        let missing = units(bytes).saturating_sub(length(held_units));
        if missing == 0 {
            return Ok(held);
        }
        let missing = u32::try_from(missing).map_err(|_| self.used_up())?;
        let more = Arc::clone(&self.free_units).try_acquire_many_owned(missing).map_err(|_| self.used_up())?;
        Ok(Some(match held {
            Some(mut held) => {
                held.units.merge(more);
                held
            }
            None => Reservation { units: more, _hold: self.pace.hold() },
        }))
    }

    fn used_up(&self) -> Problem {
        let bytes = |units: u64| units.saturating_mul(UNIT_BYTES);
        let quota = Quota {
            name: "bodies",
            unit: Unit::ContentBytes,
            all: bytes(*self.all_units.lock().unwrap_or_else(PoisonError::into_inner)),
            free: bytes(length(self.free_units.available_permits())),
            free_in: self.pace.next_free_in(),
        };
        Problem::used_up(quota, "too many large bodies arrive at once")
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

    /// Bodies, with the size of the largest.
    struct Bench(Bodies, u64);

    impl Bench {
        async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held, Problem> {
            self.0.read(self.1, headers, body).await
        }
    }

    fn bodies(body_bytes_max: u64, all_bytes_max: u64) -> Bench {
        Bench(Bodies::new(all_bytes_max, Duration::from_secs(1)), body_bytes_max)
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

    #[tokio::test]
    async fn the_largest_size_may_change_and_always_has_room() {
        let Bench(bodies, _) = bodies(5, 0);
        assert_eq!(status(bodies.read(5, &HeaderMap::new(), Body::from("123456")).await), 413);
        let large = vec![b'x'; 5_000];
        assert!(bodies.read(5_000, &HeaderMap::new(), Body::from(large)).await.is_ok());
        assert_eq!(status(bodies.read(5, &HeaderMap::new(), Body::from("123456")).await), 413);
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
