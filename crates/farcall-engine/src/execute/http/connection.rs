//! One HTTP/1.1 connection: hyper's state machine, driven only while an attempt waits on it.
//!
//! There is no task behind a connection. Dropping it closes it, also in the middle of a request; an idle one does
//! nothing, and whether it is still open is found out when it is used again. One that is to be idle for long can rest: the
//! bare stream is kept then, without the buffers that hyper has for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use farcall_core::call::ErrorKind;
use http::Response;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::super::Milestones;
use super::classify::Failure;
use super::meter::Meter;
use super::outgoing::{Outgoing, Payload, Route};
use super::wire::{Stream, Wire};
use crate::config::{Addresses, HeaderCaps};

/// What hyper reads or writes at once, at most, unless a head may be larger.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// An open connection to an origin.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) route: Route,
    /// Where it was allowed to lead when it was opened.
    pub(super) allowed: Addresses,
    sender: http1::SendRequest<Payload>,
    driver: Driver,
    meter: Arc<Meter>,
}

/// An idle connection without hyper's state, a tenth of its size.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) route: Route,
    pub(super) allowed: Addresses,
    wire: Wire,
}

/// Nothing once the connection has ended.
#[derive(Debug)]
struct Driver(Option<Pin<Box<Protocol>>>);

/// Hyper's state machine over our stream.
type Protocol = http1::Connection<TokioIo<Wire>, Payload>;

impl Connection {
    /// HTTP on a stream that is open.
    pub(super) async fn new(
        stream: Stream,
        route: Route,
        allowed: Addresses,
        caps: HeaderCaps,
    ) -> Result<Self, Failure> {
        let wire = Wire::new(stream, Arc::<Meter>::default());
        Self::wake(Resting { route, allowed, wire }, caps).await
    }

    /// HTTP on a connection that rested. Its meter knows that it was used before, so that it is looked at first.
    pub(super) async fn wake(Resting { route, allowed, wire }: Resting, caps: HeaderCaps) -> Result<Self, Failure> {
        let meter = Arc::clone(wire.meter());
        let head_bytes_max = caps.bytes as usize;
        let (sender, driver) = http1::Builder::new()
            .max_headers(usize::from(caps.fields))
            .max_header_size(head_bytes_max)
            // A head at its cap must still fit, with the byte that shows it is too long.
            .max_buf_size(BUFFER_BYTES_MAX.max(head_bytes_max.saturating_add(1)))
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("no HTTP on {}: {error}", route.origin)))?;
        Ok(Self { route, allowed, sender, driver: Driver(Some(Box::pin(driver))), meter })
    }

    /// What is left of an idle connection when hyper's state is dropped; nothing when that has read what nobody asked
    /// for, or the connection has ended.
    pub(super) fn rest(self) -> Option<Resting> {
        let Self { route, allowed, driver, .. } = self;
        let parts = Pin::into_inner(driver.0?).into_parts();
        parts.read_buf.is_empty().then(|| Resting { route, allowed, wire: parts.io.into_inner() })
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Sends the request and waits for the answer's head.
    pub(super) async fn send(
        &mut self,
        outgoing: &Outgoing,
        milestones: Option<Arc<dyn Milestones>>,
    ) -> Result<Response<Incoming>, Failure> {
        self.meter.begin(outgoing.carrying(), milestones);
        let answer = self.sender.try_send_request(outgoing.request(&self.meter));
        let answer = self.driver.until(answer).await;
        answer.map_err(|refused| Failure::of_head(&refused.into_error(), &self.meter))
    }

    /// The next piece of an answer's body; nothing at its end. Trailers are no part of what we keep.
    pub(super) async fn next_piece(&mut self, body: &mut Incoming) -> Option<Result<Bytes, Failure>> {
        loop {
            match self.next_frame(body).await?.map(Frame::into_data) {
                Ok(Ok(piece)) => return Some(Ok(piece)),
                Ok(Err(_trailers)) => {}
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    /// The same with the trailers.
    pub(super) async fn next_frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, Failure>> {
        // A short body is here with its head, and what it has come to needs no driving to be found out.
        if body.is_end_stream() {
            return None;
        }
        let frame = self.driver.until(body.frame()).await?;
        Some(frame.map_err(|error| Failure::of_body(&error)))
    }

    /// After an answer was read to its end: whether the connection can carry another request.
    ///
    /// The last poll has a waker that wakes nobody, so that an idle connection keeps no finished task in memory.
    pub(super) fn settle(&mut self) -> bool {
        self.meter.end();
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        self.driver.0.is_some() && self.sender.is_ready() && self.meter.write_error().is_none()
    }
}

impl Driver {
    /// Drives the connection until `wanted` is there. It is asked for first: an earlier turn may have brought it.
    async fn until<F: Future>(&mut self, wanted: F) -> F::Output {
        let mut wanted = pin!(wanted);
        std::future::poll_fn(|cx| match wanted.as_mut().poll(cx) {
            Poll::Ready(there) => Poll::Ready(there),
            Poll::Pending => {
                self.poll(cx);
                wanted.as_mut().poll(cx)
            }
        })
        .await
    }

    /// What went wrong is told to whoever waits for a head or a body, so the outcome itself is of no use.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.0
            && let Poll::Ready(_) = driver.as_mut().poll(cx)
        {
            self.0 = None;
        }
    }
}
