//! One HTTP/2 connection, shared by the attempts that have a place on it, and the task that drives it.
//!
//! It takes as many requests at once as the other side allows, up to a maximum of ours, and none once the other side has
//! announced its end (GOAWAY), broken off, or is in doubt. The task ends with the connection, and is ended by whoever
//! drops the connection last.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::ErrorKind;
use farcall_core::time::Instant;
use h2::client::{Builder, SendRequest};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::super::classify::Failure;
use super::super::outgoing::Route;
use super::super::room::{Room, Seat};
use super::super::wire::Stream;
use super::classify;
use super::keep_alive::{KeepAlive, Round};
use super::ledger::Ledger;
use super::wire::Wire;
use crate::clock;
use crate::config::{Addresses, HeaderCaps};

/// What one answer may send ahead of its reader, and all of a connection's together.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Streams given up of which late frames are still known to be theirs.
const RESET_STREAMS_MAX: usize = 1024;
/// The h2 crate counts 32 bytes more for every field, and what is far over its maximum ends the connection: a head that
/// is only a little over ours is to be judged by us, and cost no more than itself.
const HEAD_SLACK: u32 = 4;

/// How connections are opened and kept.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Terms {
    pub(in super::super) caps: HeaderCaps,
    /// Requests at once on one connection, at most.
    pub(in super::super) streams_max: usize,
    /// How often it is looked whether the other side still says something.
    pub(in super::super) round: Duration,
}

/// An open connection to an origin.
#[derive(Debug)]
pub(in super::super) struct Connection {
    pub(in super::super) route: Route,
    /// Where it was allowed to lead when it was opened.
    pub(in super::super) allowed: Addresses,
    pub(super) caps: HeaderCaps,
    pub(super) ledger: Arc<Ledger>,
    opener: Mutex<Opener>,
    streams_max: usize,
    home: Home,
    driver: AbortOnDropHandle<()>,
}

/// What a connection shares with others.
#[derive(Debug)]
pub(in super::super) struct Home {
    /// Told when a place is free again.
    pub(in super::super) freed: Arc<Notify>,
    /// Where it may stay while it carries nothing.
    pub(in super::super) room: Room,
}

/// Where streams begin. Their numbers are known before the other side can see them, because all begin under one lock.
pub(super) struct Opener {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) next_stream: u32,
    places_taken: usize,
    idle_since: Instant,
    /// While it carries nothing.
    seat: Option<Seat>,
}

/// Room for one request, given back when dropped.
#[derive(Debug)]
pub(in super::super) struct Place {
    pub(super) connection: Arc<Connection>,
}

/// Closes the accounts however the task ends.
struct Closing(Arc<Ledger>);

impl Connection {
    /// HTTP/2 on a stream that is open; it is, once the other side has told its settings.
    ///
    /// # Errors
    /// `connect`, `tls` or `protocol`; nothing of a request was sent.
    pub(in super::super) async fn open(
        stream: Stream,
        route: Route,
        allowed: Addresses,
        terms: Terms,
        home: Home,
    ) -> Result<Arc<Self>, Failure> {
        let ledger = Arc::<Ledger>::default();
        let wire = Wire::new(stream, Arc::clone(&ledger));
        let handshake = builder(terms.caps).handshake(wire).await;
        let (sender, mut connection) = handshake.map_err(|error| classify::of_opening(&error))?;
        std::future::poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(closed())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(classify::of_opening(&error))),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let closing = Closing(Arc::clone(&ledger));
        let driver = AbortOnDropHandle::new(tokio::spawn(drive(closing, connection, terms.round)));
        let opener = Opener { sender, next_stream: 1, places_taken: 0, idle_since: clock::instant(), seat: None };
        let (opener, caps, streams_max) = (Mutex::new(opener), terms.caps, terms.streams_max);
        Ok(Arc::new(Self { route, allowed, caps, ledger, opener, streams_max, home, driver }))
    }

    /// Room for a request, if there is any.
    pub(in super::super) fn place(self: &Arc<Self>) -> Option<Place> {
        let mut opener = self.opener();
        if !self.is_open(&mut opener) || opener.places_taken >= self.places(&opener) {
            return None;
        }
        opener.places_taken += 1;
        opener.seat = None;
        Some(Place { connection: Arc::clone(self) })
    }

    /// Whether it may carry further requests.
    pub(in super::super) fn is_usable(&self) -> bool {
        self.is_open(&mut self.opener())
    }

    /// Requests at once.
    pub(in super::super) fn capacity(&self) -> usize {
        self.places(&self.opener())
    }

    /// Since when it carries nothing.
    pub(in super::super) fn idle_since(&self) -> Option<Instant> {
        let opener = self.opener();
        (opener.places_taken == 0).then_some(opener.idle_since)
    }

    /// No further request on it; those that are out go on.
    pub(super) fn retire(&self) {
        self.ledger.retire();
    }

    /// An attempt on it was given up, and nothing was heard since its request was handed over: nobody knows whether the
    /// request has arrived, or is still to. As with HTTP/1.1 that ends the connection, unless others wait on it too; then
    /// it is theirs alone, and if it is dead they find out.
    pub(super) fn doubt(&self) {
        self.retire();
        if self.opener().places_taken == 1 {
            self.driver.abort();
        }
    }

    pub(super) fn opener(&self) -> MutexGuard<'_, Opener> {
        self.opener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, opener: &mut Opener) -> bool {
        let takes_more = opener.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.ledger.is_usable() && matches!(takes_more, Poll::Ready(Ok(())))
    }

    fn places(&self, opener: &Opener) -> usize {
        opener.sender.current_max_send_streams().min(self.streams_max)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut opener = self.connection.opener();
        opener.places_taken -= 1;
        opener.idle_since = clock::instant();
        if opener.places_taken == 0 {
            opener.seat = self.connection.home.room.shared_seat();
            if opener.seat.is_none() {
                self.connection.retire();
                self.connection.driver.abort();
            }
        }
        drop(opener);
        self.connection.home.freed.notify_one();
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("next_stream", &self.next_stream).finish_non_exhaustive()
    }
}

fn builder(caps: HeaderCaps) -> Builder {
    let head_bytes_max = caps.bytes.saturating_add(32 * u32::from(caps.fields)).saturating_mul(HEAD_SLACK);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        // Until the other side has said how many it takes.
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_header_list_size(head_bytes_max);
    builder
}

fn closed() -> Failure {
    Failure::new(ErrorKind::Connect, "no HTTP/2 connection: closed by the other side")
}

/// Drives a connection to its end. What went wrong is told to whoever waits for a head or a body.
async fn drive(closing: Closing, connection: h2::client::Connection<Wire, Bytes>, round: Duration) {
    let ledger = &closing.0;
    let mut connection = pin!(connection);
    let mut pings = connection.ping_pong();
    let mut keep_alive = KeepAlive::default();
    loop {
        tokio::select! {
            _ended = &mut connection => return,
            () = tokio::time::sleep(round) => {}
        }
        match keep_alive.round(ledger.received_bytes(), ledger.waiting()) {
            Round::Fine if ledger.waiting() == 0 && !ledger.is_usable() => return,
            Round::Fine => {}
            Round::Ask => {
                let Some(pings) = &mut pings else { continue };
                // An answer to an earlier one is taken note of, or the next could not be sent.
                let _answered = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
                let _under_way = pings.send_ping(h2::Ping::opaque());
            }
            Round::Dead => {
                ledger.note("the other side is silent, and does not even answer PING");
                return;
            }
        }
    }
}
