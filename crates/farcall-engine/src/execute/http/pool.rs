//! The idle connections of one upstream.
//!
//! The one used last is taken first, so that a lull lets the others grow old. Old ones are closed when the pool is
//! next touched, or by [`Pool::prune`]; nothing runs in the background.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;

use super::connection::Connection;
use super::outgoing::Route;
use crate::clock;
use crate::config::Addresses;

/// Idle connections, the oldest at the front.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<VecDeque<Idle>>,
    idle_timeout: Duration,
    idle_max: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration, idle_max: usize) -> Self {
        Self { idle: Mutex::default(), idle_timeout, idle_max }
    }

    /// The connection of this route that was used last. It may have been closed by the other side meanwhile.
    ///
    /// One that was opened to any address serves no request that may go to public ones only.
    pub(super) fn take(&self, route: &Route, allowed: Addresses) -> Option<Connection> {
        let suits = |connection: &Connection| match allowed {
            Addresses::Any => connection.route == *route,
            Addresses::Public => connection.allowed == Addresses::Public && connection.route == *route,
        };
        self.prune();
        let mut idle = self.idle();
        let index = idle.iter().rposition(|idle| suits(&idle.connection))?;
        idle.remove(index).map(|idle| idle.connection)
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, connection: Connection) {
        let since = clock::now().instant;
        let mut idle = self.idle();
        idle.push_back(Idle { connection, since });
        let surplus = if idle.len() > self.idle_max { idle.pop_front() } else { None };
        // Closing is a system call: not under the lock.
        drop(idle);
        drop(surplus);
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
        drop(idle);
        drop(closed);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
