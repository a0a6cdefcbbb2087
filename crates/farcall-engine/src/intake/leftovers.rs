//! Files of calls that an earlier process made durable and did not take out of the inbox before it died.
//!
//! They are looked for under each name before its file is looked at, until every name that was there at the start has had
//! its turn: so a start waits for no listing, however many files lie there. The store is asked first and the file looked
//! at afterwards: a call that is filed in between has lost its file before.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use farcall_store::port::{ReadError, Reader};
use farcall_store::record::FileIdentity;
use tracing::warn;

use super::batch::RETRY_DELAY;
use super::directory::Inbox;
use super::ledger::Name;
use crate::cause::chain;
use crate::clock;

/// The store, as long as there may be such files. Shared with the inboxes that come after one that broke down.
#[derive(Clone)]
pub(super) struct Leftovers(Arc<Mutex<Option<Box<dyn Reader>>>>);

impl Leftovers {
    pub(super) fn of(reader: Option<Box<dyn Reader>>) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    /// Calls that are not filed and have a file of one of these names; none once all are known to be gone.
    fn unfiled(&self, names: &[Name]) -> Result<Vec<FileIdentity>, ReadError> {
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reader) = reader.as_mut() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in names {
            found.extend(reader.unfiled(name)?.into_iter().map(|(_, file)| file));
        }
        Ok(found)
    }

    fn may_be_there(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leftovers").field(&self.may_be_there()).finish()
    }
}

impl Inbox {
    /// Takes those of these files away that are leftovers; false when that must be tried again, and none may be looked at.
    pub(super) fn clear_leftovers(&mut self, names: &[Name]) -> bool {
        let cleared = self.leftovers.unfiled(names).map_err(|error| chain(&error)).and_then(|found| {
            let is_stuck = |file: &FileIdentity| self.filing.stuck().keys().any(|(_, inode)| *inode == file.inode);
            let found: Vec<FileIdentity> = found.into_iter().filter(|file| !is_stuck(file)).collect();
            if found.is_empty() {
                return Ok(());
            }
            self.filing.clear_inbox(&found).map_err(|error| chain(&error))
        });
        let Err(error) = cleared else { return true };
        warn!(error, "cannot tell which call files were taken before the start; trying again");
        let now = clock::instant();
        names.iter().for_each(|name| self.ledger.look_again(name, now, RETRY_DELAY));
        false
    }

    /// Once the inbox has been read in full there are none but under the names that wait.
    pub(super) fn end_leftovers(&mut self) {
        if self.status.scans > 0 && !self.status.is_scanning && self.leftovers.may_be_there() {
            let names = self.ledger.names_not_offered();
            if self.clear_leftovers(&names) {
                self.leftovers.end();
            }
        }
    }
}
