//! Places of which there are only so many: whoever finds none is told how soon one is likely to be free.
//!
//! How soon that is is an estimate of the core (`turnover`); here is only who takes a place, and when it is given back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;
use farcall_core::turnover::Turnover;
use farcall_engine::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Quota, Unit};

/// A number of places of one kind.
#[derive(Debug)]
pub(crate) struct Places {
    name: &'static str,
    all: usize,
    free: Arc<Semaphore>,
    pace: Pace,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _hold: Hold,
}

/// How places are taken and given back, for all who take and give back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace(Arc<Mutex<Turnover>>);

/// Something taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    pace: Pace,
    since: Instant,
}

impl Places {
    pub(crate) fn new(name: &'static str, all: usize) -> Self {
        Self { name, all, free: Arc::new(Semaphore::new(all)), pace: Pace::default() }
    }

    /// One of them.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn take(&self) -> Result<Place, Quota> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit, _hold: self.pace.hold() }),
            Err(_) => Err(Quota {
                name: self.name,
                unit: Unit::ConcurrentRequests,
                all: u64::try_from(self.all).unwrap_or(u64::MAX),
                free: 0,
                free_in: self.pace.next_free_in(),
            }),
        }
    }
}

impl Pace {
    /// Notes that something is taken, and that it is given back when what comes of this is dropped.
    pub(crate) fn hold(&self) -> Hold {
        let since = clock::instant();
        self.with(|turnover| turnover.taken(since));
        Hold { pace: self.clone(), since }
    }

    pub(crate) fn next_free_in(&self) -> Duration {
        let now = clock::instant();
        self.with(|turnover| turnover.next_free_in(now))
    }

    fn with<T>(&self, of: impl FnOnce(&mut Turnover) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let now = clock::instant();
        self.pace.with(|turnover| turnover.given_back(now, now.since(self.since)));
    }
}
