//! A store that commits and cannot say what it holds: its readers fail, or panic, when asked for a call.

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_core::steady::{KeptClock, Steady};
use farcall_store::memory::MemoryStore;
use farcall_store::port::{
    CommitError, EndedRange, Fate, GrantsAsk, LaneRange, Legible, ReadError, Reader, ReopenError, Store, Write,
};
use farcall_store::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, GrantRecord, Recovery, ResponseRecord,
};

#[derive(Debug)]
pub(crate) struct Unreadable {
    store: MemoryStore,
    reading: Reading,
}

/// What reading a call comes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    Fails,
    Panics,
}

struct UnreadableReader {
    reader: Box<dyn Reader>,
    reading: Reading,
}

impl Unreadable {
    pub(crate) fn new(reading: Reading) -> Self {
        Self { store: MemoryStore::new(), reading }
    }
}

impl Store for Unreadable {
    fn take_over(&mut self) -> Result<Recovery, ReadError> {
        self.store.take_over()
    }

    fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError> {
        self.store.keep_clock(clock)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.store.commit(writes)
    }

    fn reopen(&mut self) -> Result<Fate, ReopenError> {
        self.store.reopen()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(UnreadableReader { reader: self.store.reader()?, reading: self.reading }))
    }
}

impl Reader for UnreadableReader {
    fn call(&mut self, _: CallId) -> Result<Option<CallRecord>, ReadError> {
        match self.reading {
            Reading::Fails => Err(ReadError { what: "a call", source: "a bad row".into() }),
            Reading::Panics => panic!("a bad row"),
        }
    }

    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        self.reader.attempts(id)
    }

    fn request(&mut self, id: CallId) -> Result<Option<Bytes>, ReadError> {
        self.reader.request(id)
    }

    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        self.reader.response(id)
    }

    fn keyed(&mut self, scope: &str, key: &str) -> Result<Option<CallRecord>, ReadError> {
        self.reader.keyed(scope, key)
    }

    fn waiting(&mut self, ranges: &[LaneRange]) -> Result<Legible<Vec<Vec<CallRecord>>>, ReadError> {
        self.reader.waiting(ranges)
    }

    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        self.reader.ended(range)
    }

    fn expiring(&mut self, count: u32) -> Result<Legible<Vec<CallRecord>>, ReadError> {
        self.reader.expiring(count)
    }

    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        self.reader.unfiled(name)
    }

    fn closed_until(&mut self, limit_key: &str) -> Result<Option<Steady>, ReadError> {
        self.reader.closed_until(limit_key)
    }

    fn grants(&mut self, limit_key: &str, ask: GrantsAsk) -> Result<Vec<GrantRecord>, ReadError> {
        self.reader.grants(limit_key, ask)
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        self.reader.free_bytes()
    }
}
