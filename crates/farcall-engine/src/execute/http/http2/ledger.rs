//! The accounts of one connection: whose request each stream carries, and what the connection as a whole has seen.
//!
//! Written by the connection's task and its wire, read by attempts. It decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use farcall_core::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::meter::Meter;
use super::frames::Passed;

/// How long after it was given up a request may still go out. Its slot cools since; what leaves later than the network's
/// own `jitter` would arrive in a window that does not know of it.
const LATE: Duration = Duration::from_millis(100);

/// What is known of a connection and of the streams on it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    streams: Mutex<HashMap<u32, Arc<Meter>>>,
    /// Streams whose requests were given up before they went out, and when; the h2 crate would send them all the same.
    given_up: Mutex<HashMap<u32, Instant>>,
    has_given_up: AtomicBool,
    received_bytes: AtomicU64,
    /// A write has failed: what is still read may count.
    broken: AtomicBool,
    /// It takes no new request.
    retired: AtomicBool,
    /// Why it ended, where the h2 crate does not know.
    cause: OnceLock<String>,
    /// Nobody has looked yet, before the next write, if the other side closed or said something.
    in_doubt: AtomicBool,
    ended: CancellationToken,
}

impl Ledger {
    /// From now on this stream carries the request of this meter.
    pub(super) fn open(&self, stream: u32, meter: Arc<Meter>) {
        meter.hand_over();
        self.streams().insert(stream, meter);
        self.in_doubt.store(true, Ordering::Release);
    }

    /// Nobody asks about this stream any more.
    pub(super) fn close(&self, stream: u32) {
        self.streams().remove(&stream);
    }

    /// The request of this stream was given up before any of it went out.
    pub(super) fn give_up(&self, stream: u32, at: Instant) {
        self.given_up().insert(stream, at);
        self.has_given_up.store(true, Ordering::Release);
        self.close(stream);
    }

    /// Whether to look for requests that must not go out any more.
    pub(super) fn has_given_up(&self) -> bool {
        self.has_given_up.load(Ordering::Acquire)
    }

    /// Whether this stream's request was given up too long ago to go out now.
    pub(super) fn is_late(&self, stream: u32, now: Instant) -> bool {
        self.given_up().get(&stream).is_some_and(|&at| now.since(at) >= LATE)
    }

    /// Something went out; `sent` collects what only counts once it is flushed.
    pub(super) fn passed(&self, passed: Passed, sent: &mut Vec<Arc<Meter>>) {
        let (Passed::Beginning(stream) | Passed::End(stream)) = passed;
        if self.has_given_up() {
            let mut given_up = self.given_up();
            given_up.remove(&stream);
            self.has_given_up.store(!given_up.is_empty(), Ordering::Release);
        }
        let Some(meter) = self.streams().get(&stream).cloned() else { return };
        match passed {
            Passed::Beginning(_) => meter.wrote(1),
            Passed::End(_) => {
                meter.body_taken();
                sent.push(meter);
            }
        }
    }

    pub(super) fn write_failed(&self, error: &std::io::Error) {
        self.broken.store(true, Ordering::Release);
        self.note(error.to_string());
    }

    pub(super) fn note(&self, cause: impl Into<String>) {
        self.cause.get_or_init(|| cause.into());
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.get().map(String::as_str)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether anything new may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_broken() && !self.retired.load(Ordering::Acquire) && !self.ended.is_cancelled()
    }

    /// Requests whose answers are awaited.
    pub(super) fn waiting(&self) -> usize {
        self.streams().len()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(super) fn take_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire) && self.in_doubt.swap(false, Ordering::AcqRel)
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// Bytes received so far: as long as this stays the same, the other side is silent.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Acquire)
    }

    /// The connection is over: what was not written will not be.
    pub(super) fn end(&self) {
        for meter in self.streams().values() {
            meter.take_back();
        }
        self.ended.cancel();
    }

    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn given_up(&self) -> MutexGuard<'_, HashMap<u32, Instant>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Meter>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_given_up_may_go_out_a_moment_later_and_no_more() {
        let (ledger, at) = (Ledger::default(), Instant::from_micros(5_000_000));
        ledger.give_up(3, at);
        assert!(ledger.has_given_up());
        assert!(!ledger.is_late(3, at + LATE - Duration::from_micros(1)) && ledger.is_late(3, at + LATE));
        assert!(!ledger.is_late(5, at + LATE), "another's");
        ledger.passed(Passed::Beginning(3), &mut Vec::new());
        assert!(!ledger.has_given_up() && !ledger.is_late(3, at + LATE), "it is out");
    }
}
