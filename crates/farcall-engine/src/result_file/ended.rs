//! Filing calls that have ended: call file out of the inbox, response in place, then request in place.
//!
//! The steps of a batch are methods in the order they must be taken; each leaves a state from which all of them can be
//! taken again. A call whose file cannot leave the inbox gets its pair all the same, so that nobody waits for it in vain;
//! only it is not filed then, so that the store still knows the file.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};
use farcall_store::record::FileIdentity;

use super::displace::{self, Move, Newcomer, Occupant, Standing};
use super::draft::{Draft, Drafts};
use super::folders::{FILES_SYNCED_SINGLY_MAX, Folder, Folders, Placed};
use super::held::Held;
use super::name::{self, Tag};
use super::taken::{Cleared, Kept, Taken};
use super::{FileError, Filing};

/// A call from a file, at its end.
#[derive(Debug, Clone)]
pub struct Ended {
    pub id: CallId,
    /// The file in the inbox.
    pub file: FileIdentity,
    /// What its response file holds; see [`super::response`].
    pub response: Vec<u8>,
    /// The file as it came.
    pub request: Bytes,
    /// Its files may be in place already: it was filed before, as far as that went.
    pub is_again: bool,
}

/// One batch on its way.
pub(super) struct Batch<'b> {
    filing: &'b Filing,
    folders: &'b Folders,
    kept: Option<Kept>,
    items: Vec<Item<'b>>,
    /// Nobody else moves what has these names, until the batch is done.
    held: Option<Held<'b>>,
}

struct Item<'b> {
    ended: &'b Ended,
    /// Whether its file has left the inbox.
    cleared: Result<(), FileError>,
    /// Nothing once it is in place.
    response: Option<Draft>,
    request: Request,
    /// The name its files get.
    chosen: Vec<u8>,
    /// The first step that failed; no later one is taken.
    result: Result<(), FileError>,
}

/// What the contents of a batch are written with.
struct Writing<'w> {
    folders: &'w Folders,
    /// The taken files, and the device on which they can be moved to `requests/`.
    kept: Option<(&'w Kept, u64)>,
    drafts: Drafts<'w>,
    /// Each is to be synced by itself.
    keeps_open: bool,
}

/// Where the request file comes from.
enum Request {
    /// The very file that was taken; open as long as it has to be synced by itself.
    Kept(Option<File>),
    Written(Draft),
    /// The taken file has its place.
    Moved,
    InPlace,
}

pub(super) fn file(filing: &Filing, calls: &[Ended]) -> Vec<Result<PathBuf, FileError>> {
    let folders = match Folders::open(&filing.dir) {
        Ok(folders) => folders,
        Err(error) => return calls.iter().map(|_| Err(error)).collect(),
    };
    let mut batch = Batch::new(filing, &folders, calls);
    batch.clear_inbox();
    batch.write();
    batch.place_responses();
    batch.place_requests();
    batch.finish()
}

impl<'b> Batch<'b> {
    pub(super) fn new(filing: &'b Filing, folders: &'b Folders, calls: &'b [Ended]) -> Self {
        let item = |ended| Item {
            ended,
            cleared: Ok(()),
            response: None,
            request: Request::InPlace,
            chosen: Vec::new(),
            result: Ok(()),
        };
        Self { filing, folders, kept: Kept::open(&filing.dir), items: calls.iter().map(item).collect(), held: None }
    }

    /// A call file still in the inbox would be a new call after a crash. Mostly the intake was first.
    pub(super) fn clear_inbox(&mut self) {
        let failed = FileError::of("remove the file of an accepted call", ".");
        for item in &mut self.items {
            let Ended { id, file, request, .. } = item.ended;
            if self.filing.owners().is_cleared(&file.name, *id) {
                continue;
            }
            let taken = Taken { file: file.clone(), bytes: request.clone(), id: *id };
            if let Cleared::Stuck(error) = self.filing.clear_one(self.folders.inbox(), &taken, self.kept.as_ref()) {
                item.cleared = Err(failed(error));
            }
        }
    }

    /// Contents first, durable before any of them has a name; and with them, that the files have left the inbox.
    pub(super) fn write(&mut self) {
        // What is found in place now must still be there when the rest is put beside it.
        if self.items.iter().any(|item| item.ended.is_again) {
            self.hold_names();
        }
        let is_single = self.items.len() * 2 <= FILES_SYNCED_SINGLY_MAX;
        let drafts = Drafts::new(self.filing, is_single);
        let device = self.folders.device(Folder::Requests).ok();
        let kept = self.kept.as_ref().zip(device);
        let mut writing = Writing { folders: self.folders, kept, drafts, keeps_open: is_single };
        for item in &mut self.items {
            item.result = item.write(&mut writing);
        }
        let synced = if is_single { self.sync_singly() } else { self.folders.sync_file_systems() };
        self.fail_unless(synced);
        crash::reach(Point::ResponseWritten);
    }

    pub(super) fn place_responses(&mut self) {
        self.hold_names();
        for item in self.items.iter_mut().filter(|item| item.result.is_ok()) {
            match item.place_response(self.filing, self.folders) {
                Ok(chosen) => {
                    item.chosen = chosen;
                    crash::reach(Point::ResponseNamed);
                }
                Err(error) => item.result = Err(error),
            }
        }
        self.follow_responses();
        let synced = self.folders.sync_names(Folder::Responses);
        self.fail_unless(synced);
        crash::reach(Point::ResponseDurable);
    }

    pub(super) fn place_requests(&mut self) {
        self.place_first_requests(self.items.len());
    }

    /// Those of the first so many calls.
    pub(super) fn place_first_requests(&mut self, count: usize) {
        for item in self.items.iter_mut().take(count).filter(|item| item.result.is_ok()) {
            item.result = item.place_request(self.filing, self.folders, self.kept.as_ref());
            crash::reach(Point::RequestNamed);
        }
        let synced = self.folders.sync_names(Folder::Requests);
        self.fail_unless(synced);
        crash::reach(Point::RequestDurable);
    }

    fn finish(self) -> Vec<Result<PathBuf, FileError>> {
        let mut owners = self.filing.owners();
        let finished = self.items.into_iter().map(|item| {
            if let Err(error) = item.result {
                item.response.iter().for_each(|draft| draft.discard(self.folders));
                if let Request::Written(draft) = &item.request {
                    draft.discard(self.folders);
                }
                return Err(error);
            }
            if let Some(kept) = self.kept.as_ref().filter(|_| !matches!(item.request, Request::Moved)) {
                kept.discard(item.ended.id);
            }
            item.cleared?;
            owners.release(&item.ended.file.name, item.ended.id);
            Ok(self.filing.path_of(Folder::Responses, &item.chosen))
        });
        finished.collect()
    }

    /// Of calls that share a name, the later one may have moved the earlier one's response aside.
    fn follow_responses(&mut self) {
        let mut names = HashSet::new();
        let shared: HashSet<&[u8]> =
            self.items.iter().map(|item| &*item.ended.file.name).filter(|name| !names.insert(*name)).collect();
        let is_shared = |item: &&mut Item<'_>| item.result.is_ok() && shared.contains(&*item.ended.file.name);
        for item in self.items.iter_mut().filter(is_shared) {
            item.result = item.follow_response(self.folders);
        }
    }

    /// From the first file in place to the last, syncs included, so that nobody moves half a pair aside.
    fn hold_names(&mut self) {
        let names = self.items.iter().map(|item| item.ended.file.name.as_slice());
        self.held.get_or_insert_with(|| self.filing.held.hold(names));
    }

    fn sync_singly(&self) -> Result<(), FileError> {
        for item in &self.items {
            let draft = |draft: &Draft| self.folders.sync_file(draft.folder(), draft.file());
            item.response.as_ref().map_or(Ok(()), draft)?;
            match &item.request {
                Request::Kept(file) => self.folders.sync_file(Folder::Requests, file.as_ref())?,
                Request::Written(written) => draft(written)?,
                Request::Moved | Request::InPlace => {}
            }
        }
        self.folders.sync_inbox()
    }

    fn fail_unless(&mut self, done: Result<(), FileError>) {
        let Err(error) = done else { return };
        for item in &mut self.items {
            item.result = item.result.and(Err(error));
        }
    }
}

impl Item<'_> {
    fn name(&self) -> &[u8] {
        &self.ended.file.name
    }

    fn write(&mut self, writing: &mut Writing<'_>) -> Result<(), FileError> {
        let Writing { folders, kept, drafts, keeps_open } = writing;
        if self.ended.is_again && self.find_pair(folders)? {
            return Ok(());
        }
        if self.chosen.is_empty() {
            self.response = Some(drafts.write(folders, Folder::Responses, &self.ended.response, None)?);
        }
        let file = kept.and_then(|(kept, device)| kept.file(self.ended, device));
        self.request = match file {
            Some(file) => {
                Folders::mark(&file, self.ended.id);
                Request::Kept((*keeps_open).then_some(file))
            }
            None => {
                Request::Written(drafts.write(folders, Folder::Requests, &self.ended.request, Some(self.ended.id))?)
            }
        };
        Ok(())
    }

    /// What an earlier time has put in place: the response, of which the name is chosen then; true when the request
    /// stands beside it.
    fn find_pair(&mut self, folders: &Folders) -> Result<bool, FileError> {
        let own = name::displaced(self.name(), Tag::Call(self.ended.id), 1);
        // Under the plain name too, although a file taken since may have claimed it: whoever took that one moves the
        // whole pair aside.
        for name in [own.clone(), self.name().to_vec()] {
            if self.stands_under(folders, &name)? {
                self.chosen = name;
                if self.is_own_request(folders, &self.chosen)? {
                    return Ok(true);
                }
                return self.finish_move(folders, own);
            }
        }
        Ok(false)
    }

    /// The crash came while somebody moved the pair aside: the request went first, the response follows it.
    fn finish_move(&mut self, folders: &Folders, to: Vec<u8>) -> Result<bool, FileError> {
        if !self.is_own_request(folders, &to)? {
            return Ok(false);
        }
        if folders.rename(Folder::Responses, &self.chosen, &to)? == Placed::Done {
            self.chosen = to;
        }
        Ok(true)
    }

    /// Puts the response under the plain name if that is this call's, else under the call's own; gives the name.
    fn place_response(&self, filing: &Filing, folders: &Folders) -> Result<Vec<u8>, FileError> {
        let Some(response) = &self.response else { return Ok(self.chosen.clone()) };
        let owns = filing.owners().owns(self.name(), self.ended.id);
        if owns && self.place_under_plain_name(response, filing, folders)? {
            return Ok(self.name().to_vec());
        }
        let mut nth = 1;
        loop {
            let candidate = name::displaced(self.name(), Tag::Call(self.ended.id), nth);
            match response.place(filing, folders, &candidate)? {
                Placed::Done => return Ok(candidate),
                Placed::Gone => return Err(vanished(Folder::Responses)),
                Placed::Occupied => nth += 1,
            }
        }
    }

    /// True when the call's response stands there now; false when somebody later holds the name.
    fn place_under_plain_name(&self, response: &Draft, filing: &Filing, folders: &Folders) -> Result<bool, FileError> {
        let (id, name) = (self.ended.id, self.name());
        loop {
            match response.place(filing, folders, name)? {
                Placed::Done => return Ok(true),
                Placed::Gone => return Err(vanished(Folder::Responses)),
                Placed::Occupied => {}
            }
            match displace::standing(displace::occupant(folders, name)?, id) {
                Standing::Own => return Ok(true),
                Standing::Later => return Ok(false),
                Standing::Earlier => displace::run(folders, &displace::plan(folders, name, Newcomer::Call(id))?)?,
            }
        }
    }

    fn follow_response(&mut self, folders: &Folders) -> Result<(), FileError> {
        let aside = name::displaced(self.name(), Tag::Call(self.ended.id), 1);
        if !self.stands_under(folders, &self.chosen)? && self.stands_under(folders, &aside)? {
            self.chosen = aside;
        }
        Ok(())
    }

    fn stands_under(&self, folders: &Folders, name: &[u8]) -> Result<bool, FileError> {
        Ok(displace::occupant(folders, name)? == Occupant::Call(self.ended.id))
    }

    fn place_request(&mut self, filing: &Filing, folders: &Folders, kept: Option<&Kept>) -> Result<(), FileError> {
        loop {
            let placed = match (&self.request, kept) {
                (Request::Written(draft), _) => draft.place(filing, folders, &self.chosen)?,
                (Request::Kept(_), Some(kept)) => kept
                    .place(self.ended.id, folders.fd(Folder::Requests), &self.chosen)
                    .map_err(FileError::of("move a taken file", Folder::Requests.name()))?,
                (Request::Kept(_) | Request::Moved | Request::InPlace, _) => return Ok(()),
            };
            match placed {
                Placed::Done => {
                    if matches!(self.request, Request::Kept(_)) {
                        self.request = Request::Moved;
                    }
                    return Ok(());
                }
                Placed::Gone => return Err(vanished(Folder::Requests)),
                Placed::Occupied if self.is_own_request(folders, &self.chosen)? => {
                    if let Request::Written(draft) = &self.request {
                        draft.discard(folders);
                    }
                    return Ok(());
                }
                Placed::Occupied => {}
            }
            match self.earlier_request(folders)? {
                Some(step) => displace::run(folders, &[step])?,
                None => self.yield_name(folders)?,
            }
        }
    }

    fn earlier_request(&self, folders: &Folders) -> Result<Option<Move>, FileError> {
        let tag = displace::lone_request_tag(folders, &self.chosen, Newcomer::Call(self.ended.id))?;
        tag.map(|tag| displace::aside(folders, Folder::Requests, &self.chosen, tag)).transpose()
    }

    /// A later file's request stands there without its response: this call's own response moves to the next name, and
    /// is durable there before the request comes beside it.
    fn yield_name(&mut self, folders: &Folders) -> Result<(), FileError> {
        // A poller may have taken it.
        let has_response = self.stands_under(folders, &self.chosen)?;
        let mut nth = 1;
        loop {
            let candidate = name::displaced(self.name(), Tag::Call(self.ended.id), nth);
            nth += 1;
            if folders.exists(Folder::Requests, &candidate)? {
                continue;
            }
            if has_response && folders.rename(Folder::Responses, &self.chosen, &candidate)? == Placed::Occupied {
                continue;
            }
            self.chosen = candidate;
            return folders.sync_names(Folder::Responses);
        }
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
