//! The connections of one upstream: idle ones of HTTP/1.1, and those of HTTP/2 that have room.
//!
//! The one used last is taken first, so that a lull lets the others grow old. Old ones are closed when the pool is
//! next touched, or by [`Pool::prune`]. How many may be idle over all upstreams is `room`'s. Whoever finds none is told to open one, or waits for one that is being opened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;
use tokio::sync::Notify;

use super::classify::Failure;
use super::connection::{Connection, Resting};
use super::http2;
use super::outgoing::Route;
use super::room::{Kept, Room, Seat};
use super::tls::Offer;
use super::ways::{Speaks, Turn, Ways};
use crate::clock;
use crate::config::Addresses;

/// What is open, and what is being opened.
#[derive(Debug)]
pub(super) struct Pool {
    open: Mutex<Open>,
    idle_timeout: Duration,
    idle_max: usize,
    room: Room,
}

#[derive(Debug, Default)]
struct Open {
    /// The oldest at the front.
    idle: VecDeque<Idle>,
    /// Of HTTP/2, idle or not, the oldest at the front.
    shared: Vec<Arc<http2::Connection>>,
    ways: Ways,
}

#[derive(Debug)]
struct Idle {
    connection: Kept,
    since: Instant,
    seat: Seat,
}

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Line {
    Http1(Box<Connection>),
    /// Of HTTP/1.1, too.
    Resting(Resting),
    Http2(http2::Place),
}

/// What one finds in the pool.
pub(super) enum Found<'a> {
    Line(Line),
    Nothing(Opening<'a>),
}

/// Somebody opens a connection, and others may wait for it until this is dropped.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    pool: &'a Pool,
    route: &'a Route,
    allowed: Addresses,
    pub(super) offer: Offer,
    /// Told when a place on the connection is free again.
    pub(super) freed: Arc<Notify>,
}

/// Somebody waits for a connection that another one opens.
struct Waiting<'a> {
    pool: &'a Pool,
    route: &'a Route,
    allowed: Addresses,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, idle_max: usize, room: Room) -> Self {
        Self { open: Mutex::default(), idle_timeout, idle_max, room }
    }

    /// The connection of this route that was used last, if there is one. It may have been closed by the other side
    /// meanwhile.
    ///
    /// One that was opened to any address serves no request that may go to public ones only.
    pub(super) fn reuse(&self, route: &Route, allowed: Addresses) -> Option<Line> {
        self.prune();
        self.open().take(route, allowed)
    }

    /// A connection that has come about meanwhile, or the task to open one.
    ///
    /// # Errors
    /// What went wrong for the one who opened the connection that was waited for.
    pub(super) async fn take<'a>(&'a self, route: &'a Route, allowed: Addresses) -> Result<Found<'a>, Failure> {
        let mut failures_before = None;
        loop {
            let news;
            {
                let mut open = self.open();
                if let Some(line) = open.take(route, allowed) {
                    return Ok(Found::Line(line));
                }
                let way = open.ways.get(route, allowed);
                if *failures_before.get_or_insert(way.failures) != way.failures
                    && let Some(failure) = &way.failure
                {
                    return Err(failure.clone());
                }
                news = Arc::clone(&way.news).notified_owned();
                if way.turn() == Turn::Open {
                    let (offer, freed) = (way.offer(), Arc::clone(&way.news));
                    return Ok(Found::Nothing(Opening { pool: self, route, allowed, offer, freed }));
                }
                way.waiting += 1;
            }
            let waiting = Waiting { pool: self, route, allowed };
            news.await;
            drop(waiting);
        }
    }

    /// Keeps a connection for the next request, while there is room for it.
    pub(super) fn put(&self, connection: Box<Connection>) {
        let since = clock::instant();
        let mut open = self.open();
        let seat = if open.idle.len() < self.idle_max { self.room.seat() } else { None };
        // Where there is none, the oldest of its own gives way.
        let (seat, closed) = match seat {
            Some(seat) => (Some(seat), None),
            None => open.idle.pop_front().map(|Idle { connection, seat, .. }| (seat, connection)).unzip(),
        };
        if let Some(seat) = seat
            && let Some(connection) = Kept::new(connection, &seat)
        {
            open.idle.push_back(Idle { connection, since, seat });
        }
        // Closing is a system call: not under the lock.
        drop(open);
        drop(closed);
    }

    /// This route is taken by HTTP/1.1 only from now on.
    pub(super) fn use_http1(&self, route: &Route, allowed: Addresses) {
        self.open().ways.get(route, allowed).opened(Speaks::OnlyHttp1);
    }

    /// Closes what has been idle too long, and forgets what has ended.
    pub(super) fn prune(&self) {
        let now = clock::instant();
        let mut open = self.open();
        let old = open.idle.iter().take_while(|idle| now.since(idle.since) >= self.idle_timeout).count();
        let closed: Vec<Idle> = open.idle.drain(..old).collect();
        let ended = open.remove_ended(now, self.idle_timeout, self.idle_max);
        drop(open);
        drop((closed, ended));
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn take(&mut self, route: &Route, allowed: Addresses) -> Option<Line> {
        let suits = |its_route: &Route, its_allowed: Addresses| match allowed {
            Addresses::Any => its_route == route,
            Addresses::Public => its_allowed == Addresses::Public && its_route == route,
        };
        let mut shared = self.shared.iter().rev().filter(|shared| suits(&shared.route, shared.allowed));
        if let Some(place) = shared.find_map(http2::Connection::place) {
            return Some(Line::Http2(place));
        }
        let index = self.idle.iter().rposition(|idle| suits(idle.connection.route(), idle.connection.allowed()))?;
        self.idle.remove(index).map(|idle| match idle.connection {
            Kept::Prompt(connection) => Line::Http1(connection),
            Kept::Resting(resting) => Line::Resting(resting),
        })
    }

    /// Shared connections that take no request any more, or carried none for too long; beyond the maximum the oldest.
    fn remove_ended(&mut self, now: Instant, idle_timeout: Duration, idle_max: usize) -> Vec<Arc<http2::Connection>> {
        if self.shared.is_empty() {
            return Vec::new();
        }
        let idle = self.shared.iter().filter(|shared| shared.idle_since().is_some()).count();
        let mut surplus = idle.saturating_sub(idle_max);
        let is_over = |shared: &mut Arc<http2::Connection>| match shared.idle_since() {
            Some(_) if surplus > 0 => {
                surplus -= 1;
                true
            }
            Some(since) => now.since(since) >= idle_timeout || !shared.is_usable(),
            None => !shared.is_usable(),
        };
        self.shared.extract_if(.., is_over).collect()
    }
}

impl Opening<'_> {
    /// It speaks HTTP/1.1, and is whoever's who opened it.
    pub(super) fn carries_one(self) {
        self.pool.open().ways.get(self.route, self.allowed).opened(Speaks::Http1);
    }

    /// It speaks HTTP/2. The first place on it is whoever's who opened it.
    pub(super) fn carries_many(&self, connection: Arc<http2::Connection>) -> Option<http2::Place> {
        let mut open = self.pool.open();
        open.ways.get(self.route, self.allowed).opened(Speaks::Http2 { capacity: connection.capacity() });
        let place = connection.place();
        open.shared.push(connection);
        place
    }

    pub(super) fn failed(self, failure: &Failure) {
        self.pool.open().ways.get(self.route, self.allowed).failed(failure);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.pool.open().ways.get(self.route, self.allowed).closed();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.open().ways.get(self.route, self.allowed).waiting -= 1;
    }
}
