//! Answers that are given on as they come: who is asked whether one is, and the pieces of its body on their way.
//!
//! No more than a few pieces are on their way at a time: whoever reads slowly is sent slowly by the upstream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::attempt::AttemptResult;
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

/// Where an answer may go as it comes.
pub trait Outlet: Send {
    /// Whether the answer is given on, asked once its head is here. `result` is what it comes to if its body comes whole.
    fn ask(&mut self, result: AttemptResult) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// It is.
    fn begin(&mut self, status: StatusCode, headers: HeaderMap, body: Flow);

    /// The longest silence of the upstream between two pieces of the body.
    fn patience(&self) -> Duration;
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    Data {
        bytes: Bytes,
        /// Nothing follows.
        is_last: bool,
    },
    /// The last piece, when there are any.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
}

/// A body on its way.
#[derive(Debug)]
pub struct Flow {
    here: VecDeque<Piece>,
    rest: Option<mpsc::Receiver<Piece>>,
    is_over: bool,
}

impl Piece {
    const fn is_last(&self) -> bool {
        match self {
            Self::Data { is_last, .. } => *is_last,
            Self::Trailers(_) | Self::End => true,
        }
    }
}

impl Flow {
    /// These pieces first, then those that come; without others they are all.
    pub(super) const fn new(here: VecDeque<Piece>, rest: Option<mpsc::Receiver<Piece>>) -> Self {
        Self { here, rest, is_over: false }
    }

    /// Whether its last piece was taken.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// The bytes that are left, when all of them are here. Of a body that has broken off that is never known: what came of it
    /// must not look like all there is.
    pub fn left(&self) -> Option<u64> {
        let bytes = |piece: &Piece| match piece {
            Piece::Data { bytes, .. } => bytes.len() as u64,
            Piece::Trailers(_) | Piece::End => 0,
        };
        let is_whole = self.is_over || self.here.back().is_some_and(Piece::is_last);
        is_whole.then(|| self.here.iter().map(bytes).sum())
    }

    /// The next piece; nothing when the body broke off before its end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let piece = match (self.here.pop_front(), &mut self.rest) {
            (Some(piece), _) => Some(piece),
            (None, Some(rest)) => ready!(rest.poll_recv(cx)),
            (None, None) => None,
        };
        self.is_over |= piece.as_ref().is_some_and(Piece::is_last);
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_a_whole_body_it_is_known_how_much_is_left() {
        let left = |pieces: Vec<Piece>| Flow::new(pieces.into(), None).left();
        let data = |is_last| Piece::Data { bytes: Bytes::from_static(b"some"), is_last };
        assert_eq!(left(vec![data(false), data(true)]), Some(8));
        assert_eq!(left(vec![data(false), Piece::End]), Some(4));
        assert_eq!(left(vec![Piece::End]), Some(0));
        assert_eq!(left(vec![data(false)]), None, "it has broken off");
        assert_eq!(left(Vec::new()), None);
    }
}
