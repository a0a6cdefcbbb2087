//! How many idle connections all upstreams together may keep, and in which form.
//!
//! A few keep the buffers of their protocol and go on at once; all others rest ([`Resting`]), so that ten thousand upstreams
//! hold little but their sockets. Those of HTTP/2 cannot rest, so fewer of them are kept, and none of them in the places of
//! the others. Where there is no room the connection is closed instead of kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use super::connection::{Connection, Resting};
use super::outgoing::Route;
use crate::config::Addresses;

/// Idle connections that keep their buffers, over all upstreams: 5 MB of them.
const PROMPT_MAX: usize = 256;
/// Idle connections of HTTP/2, over all upstreams.
const SHARED_MAX: usize = 256;
/// Idle connections over all upstreams, where the process may have that many files open at all.
const IDLE_MAX: usize = 16_384;
/// One of so many open files may be an idle connection's.
const FILES_PER_IDLE: u64 = 2;

/// Room for idle connections that all pools share.
#[derive(Debug, Clone)]
pub struct Room {
    seats: Arc<Seats>,
}

/// How many idle connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct RoomSize {
    /// In all.
    pub idle: usize,
    /// Of HTTP/1.1, those that keep their buffers.
    pub prompt: usize,
    /// Of HTTP/2.
    pub shared: usize,
}

#[derive(Debug)]
struct Seats {
    idle: Taken,
    prompt: Taken,
    shared: Taken,
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
    seats: Arc<Seats>,
    manner: Manner,
}

/// How an idle connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Prompt,
    Resting,
    Shared,
}

impl Kept {
    /// Nothing when the connection has come to its end.
    pub(super) fn new(connection: Box<Connection>, seat: &Seat) -> Option<Self> {
        match seat.manner {
            Manner::Prompt | Manner::Shared => Some(Self::Prompt(connection)),
            Manner::Resting => connection.rest().map(Self::Resting),
        }
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
    #[must_use]
    pub fn new(size: RoomSize) -> Self {
        let taken = |max| Taken { count: AtomicUsize::new(0), max };
        let seats = Seats { idle: taken(size.idle), prompt: taken(size.prompt), shared: taken(size.shared) };
        Self { seats: Arc::new(seats) }
    }

    /// For a connection of HTTP/1.1.
    pub(super) fn seat(&self) -> Option<Seat> {
        let is_prompt = || self.seats.prompt.take();
        self.seats.idle.take().then(|| self.seated(if is_prompt() { Manner::Prompt } else { Manner::Resting }))
    }

    /// For one of HTTP/2.
    pub(super) fn shared_seat(&self) -> Option<Seat> {
        if !self.seats.shared.take() {
            return None;
        }
        if self.seats.idle.take() {
            return Some(self.seated(Manner::Shared));
        }
        self.seats.shared.give_back();
        None
    }

    fn seated(&self, manner: Manner) -> Seat {
        Seat { seats: Arc::clone(&self.seats), manner }
    }
}

impl Default for Room {
    /// Half of the files that the process may have open.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / FILES_PER_IDLE;
        let idle = usize::try_from(files).unwrap_or(IDLE_MAX).min(IDLE_MAX);
        Self::new(RoomSize { idle, prompt: PROMPT_MAX, shared: SHARED_MAX })
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
        self.seats.idle.give_back();
        match self.manner {
            Manner::Prompt => self.seats.prompt.give_back(),
            Manner::Shared => self.seats.shared.give_back(),
            Manner::Resting => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let room = Room::new(RoomSize { idle: 3, prompt: 1, shared: 1 });
        let (first, second) = (room.seat(), room.seat());
        assert_eq!(first.as_ref().map(|seat| seat.manner), Some(Manner::Prompt));
        assert_eq!(second.as_ref().map(|seat| seat.manner), Some(Manner::Resting));
        let shared = room.shared_seat();
        assert!(shared.is_some() && room.shared_seat().is_none() && room.seat().is_none());
        drop(first);
        assert!(room.shared_seat().is_none(), "HTTP/2 has its own number");
        assert_eq!(room.seat().map(|seat| seat.manner), Some(Manner::Prompt));
        drop((second, shared));
        let Seats { idle, prompt, shared } = &*room.seats;
        assert_eq!([idle, prompt, shared].map(|taken| taken.count.load(Ordering::Relaxed)), [0; 3]);
    }

    #[test]
    fn what_finds_no_place_takes_none() {
        let room = Room::new(RoomSize { idle: 1, prompt: 1, shared: 2 });
        let only = room.shared_seat();
        assert!(room.shared_seat().is_none() && room.seat().is_none());
        drop(only);
        assert!(room.shared_seat().is_some());
        assert_eq!(room.seats.shared.count.load(Ordering::Relaxed), 0);
    }
}
