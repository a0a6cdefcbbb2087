//! The accounts of one connection: whose request each stream carries, and what the connection as a whole has seen.
//!
//! Written by the connection's task and its wire, read by attempts. It decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use super::super::meter::Meter;
use super::frames::Passed;

/// What is known of a connection and of the streams on it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    streams: Mutex<HashMap<u32, Arc<Meter>>>,
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

    /// Something went out; `sent` collects what only counts once it is flushed.
    pub(super) fn passed(&self, passed: Passed, sent: &mut Vec<Arc<Meter>>) {
        let (Passed::Beginning(stream) | Passed::End(stream)) = passed;
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

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Arc<Meter>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
