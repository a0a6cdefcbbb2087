//! How many idle connections all upstreams together may keep, and in which form.
//!
//! A few keep the buffers of their protocol and go on at once; all others rest ([`Resting`]), so that ten thousand upstreams
//! hold little but their sockets. Where there is no room for a socket either, the connection is closed instead of kept.
//! Those of HTTP/2 are not counted here: an upstream has few of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use super::connection::{Connection, Resting};
use super::outgoing::Route;
use crate::config::Addresses;

/// Idle connections that keep their buffers, over all upstreams: 5 MB of them.
const PROMPT_MAX: usize = 256;
/// Idle connections over all upstreams, where the process may have that many files open at all.
const IDLE_MAX: usize = 16_384;
/// One of so many open files may be an idle connection's.
const FILES_PER_IDLE: u64 = 2;

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

/// Seats taken, of so many.
#[derive(Debug)]
struct Taken {
    count: AtomicUsize,
    max: usize,
}

/// An idle connection.
#[derive(Debug)]
pub(super) enum Kept {
    Prompt(Box<Connection>),
    Resting(Resting),
}

/// A place in the room, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    room: Arc<Shared>,
    is_prompt: bool,
}

impl Kept {
    /// Nothing when the connection has come to its end.
    pub(super) fn new(connection: Box<Connection>, seat: &Seat) -> Option<Self> {
        if seat.is_prompt { Some(Self::Prompt(connection)) } else { connection.rest().map(Self::Resting) }
    }

    pub(super) fn route(&self) -> &Route {
        match self {
            Self::Prompt(connection) => &connection.route,
            Self::Resting(resting) => &resting.route,
        }
    }

    pub(super) fn allowed(&self) -> Addresses {
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

    pub(super) fn seat(&self) -> Option<Seat> {
        let room = &self.shared;
        room.idle.take().then(|| Seat { room: Arc::clone(room), is_prompt: room.prompt.take() })
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

impl Drop for Seat {
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
        let (first, second) = (room.seat(), room.seat());
        assert_eq!(first.as_ref().map(|place| place.is_prompt), Some(true));
        assert_eq!(second.as_ref().map(|place| place.is_prompt), Some(false));
        assert!(room.seat().is_none());
        drop(first);
        assert_eq!(room.seat().map(|place| place.is_prompt), Some(true));
        drop(second);
        assert_eq!(room.shared.idle.count.load(Ordering::Relaxed), 0);
    }
}
