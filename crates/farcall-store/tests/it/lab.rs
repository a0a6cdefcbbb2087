//! A store under test: opened, taken over, and given back as a fresh process finds it.
//!
//! Tests of both stores see [`Lab`] alone; those of one store may ask its lab for more.

use std::error::Error;
use std::path::PathBuf;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{
    CallsAsk, CommitError, GrantsAsk, LaneRange, Legible, ReadError, Reader, Store, WaitingAsk, Write,
};
use farcall_store::record::{CallRecord, GrantRecord, Recovery};
use farcall_store::sqlite::SqliteStore;
use tempfile::TempDir;

pub(crate) trait Lab {
    fn store(&mut self) -> &mut dyn Store;

    /// Ends the store's process and opens the store in a new one, which has not taken over yet.
    fn reopen(&mut self) -> Result<&mut dyn Store, Box<dyn Error>>;

    /// Ends the store's process and takes over in a new one.
    fn restart(&mut self) -> Result<Recovery, Box<dyn Error>> {
        Ok(self.reopen()?.take_over()?)
    }
}

pub(crate) struct MemoryLab {
    store: MemoryStore,
}

pub(crate) struct SqliteLab {
    store: Option<SqliteStore>,
    home: TempDir,
}

impl MemoryLab {
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        let mut store = MemoryStore::new();
        store.take_over()?;
        Ok(Self { store })
    }
}

impl SqliteLab {
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        let mut lab = Self { store: None, home: tempfile::tempdir()? };
        lab.restart()?;
        Ok(lab)
    }

    /// The directory `.farcall`.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join(".farcall")
    }

    /// Closes the store until the next restart.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }
}

impl Lab for MemoryLab {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }

    fn reopen(&mut self) -> Result<&mut dyn Store, Box<dyn Error>> {
        self.store = std::mem::take(&mut self.store).crash();
        Ok(&mut self.store)
    }
}

impl Lab for SqliteLab {
    fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut().expect("opened by the last restart")
    }

    fn reopen(&mut self) -> Result<&mut dyn Store, Box<dyn Error>> {
        self.close();
        Ok(self.store.insert(SqliteStore::open(&self.dir())?))
    }
}

/// One question at a time, of those that the port answers several at once.
pub(crate) trait Ask {
    /// A document that is damaged is an error.
    fn request(&mut self, id: CallId) -> Result<Option<Bytes>, ReadError>;

    fn keyed(&mut self, scope: &str, key: &str) -> Result<Option<CallRecord>, ReadError>;

    fn granted(&mut self, limit_key: &str, ask: GrantsAsk) -> Result<Vec<GrantRecord>, ReadError>;

    fn closed_until(&mut self, limit_key: &str) -> Result<Option<Steady>, ReadError>;

    fn lanes(&mut self, lanes: &[LaneRange]) -> Result<Legible<Vec<Vec<CallRecord>>>, ReadError>;

    fn expiring(&mut self, expiring: u32) -> Result<Legible<Vec<CallRecord>>, ReadError>;
}

impl Ask for dyn Reader + '_ {
    fn request(&mut self, id: CallId) -> Result<Option<Bytes>, ReadError> {
        let Legible { mut found, mut damaged } = self.requests(&[id])?;
        match damaged.pop() {
            Some(damaged) => Err(ReadError { what: "a request", source: damaged.what.into() }),
            None => Ok(found.pop().flatten().map(|request| request.document)),
        }
    }

    fn keyed(&mut self, scope: &str, key: &str) -> Result<Option<CallRecord>, ReadError> {
        Ok(self.calls(CallsAsk::Keyed { scope, key })?.pop())
    }

    fn granted(&mut self, limit_key: &str, ask: GrantsAsk) -> Result<Vec<GrantRecord>, ReadError> {
        Ok(self.grants(limit_key, &[ask])?.grants.pop().unwrap_or_default())
    }

    fn closed_until(&mut self, limit_key: &str) -> Result<Option<Steady>, ReadError> {
        Ok(self.grants(limit_key, &[])?.closed_until)
    }

    fn lanes(&mut self, lanes: &[LaneRange]) -> Result<Legible<Vec<Vec<CallRecord>>>, ReadError> {
        let Legible { found, damaged } = self.waiting(WaitingAsk { lanes, expiring: 0 })?;
        Ok(Legible { found: found.lanes, damaged })
    }

    fn expiring(&mut self, expiring: u32) -> Result<Legible<Vec<CallRecord>>, ReadError> {
        let Legible { found, damaged } = self.waiting(WaitingAsk { lanes: &[], expiring })?;
        Ok(Legible { found: found.expiring, damaged })
    }
}

impl dyn Lab + '_ {
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.store().commit(writes)
    }

    pub(crate) fn reader(&mut self) -> Result<Box<dyn Reader>, Box<dyn Error>> {
        Ok(self.store().reader()?)
    }

    /// The stored call, which must be there.
    pub(crate) fn call(&mut self, id: CallId) -> Result<CallRecord, Box<dyn Error>> {
        Ok(self.reader()?.call(id)?.ok_or("the call is not stored")?)
    }
}
