//! Places for those who wait for an answer: there are only so many, and whoever finds none is told when to come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;
use farcall_core::turnover::Turnover;

use crate::clock;

/// Calls that somebody waits for, at most, over all upstreams.
pub(crate) const WAITING_MAX: u32 = 8_192;

/// All places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    count: u32,
    turnover: Turnover,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    since: Instant,
}

impl Places {
    /// One of them.
    ///
    /// # Errors
    /// When all are taken: how soon one is likely to be free.
    pub(crate) fn take(&self, now: Instant) -> Result<Place, Duration> {
        self.with(|taken| {
            if taken.count >= WAITING_MAX {
                return Err(taken.turnover.next_free_in(now));
            }
            taken.count += 1;
            taken.turnover.taken(now);
            Ok(())
        })?;
        Ok(Place { places: self.clone(), since: now })
    }

    fn with<T>(&self, of: impl FnOnce(&mut Taken) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = clock::instant();
        self.places.with(|taken| {
            taken.count -= 1;
            taken.turnover.given_back(now, now.since(self.since));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_no_place_is_told_when_to_come_back() {
        let places = Places::default();
        let now = Instant::from_micros(1_000_000);
        let mut held: Vec<Place> = (0..WAITING_MAX).map(|_| places.take(now).expect("a place")).collect();
        let wait = places.take(now).expect_err("all are taken");
        assert!(wait >= Duration::from_secs(1));
        held.pop();
        assert!(places.take(now).is_ok());
    }
}
