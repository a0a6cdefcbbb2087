//! Filing calls that have ended: response in place, then request in place.
//!
//! The steps of a batch are methods in the order they must be taken; each leaves a state from which all of them can be
//! taken again.

use std::path::PathBuf;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};

use super::displace::{self, Move, Newcomer, Occupant, Standing};
use super::folders::{Folder, Folders, Placed, Written};
use super::name::{self, Tag};
use super::owners::Owners;
use super::taken::Kept;
use super::{FileError, Filing};

/// A call from a file, at its end.
#[derive(Debug, Clone)]
pub struct Ended {
    pub id: CallId,
    /// The name it had in the inbox.
    pub name: Vec<u8>,
    /// What its response file holds; see [`super::response`].
    pub response: Vec<u8>,
    /// The file as it came.
    pub request: Bytes,
}

/// One batch on its way.
pub(super) struct Batch<'b> {
    folders: &'b Folders,
    kept: Option<Kept>,
    items: Vec<Item<'b>>,
}

struct Item<'b> {
    ended: &'b Ended,
    response_temporary: Vec<u8>,
    request_temporary: Vec<u8>,
    /// The request is the file that was taken, and need not be written again.
    is_kept: bool,
    /// The name its files get.
    chosen: Vec<u8>,
    /// The first step that failed; no later one is taken.
    result: Result<(), FileError>,
}

pub(super) fn file(filing: &Filing, calls: &[Ended]) -> Vec<Result<PathBuf, FileError>> {
    let folders = match Folders::open(&filing.dir) {
        Ok(folders) => folders,
        Err(error) => return calls.iter().map(|_| Err(error)).collect(),
    };
    let mut batch = Batch::new(filing, &folders, calls);
    batch.write();
    // Held until both files have their names, so that nobody moves half a pair aside.
    let mut owners = filing.owners();
    batch.place_responses(&owners);
    batch.place_requests();
    batch.finish(filing, &mut owners)
}

impl<'b> Batch<'b> {
    pub(super) fn new(filing: &Filing, folders: &'b Folders, calls: &'b [Ended]) -> Self {
        let item = |ended| Item {
            ended,
            response_temporary: filing.temporary(),
            request_temporary: filing.temporary(),
            is_kept: false,
            chosen: Vec::new(),
            result: Ok(()),
        };
        Self { folders, kept: Kept::open(&filing.dir), items: calls.iter().map(item).collect() }
    }

    /// Contents first, durable before any of them has a name.
    pub(super) fn write(&mut self) {
        let mut written = Written::default();
        for item in &mut self.items {
            item.result = item.write(self.folders, self.kept.as_ref(), &mut written);
        }
        let synced = self.folders.sync_files(&written);
        self.fail_unless(synced);
        crash::reach(Point::ResponseWritten);
    }

    pub(super) fn place_responses(&mut self, owners: &Owners) {
        for item in self.items.iter_mut().filter(|item| item.result.is_ok()) {
            match item.place_response(self.folders, owners) {
                Ok(chosen) => {
                    item.chosen = chosen;
                    crash::reach(Point::ResponseNamed);
                }
                Err(error) => item.result = Err(error),
            }
        }
        let synced = self.folders.sync_names(Folder::Responses);
        self.fail_unless(synced);
        crash::reach(Point::ResponseDurable);
    }

    pub(super) fn place_requests(&mut self) {
        for item in self.items.iter_mut().filter(|item| item.result.is_ok()) {
            item.result = item.place_request(self.folders, self.kept.as_ref());
            crash::reach(Point::RequestNamed);
        }
        let synced = self.folders.sync_names(Folder::Requests);
        self.fail_unless(synced);
        crash::reach(Point::RequestDurable);
    }

    fn finish(self, filing: &Filing, owners: &mut Owners) -> Vec<Result<PathBuf, FileError>> {
        let finished = self.items.into_iter().map(|item| {
            if let Err(error) = item.result {
                self.folders.discard(Folder::Responses, &item.response_temporary);
                self.folders.discard(Folder::Requests, &item.request_temporary);
                return Err(error);
            }
            if let Some(kept) = &self.kept {
                kept.discard(item.ended.id);
            }
            owners.release(&item.ended.name, item.ended.id);
            Ok(filing.path_of(Folder::Responses, &item.chosen))
        });
        finished.collect()
    }

    fn fail_unless(&mut self, done: Result<(), FileError>) {
        let Err(error) = done else { return };
        for item in &mut self.items {
            item.result = item.result.and(Err(error));
        }
    }
}

impl Item<'_> {
    fn write(&mut self, folders: &Folders, kept: Option<&Kept>, written: &mut Written) -> Result<(), FileError> {
        let (id, request) = (self.ended.id, &self.ended.request);
        let response = folders.write(Folder::Responses, &self.response_temporary, &self.ended.response)?;
        written.add(Folder::Responses, response);
        let file = kept.and_then(|kept| kept.file(id, request, folders.fd(Folder::Requests)));
        self.is_kept = file.is_some();
        let file = match file {
            Some(file) => file,
            None => folders.write(Folder::Requests, &self.request_temporary, request)?,
        };
        Folders::mark(&file, &id.to_string());
        written.add(Folder::Requests, file);
        Ok(())
    }

    /// Puts the response under the plain name if that is this call's, else under the call's own; gives the name.
    fn place_response(&self, folders: &Folders, owners: &Owners) -> Result<Vec<u8>, FileError> {
        let (id, name) = (self.ended.id, &self.ended.name);
        let own_name = name::displaced(name, Tag::Call(id), 1);
        if displace::occupant(folders, &own_name)? == Occupant::Call(id) {
            folders.discard(Folder::Responses, &self.response_temporary);
            return Ok(own_name);
        }
        // Before a crash it may have got the plain name, which a file taken since has claimed: whoever took that one
        // moves the whole pair aside.
        if displace::occupant(folders, name)? == Occupant::Call(id) {
            folders.discard(Folder::Responses, &self.response_temporary);
            return Ok(name.clone());
        }
        if owners.owns(name, id) && self.place_under_plain_name(folders)? {
            return Ok(name.clone());
        }
        let mut nth = 1;
        loop {
            let candidate = name::displaced(name, Tag::Call(id), nth);
            if folders.rename(Folder::Responses, &self.response_temporary, &candidate)? == Placed::Done {
                return Ok(candidate);
            }
            nth += 1;
        }
    }

    /// True when the call's response stands there now; false when somebody later holds the name.
    fn place_under_plain_name(&self, folders: &Folders) -> Result<bool, FileError> {
        let (id, name) = (self.ended.id, &self.ended.name);
        loop {
            match folders.rename(Folder::Responses, &self.response_temporary, name)? {
                Placed::Done => return Ok(true),
                Placed::Gone => return Err(vanished(Folder::Responses)),
                Placed::Occupied => {}
            }
            match displace::standing(displace::occupant(folders, name)?, id) {
                Standing::Own => {
                    folders.discard(Folder::Responses, &self.response_temporary);
                    return Ok(true);
                }
                Standing::Later => return Ok(false),
                Standing::Earlier => displace::run(folders, &displace::plan(folders, name, Newcomer::Call(id))?)?,
            }
        }
    }

    fn place_request(&self, folders: &Folders, kept: Option<&Kept>) -> Result<(), FileError> {
        let mut name = self.chosen.clone();
        let mut nth = 1;
        loop {
            match self.rename_request(folders, kept, &name)? {
                Placed::Done => return Ok(()),
                Placed::Gone => return Err(vanished(Folder::Requests)),
                Placed::Occupied if self.is_own_request(folders, &name)? => {
                    folders.discard(Folder::Requests, &self.request_temporary);
                    return Ok(());
                }
                Placed::Occupied => {}
            }
            match self.earlier_request(folders, &name)? {
                Some(step) => displace::run(folders, &[step])?,
                None => {
                    nth += 1;
                    name = name::displaced(&self.ended.name, Tag::Call(self.ended.id), nth);
                }
            }
        }
    }

    fn rename_request(&self, folders: &Folders, kept: Option<&Kept>, name: &[u8]) -> Result<Placed, FileError> {
        match kept.filter(|_| self.is_kept) {
            Some(kept) => kept
                .place(self.ended.id, folders.fd(Folder::Requests), name)
                .map_err(FileError::of("move a taken file", Folder::Requests.name())),
            None => folders.rename(Folder::Requests, &self.request_temporary, name),
        }
    }

    fn earlier_request(&self, folders: &Folders, name: &[u8]) -> Result<Option<Move>, FileError> {
        let tag = displace::lone_request_tag(folders, name, Newcomer::Call(self.ended.id))?;
        tag.map(|tag| displace::aside(folders, Folder::Requests, name, tag)).transpose()
    }

    fn is_own_request(&self, folders: &Folders, name: &[u8]) -> Result<bool, FileError> {
        match folders.marked(Folder::Requests, name)? {
            Some(owner) => Ok(owner == self.ended.id.to_string()),
            None => folders.holds(Folder::Requests, name, &self.ended.request),
        }
    }
}

fn vanished(folder: Folder) -> FileError {
    FileError::of("find the file just written", folder.name())(rustix::io::Errno::NOENT)
}
