//! The store in memory, for the simulator, tests and engines without a directory.
//!
//! A commit is durable at once: [`MemoryStore::crash`] gives the store as a fresh process finds it. A test can let a
//! commit fail, or the process die on either side of it ([`MemoryStore::inject`]), or the disk be full or broken for a
//! while ([`MemoryStore::troubles`]). Snapshots share their rows until one side changes them. No clock, no chance, no
//! order that depends on hashing.

mod content;
mod grants;
mod prune;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farcall_core::id::CallId;
use farcall_core::steady::KeptClock;

use self::content::{Content, Row};
pub use self::trouble::{Trouble, Troubles};
use crate::port::{
    CallsAsk, CommitError, EndedRange, Fate, Granted, GrantsAsk, Legible, ListAsk, Listed, ReadError, Reader,
    ReopenError, Store, WaitingAsk, WaitingCalls, Write, as_many_as_fit,
};
use crate::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, OutcomeRecord, Recovery, RequestRecord, ResponseRecord,
};
use crate::transition::{SUPERSEDED, first_call};

/// What goes wrong with one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before it: nothing of the batch is kept.
    CrashBefore,
    /// The process dies after it: the batch is kept, but nobody learns of it.
    CrashAfter,
    /// There is no space for it; the store lives on.
    Full,
    /// It fails, and its fate is known only when the store is opened again.
    Broken(Fate),
    /// It panics, and nothing of it is kept.
    Panic,
}

/// The process that used this store has died; only [`MemoryStore::crash`] leads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store's process has crashed")]
pub struct Crashed;

/// The disk failed; the store has to be opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk failed")]
pub struct Broken;

/// Calls in memory.
#[derive(Debug)]
pub struct MemoryStore {
    disk: Disk,
    /// What [`Store::take_over`] began.
    epoch: Option<u64>,
    crashed: bool,
    /// What became of the commit that failed last, until the store is opened again.
    broken: Option<Fate>,
    troubles: Troubles,
    /// The fault, and the commits that still succeed before it.
    fault: Option<(Fault, u64)>,
    free_bytes: u64,
}

/// What outlives a process. The inner `Arc` lets a snapshot share everything until the next commit.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Arc<Content>>>);

#[derive(Debug)]
struct MemoryReader {
    disk: Disk,
    free_bytes: u64,
}

impl MemoryStore {
    /// An empty store.
    ///
    /// # Example
    /// ```
    /// use farcall_store::memory::MemoryStore;
    /// use farcall_store::port::Store;
    ///
    /// let mut store = MemoryStore::new();
    /// let recovery = store.take_over()?;
    /// assert_eq!(recovery.totals.accepted, 0);
    /// # Ok::<(), farcall_store::port::ReadError>(())
    /// ```
    pub fn new() -> Self {
        Self::on(Disk::default())
    }

    /// The store as a fresh process finds it: committed batches, no epoch, no fault to come.
    pub fn crash(self) -> Self {
        Self { free_bytes: self.free_bytes, ..Self::on(self.disk) }
    }

    /// An independent copy of what is committed now, as a fresh process would find it.
    pub fn snapshot(&self) -> Self {
        let content = Arc::clone(&self.disk.content());
        Self { free_bytes: self.free_bytes, ..Self::on(Disk(Arc::new(Mutex::new(content)))) }
    }

    /// Another engine on the same data. Whoever takes over last may write.
    pub fn attach(&self) -> Self {
        Self { free_bytes: self.free_bytes, ..Self::on(self.disk.clone()) }
    }

    /// Lets this happen to the commit that comes after `commits` more have succeeded. It replaces an earlier fault.
    pub const fn inject(&mut self, fault: Fault, commits: u64) {
        self.fault = Some((fault, commits));
    }

    /// What [`Reader::free_bytes`] answers for readers made from now on; at first it is all there can be.
    pub const fn set_free_bytes(&mut self, free_bytes: u64) {
        self.free_bytes = free_bytes;
    }

    fn on(disk: Disk) -> Self {
        Self {
            disk,
            epoch: None,
            crashed: false,
            broken: None,
            troubles: Troubles::default(),
            fault: None,
            free_bytes: u64::MAX,
        }
    }

    /// What outlasts single commits; the switch stays in the test's hand when an engine has the store.
    pub fn troubles(&self) -> Troubles {
        self.troubles.clone()
    }

    /// The fault of the present commit, if its time has come.
    fn strike(&mut self) -> Option<Fault> {
        match self.troubles.present() {
            Trouble::None => {}
            Trouble::Full => return Some(Fault::Full),
            Trouble::Broken => return Some(Fault::Broken(Fate::Lost)),
        }
        match self.fault {
            Some((fault, 0)) => {
                self.fault = None;
                Some(fault)
            }
            Some((fault, commits)) => {
                self.fault = Some((fault, commits - 1));
                None
            }
            None => None,
        }
    }

    fn apply(&self, writes: &[Write]) -> Result<(), CommitError> {
        let mut content = self.disk.content();
        if self.epoch != Some(content.epoch()) {
            return Err(SUPERSEDED.of(first_call(writes)));
        }
        Arc::make_mut(&mut content).apply(writes)
    }

    fn die(&mut self) -> CommitError {
        self.crashed = true;
        CommitError::Io(Box::new(Crashed))
    }

    fn alive(&self, what: &'static str) -> Result<(), ReadError> {
        if self.crashed { Err(ReadError { what, source: Box::new(Crashed) }) } else { Ok(()) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn take_over(&mut self) -> Result<Recovery, ReadError> {
        self.alive("what was left")?;
        let (epoch, recovery) = Arc::make_mut(&mut self.disk.content()).take_over();
        self.epoch = Some(epoch);
        Ok(recovery)
    }

    fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError> {
        self.alive("the clock")?;
        let mut content = self.disk.content();
        if self.epoch != Some(content.epoch()) {
            return Err(ReadError { what: "the clock", source: "another engine has taken over".into() });
        }
        Arc::make_mut(&mut content).keep_clock(clock.clone());
        Ok(())
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        if self.crashed {
            return Err(self.die());
        }
        if writes.is_empty() {
            return Ok(());
        }
        if self.broken.is_some() {
            return Err(CommitError::Io(Box::new(Broken)));
        }
        match self.strike() {
            None => self.apply(writes),
            Some(Fault::Full) => Err(CommitError::Full),
            Some(Fault::Broken(fate)) => {
                if fate == Fate::Kept {
                    self.apply(writes)?;
                }
                self.broken = Some(fate);
                Err(CommitError::Io(Box::new(Broken)))
            }
            Some(Fault::Panic) => panic!("a commit that is to panic"),
            Some(Fault::CrashBefore) => Err(self.die()),
            Some(Fault::CrashAfter) => {
                self.apply(writes)?;
                Err(self.die())
            }
        }
    }

    fn reopen(&mut self) -> Result<Fate, ReopenError> {
        if self.crashed || self.troubles.present() == Trouble::Broken {
            return Err(ReopenError(Box::new(Broken)));
        }
        Ok(self.broken.take().unwrap_or(Fate::Lost))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        self.alive("anything")?;
        Ok(Box::new(MemoryReader { disk: self.disk.clone(), free_bytes: self.free_bytes }))
    }
}

impl Reader for MemoryReader {
    fn calls(&mut self, asked: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        let content = self.disk.content();
        let row = match asked {
            CallsAsk::One(id) => content.row(id),
            CallsAsk::Keyed { scope, key } => content.keyed(scope, key),
        };
        Ok(row.map(|row| row.call.clone()).into_iter().collect())
    }

    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        Ok(self.disk.content().row(id).map(|row| row.attempts.clone()).unwrap_or_default())
    }

    fn requests(&mut self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError> {
        let content = self.disk.content();
        let request =
            |row: &Row| RequestRecord { via: row.call.via, document: row.request.clone(), trace: row.trace.clone() };
        Ok(Legible::whole(ids.iter().map(|&id| content.row(id).map(request)).collect()))
    }

    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        Ok(self.disk.content().row(id).and_then(|row| row.response.clone()))
    }

    fn outcomes(&mut self, ids: &[CallId], bytes_max: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
        let content = self.disk.content();
        let outcome = |row: &Row| {
            let (call, document, response) = (row.call.clone(), row.request.clone(), row.response.clone());
            OutcomeRecord { call, document, response }
        };
        as_many_as_fit(ids.iter().map(|&id| Ok(content.row(id).map(outcome))), bytes_max)
    }

    fn grants(&mut self, limit_key: &str, asked: &[GrantsAsk]) -> Result<Granted, ReadError> {
        let content = self.disk.content();
        let grants = asked.iter().map(|&ask| content.grants(limit_key, ask)).collect();
        Ok(Granted { grants, closed_until: content.closed_until(limit_key) })
    }

    fn waiting(&mut self, asked: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError> {
        let content = self.disk.content();
        let lanes = asked.lanes.iter().map(|range| content.waiting(range)).collect();
        Ok(Legible::whole(WaitingCalls { lanes, expiring: content.expiring(asked.expiring) }))
    }

    fn list(&mut self, ask: &ListAsk) -> Result<Listed, ReadError> {
        Ok(self.disk.content().list(ask))
    }

    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        Ok(self.disk.content().ended(range))
    }

    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        Ok(self.disk.content().unfiled(name))
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(self.free_bytes)
    }

    /// About what a row takes, with its bodies.
    fn stored_bytes(&mut self) -> Result<u64, ReadError> {
        const ROW_BYTES: usize = 500;
        let of_row =
            |row: &Row| ROW_BYTES + row.request.len() + row.response.as_ref().map_or(0, |response| response.body.len());
        Ok(self.disk.content().rows().map(of_row).sum::<usize>() as u64)
    }
}

impl Disk {
    /// A poisoned lock is taken all the same: nobody panics in the middle of a batch.
    fn content(&self) -> MutexGuard<'_, Arc<Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
