//! A store that commits and cannot say what it holds: its readers fail, or panic, when asked for a call.

use farcall_core::id::CallId;
use farcall_core::steady::KeptClock;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{
    CallsAsk, CommitError, EndedRange, Fate, Granted, GrantsAsk, Legible, ReadError, Reader, ReopenError, Store,
    WaitingAsk, WaitingCalls, Write,
};
use farcall_store::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, OutcomeRecord, Recovery, RequestRecord, ResponseRecord,
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
    fn calls(&mut self, _: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        match self.reading {
            Reading::Fails => Err(ReadError { what: "a call", source: "a bad row".into() }),
            Reading::Panics => panic!("a bad row"),
        }
    }

    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        self.reader.attempts(id)
    }

    fn requests(&mut self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError> {
        self.reader.requests(ids)
    }

    fn outcomes(&mut self, ids: &[CallId], bytes_max: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
        self.reader.outcomes(ids, bytes_max)
    }

    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        self.reader.response(id)
    }

    fn grants(&mut self, limit_key: &str, asked: &[GrantsAsk]) -> Result<Granted, ReadError> {
        self.reader.grants(limit_key, asked)
    }

    fn waiting(&mut self, asked: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError> {
        self.reader.waiting(asked)
    }

    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        self.reader.ended(range)
    }

    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        self.reader.unfiled(name)
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        self.reader.free_bytes()
    }
}
