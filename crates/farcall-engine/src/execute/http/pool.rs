//! The idle connections of one upstream, and how many all upstreams together may have.
//!
//! The one used last is taken first, so that a lull lets the others grow old. Old ones are closed when the pool is
//! next touched, or by [`Pool::prune`]; nothing runs in the background. A few over all upstreams keep the buffers of their
//! protocol and go on at once; all others rest ([`Resting`]), so that ten thousand upstreams hold little but their sockets.
//! Where there is no room for a socket either, the connection is closed instead of kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;
use rustix::process::{Resource, getrlimit};

use super::connection::{Connection, Resting};
use super::outgoing::Route;
use crate::clock;
use crate::config::Addresses;

/// Idle connections that keep their buffers, over all upstreams: 5 MB of them.
const PROMPT_MAX: usize = 256;
/// Idle connections over all upstreams, where the process may have that many files open at all.
const IDLE_MAX: usize = 16_384;
/// One of so many open files may be an idle connection's.
const FILES_PER_IDLE: u64 = 2;

/// Idle connections, the oldest at the front.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<Idle>>,
    idle_timeout: Duration,
    idle_max: usize,
    room: Room,
}

/// Room for idle connections that all pools share.
#[derive(Debug, Clone)]
pub struct Room {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Idle connections.
    idle: Taken,
    /// Those of them that keep their buffers.
    prompt: Taken,
}

/// Places taken, of so many.
#[derive(Debug)]
struct Taken {
    count: AtomicUsize,
    max: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Kept,
    since: Instant,
    place: Place,
}

/// An idle connection.
#[derive(Debug)]
pub(super) enum Kept {
    Prompt(Box<Connection>),
    Resting(Resting),
}

/// A place in the room, free again when it is dropped.
#[derive(Debug)]
struct Place {
    room: Arc<Shared>,
    is_prompt: bool,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, idle_max: usize, room: Room) -> Self {
        Self { idle: Mutex::default(), idle_timeout, idle_max, room }
    }

    /// The connection of this route that was used last. It may have been closed by the other side meanwhile.
    ///
    /// One that was opened to any address serves no request that may go to public ones only.
    pub(super) fn take(&self, route: &Route, allowed: Addresses) -> Option<Kept> {
        let suits = |connection: &Kept| match allowed {
            Addresses::Any => connection.route() == route,
            Addresses::Public => connection.allowed() == Addresses::Public && connection.route() == route,
        };
        self.prune();
        let mut idle = self.idle();
        let index = idle.iter().rposition(|idle| suits(&idle.connection))?;
        idle.remove(index).map(|idle| idle.connection)
    }

    /// Keeps a connection for the next request, while there is room for it.
    pub(super) fn put(&self, connection: Connection) {
        let since = clock::now().instant;
        let mut idle = self.idle();
        let place = if idle.len() < self.idle_max { self.room.place() } else { None };
        // Where there is none, the oldest of its own gives way.
        let (place, closed) = match place {
            Some(place) => (Some(place), None),
            None => idle.pop_front().map(|Idle { connection, place, .. }| (place, connection)).unzip(),
        };
        if let Some(place) = place
            && let Some(connection) = Kept::new(connection, place.is_prompt)
        {
            idle.push_back(Idle { connection, since, place });
        }
        // Closing is a system call: not under the lock.
        drop(idle);
        drop(closed);
    }

    /// Closes what has been idle too long.
    pub(super) fn prune(&self) {
        let now = clock::now().instant;
        let mut idle = self.idle();
        let old = idle.iter().take_while(|idle| now.since(idle.since) >= self.idle_timeout).count();
        if old == 0 {
            return;
        }
        let closed: Vec<Idle> = idle.drain(..old).collect();
        if idle.is_empty() {
            // Of many upstreams most are called now and then.
            *idle = VecDeque::new();
        }
        drop(idle);
        drop(closed);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Nothing when the connection has come to its end.
    fn new(connection: Connection, is_prompt: bool) -> Option<Self> {
        if is_prompt { Some(Self::Prompt(Box::new(connection))) } else { connection.rest().map(Self::Resting) }
    }

    fn route(&self) -> &Route {
        match self {
            Self::Prompt(connection) => &connection.route,
            Self::Resting(resting) => &resting.route,
        }
    }

    fn allowed(&self) -> Addresses {
        match self {
            Self::Prompt(connection) => connection.allowed,
            Self::Resting(resting) => resting.allowed,
        }
    }
}

impl Room {
    /// Room for so many idle connections, and for so many of them with their buffers.
    #[must_use]
    pub fn new(idle_max: usize, prompt_max: usize) -> Self {
        let taken = |max| Taken { count: AtomicUsize::new(0), max };
        Self { shared: Arc::new(Shared { idle: taken(idle_max), prompt: taken(prompt_max) }) }
    }

    fn place(&self) -> Option<Place> {
        let room = &self.shared;
        room.idle.take().then(|| Place { room: Arc::clone(room), is_prompt: room.prompt.take() })
    }
}

impl Default for Room {
    /// Half of the files that the process may have open.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / FILES_PER_IDLE;
        Self::new(usize::try_from(files).unwrap_or(IDLE_MAX).min(IDLE_MAX), PROMPT_MAX)
    }
}

impl Taken {
    /// False when there is none left.
    fn take(&self) -> bool {
        let one_more = |count| (count < self.max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn give_back(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.idle.give_back();
        if self.is_prompt {
            self.room.prompt.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let room = Room::new(2, 1);
        let (first, second) = (room.place(), room.place());
        assert_eq!(first.as_ref().map(|place| place.is_prompt), Some(true));
        assert_eq!(second.as_ref().map(|place| place.is_prompt), Some(false));
        assert!(room.place().is_none());
        drop(first);
        assert_eq!(room.place().map(|place| place.is_prompt), Some(true));
        drop(second);
        assert_eq!(room.shared.idle.count.load(Ordering::Relaxed), 0);
    }
}
