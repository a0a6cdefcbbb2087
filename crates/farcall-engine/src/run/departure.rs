//! When a request left, where nothing depends on it but what somebody may ask later.
//!
//! Limits hear of it by news. Without limits it is noted in a cell that costs nobody a message.

use std::sync::atomic::{AtomicI64, Ordering};

use farcall_core::time::Instant;

use crate::execute::Milestones;

/// The moment at which the last byte of an attempt's request left our buffers.
#[derive(Debug)]
pub(crate) struct Departure(AtomicI64);

/// It has not left yet.
const NOT_YET: i64 = i64::MIN;

impl Departure {
    pub(super) const fn new() -> Self {
        Self(AtomicI64::new(NOT_YET))
    }

    /// Nothing as long as it has not left, as far as is known.
    pub(super) fn at(&self) -> Option<Instant> {
        let at = self.0.load(Ordering::Acquire);
        (at != NOT_YET).then(|| Instant::from_micros(at))
    }
}

impl Milestones for Departure {
    fn sent(&self, at: Instant) {
        self.0.store(at.as_micros(), Ordering::Release);
    }

    fn first_byte(&self, _: Instant) {}
}
