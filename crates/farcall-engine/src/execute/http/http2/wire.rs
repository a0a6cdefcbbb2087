//! The byte stream under the h2 crate: what goes out is entered in the ledger.
//!
//! As below HTTP/1.1, a failed write is not reported at once, because what the other side said before it closed is still
//! to be read: which requests it has not looked at stands there. And before a request goes out on a connection that was
//! used before, the socket itself is looked at, because the runtime may not have heard yet of what came.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::meter::Meter;
use super::super::wire::Stream;
use super::frames::{Frames, Passed};
use super::ledger::Ledger;
use crate::clock;

/// A stream of frames with its ledger.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    ledger: Arc<Ledger>,
    frames: Frames,
    /// Requests that went out whole since the last flush.
    unflushed: Vec<Arc<Meter>>,
    /// Whoever reads was told to wait, and will be woken when something comes.
    is_read_awaited: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream, ledger: Arc<Ledger>) -> Self {
        Self { stream, ledger, frames: Frames::of_client(), unflushed: Vec::new(), is_read_awaited: false }
    }

    /// Whether something came that is to be read before anything is written. It wakes the reader.
    fn must_read_first(&mut self) -> bool {
        self.is_read_awaited && self.ledger.take_doubt() && self.stream.has_news()
    }

    /// Whether these bytes begin a request that was given up long ago, because the socket took nothing until now. There
    /// is no way to take it out from among the others: the connection ends.
    fn would_send_late(&self, slices: &[IoSlice<'_>]) -> bool {
        let (now, mut frames, mut is_late) = (clock::instant(), self.frames.clone(), false);
        for slice in slices {
            frames.pass(slice, |passed| {
                is_late |= matches!(passed, Passed::Beginning(stream) if self.ledger.is_late(stream, now));
            });
        }
        is_late
    }

    /// Counts a write. A broken one pretends to have taken everything: see the top of the file.
    fn account(&mut self, written: io::Result<usize>, slices: &[IoSlice<'_>]) -> usize {
        let mut left = written.unwrap_or_else(|broken| {
            self.ledger.write_failed(&broken);
            slices.iter().map(|slice| slice.len()).sum()
        });
        let bytes = left;
        for slice in slices {
            let taken = left.min(slice.len());
            self.frames.pass(&slice[..taken], |passed| self.ledger.passed(passed, &mut self.unflushed));
            left -= taken;
        }
        bytes
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = this.stream.poll_read(cx, buffer);
        this.is_read_awaited = read.is_pending();
        this.ledger.received(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.must_read_first() {
            return Poll::Pending;
        }
        if this.ledger.has_given_up() && this.would_send_late(slices) {
            this.ledger.note("a request that had been given up was about to be sent");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = ready!(this.stream.poll_write_vectored(cx, slices));
        Poll::Ready(Ok(this.account(written, slices)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match ready!(this.stream.poll_flush(cx)) {
            Ok(()) if !this.ledger.is_broken() => this.unflushed.drain(..).for_each(|meter| meter.flushed()),
            Ok(()) => {}
            Err(broken) => this.ledger.write_failed(&broken),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_shutdown(cx)
    }
}
