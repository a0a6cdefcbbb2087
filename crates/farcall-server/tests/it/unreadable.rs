//! A store that commits and cannot say what it holds: its readers fail, or panic, when asked for a call, or take their
//! time with lists.

use std::sync::{Arc, Mutex, mpsc};

use farcall_core::id::CallId;
use farcall_core::steady::KeptClock;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{
    CallsAsk, CommitError, EndedRange, Fate, Granted, GrantsAsk, Legible, ListAsk, Listed, ReadError, Reader,
    ReopenError, Store, WaitingAsk, WaitingCalls, Write,
};
use farcall_store::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, OutcomeRecord, Recovery, RequestRecord, ResponseRecord,
};

#[derive(Debug)]
pub(crate) struct Unreadable {
    store: MemoryStore,
    reading: Reading,
    gate: Option<Gate>,
}

/// Lists wait until its other end is dropped.
type Gate = Arc<Mutex<mpsc::Receiver<()>>>;

/// What reading a call comes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    Works,
    Fails,
    Panics,
}

struct UnreadableReader {
    reader: Box<dyn Reader>,
    reading: Reading,
    gate: Option<Gate>,
}

impl Unreadable {
    pub(crate) fn new(reading: Reading) -> Self {
        Self { store: MemoryStore::new(), reading, gate: None }
    }

    /// One that lists nothing before what is given is dropped.
    pub(crate) fn gated() -> (Self, mpsc::Sender<()>) {
        let (open, gate) = mpsc::channel();
        (Self { gate: Some(Arc::new(Mutex::new(gate))), ..Self::new(Reading::Works) }, open)
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
        let (reader, reading, gate) = (self.store.reader()?, self.reading, self.gate.clone());
        Ok(Box::new(UnreadableReader { reader, reading, gate }))
    }
}

impl Reader for UnreadableReader {
    fn calls(&mut self, asked: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        match self.reading {
            Reading::Works => self.reader.calls(asked),
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

    fn list(&mut self, ask: &ListAsk) -> Result<Listed, ReadError> {
        if let Some(gate) = &self.gate {
            let _ = gate.lock().expect("nobody panics with it").recv();
        }
        self.reader.list(ask)
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

    fn stored_bytes(&mut self) -> Result<u64, ReadError> {
        self.reader.stored_bytes()
    }
}
