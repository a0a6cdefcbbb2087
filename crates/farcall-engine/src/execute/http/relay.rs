//! Giving the body of an answer on as it comes.
//!
//! What is here with the head goes with it: most answers are small, and need no channel. For the rest each piece waits until
//! the one before it was taken. The connection stands still meanwhile, and with it the upstream.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::ErrorKind;
use futures_util::FutureExt;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::flow::{Flow, Outlet, Piece};
use super::classify::Failure;
use super::connection::Connection;

/// Bytes that go with the head, at most, but for the last piece.
const FIRST_BYTES: u64 = 64 << 10;
/// How long the next piece may wait for whoever reads.
const READER_IDLE_MAX: Duration = Duration::from_secs(60);

/// A body as it comes in.
pub(super) trait Frames: Send {
    /// The next frame; nothing at its end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Frame<Bytes>, Failure>>> + Send;

    /// Whether it is known that nothing follows.
    fn is_over(&self) -> bool;
}

/// A body on a connection of its own.
pub(super) struct Alone<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) body: Incoming,
}

impl Frames for Alone<'_> {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        self.connection.next_frame(&mut self.body).await
    }

    fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Gives an answer on, and counts its bytes.
///
/// # Errors
/// When its body does not come whole, or nobody takes it; what was given on is known to be incomplete then.
pub(super) async fn give_on(
    frames: &mut impl Frames,
    (status, headers): (StatusCode, HeaderMap),
    outlet: &mut dyn Outlet,
    size: &mut u64,
) -> Result<(), Failure> {
    let mut here = VecDeque::new();
    loop {
        let is_whole = here.back().is_some_and(is_last);
        if is_whole || frames.is_over() {
            here.extend((!is_whole).then_some(Piece::End));
            outlet.begin(status, headers, Flow::new(here, None));
            return Ok(());
        }
        if *size >= FIRST_BYTES {
            break;
        }
        let Some(next) = frames.next().now_or_never() else { break };
        match next {
            None => here.push_back(Piece::End),
            Some(Err(failure)) => {
                outlet.begin(status, headers, Flow::new(here, None));
                return Err(failure);
            }
            Some(Ok(frame)) => here.extend(piece(frame, frames, size)),
        }
    }
    let (sender, rest) = mpsc::channel(1);
    outlet.begin(status, headers, Flow::new(here, Some(rest)));
    let patience = outlet.patience();
    loop {
        let next = timeout(patience, frames.next()).await.map_err(|_| silent(patience))?;
        let piece = match next.transpose()? {
            None => Piece::End,
            Some(frame) => match piece(frame, frames, size) {
                Some(piece) => piece,
                None => continue,
            },
        };
        let was_last = is_last(&piece);
        let taken = timeout(READER_IDLE_MAX, sender.send(piece)).await;
        if !matches!(taken, Ok(Ok(()))) {
            return Err(Failure::new(ErrorKind::Reset, "nobody takes the answer any more"));
        }
        if was_last {
            return Ok(());
        }
    }
}

fn piece(frame: Frame<Bytes>, frames: &impl Frames, size: &mut u64) -> Option<Piece> {
    match frame.into_data() {
        Ok(bytes) => {
            *size += bytes.len() as u64;
            Some(Piece::Data { bytes, is_last: frames.is_over() })
        }
        Err(frame) => frame.into_trailers().ok().map(Piece::Trailers),
    }
}

const fn is_last(piece: &Piece) -> bool {
    match piece {
        Piece::Data { is_last, .. } => *is_last,
        Piece::Trailers(_) | Piece::End => true,
    }
}

fn silent(patience: Duration) -> Failure {
    let message = format!("the answer broke off: not a byte of it came for {} ms", patience.as_millis());
    Failure::new(ErrorKind::Timeout, message)
}
