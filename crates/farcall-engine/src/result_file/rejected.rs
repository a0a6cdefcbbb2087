//! Filing inbox files that are no valid call: response in place, problem in place, then the file itself.
//!
//! Until the file has left the inbox it will be found and rejected again, so all steps can be taken again: documents
//! of a rejection are the same bytes every time, which is how a response left by a crash is known.

use std::fs::File;
use std::os::fd::BorrowedFd;

use farcall_crash::{self as crash, Point};
use farcall_store::record::FileIdentity;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::contents;
use super::displace::{self, Newcomer};
use super::folders::{self, Folder, Folders, Placed, Written};
use super::name::{self, Tag};
use super::owners::Owners;
use super::{FileError, Filing};
use crate::document::Rejection;

/// A file in the inbox that is no valid call.
#[derive(Debug, Clone, Copy)]
pub struct Rejected<'r> {
    pub file: &'r FileIdentity,
    pub rejection: &'r Rejection,
}

/// What came of rejecting a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedOutcome {
    /// It is in `rejected/`, and its response in `responses/`.
    Filed,
    /// It is not the file that was judged any more: look again.
    Changed,
}

/// One batch on its way.
pub(super) struct Batch<'b> {
    folders: &'b Folders,
    items: Vec<Item<'b>>,
}

struct Item<'b> {
    file: &'b FileIdentity,
    response: Vec<u8>,
    problem: Vec<u8>,
    response_temporary: Vec<u8>,
    problem_temporary: Vec<u8>,
    /// What has come of it so far; later steps are taken only while it is `Filed`.
    result: Result<RejectedOutcome, FileError>,
}

pub(super) fn reject(filing: &Filing, files: &[Rejected<'_>]) -> Vec<Result<RejectedOutcome, FileError>> {
    let folders = match Folders::open(&filing.dir) {
        Ok(folders) => folders,
        Err(error) => return files.iter().map(|_| Err(error)).collect(),
    };
    let mut batch = Batch::new(filing, &folders, files);
    batch.write();
    let _held = filing.held.hold(files.iter().map(|rejected| rejected.file.name.as_slice()));
    batch.place_responses();
    batch.place_problems();
    batch.move_files(filing);
    let mut owners = filing.owners();
    batch.finish(&mut owners)
}

impl<'b> Batch<'b> {
    pub(super) fn new(filing: &Filing, folders: &'b Folders, files: &[Rejected<'b>]) -> Self {
        let item = |rejected: &Rejected<'b>| Item {
            file: rejected.file,
            response: contents::rejected_response(rejected.rejection),
            problem: contents::problem(rejected.rejection),
            response_temporary: filing.temporary(),
            problem_temporary: filing.temporary(),
            result: Ok(RejectedOutcome::Filed),
        };
        Self { folders, items: files.iter().map(item).collect() }
    }

    /// Documents first, durable before any of them has a name.
    pub(super) fn write(&mut self) {
        let mut written = Written::default();
        for item in &mut self.items {
            item.result = item.write(self.folders, &mut written);
        }
        let synced = self.folders.sync_files(&written);
        self.fail_unless(synced);
        crash::reach(Point::RejectionWritten);
    }

    pub(super) fn place_responses(&mut self) {
        self.each(|item, folders| {
            item.place_response(folders)?;
            crash::reach(Point::RejectionAnswered);
            Ok(())
        });
        let synced = self.folders.sync_names(Folder::Responses);
        self.fail_unless(synced);
    }

    pub(super) fn place_problems(&mut self) {
        self.each(|item, folders| {
            item.place_problem(folders)?;
            crash::reach(Point::ProblemNamed);
            Ok(())
        });
    }

    pub(super) fn move_files(&mut self, filing: &Filing) {
        for item in self.items.iter_mut().filter(|item| item.is_going_on()) {
            item.result = item.move_file(self.folders, filing);
            crash::reach(Point::FileRejected);
        }
        let synced = self.folders.sync_names(Folder::Rejected);
        self.fail_unless(synced);
    }

    fn finish(self, owners: &mut Owners) -> Vec<Result<RejectedOutcome, FileError>> {
        for item in &self.items {
            if item.is_going_on() {
                owners.reject(&item.file.name);
            } else {
                self.folders.discard(Folder::Responses, &item.response_temporary);
                self.folders.discard(Folder::Rejected, &item.problem_temporary);
            }
        }
        self.items.into_iter().map(|item| item.result).collect()
    }

    fn each(&mut self, step: impl Fn(&Item<'b>, &Folders) -> Result<(), FileError>) {
        for item in self.items.iter_mut().filter(|item| item.is_going_on()) {
            if let Err(error) = step(item, self.folders) {
                item.result = Err(error);
            }
        }
    }

    fn fail_unless(&mut self, done: Result<(), FileError>) {
        let Err(error) = done else { return };
        for item in self.items.iter_mut().filter(|item| item.is_going_on()) {
            item.result = Err(error);
        }
    }
}

impl Item<'_> {
    fn is_going_on(&self) -> bool {
        self.result == Ok(RejectedOutcome::Filed)
    }

    fn write(&self, folders: &Folders, written: &mut Written) -> Result<RejectedOutcome, FileError> {
        if !is_still(folders.inbox(), &self.file.name, self.file)? {
            return Ok(RejectedOutcome::Changed);
        }
        // Whoever dropped it may not have synced it; under its new name it is in our keeping.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(folders.inbox(), &*self.file.name, flags, Mode::empty()) {
            Ok(file) => written.add(Folder::Rejected, File::from(file)),
            Err(Errno::NOENT) => return Ok(RejectedOutcome::Changed),
            Err(error) => return Err(FileError::of("open a rejected file", ".")(error)),
        }
        let response = folders.write(Folder::Responses, &self.response_temporary, &self.response)?;
        written.add(Folder::Responses, response);
        let problem = folders.write(Folder::Rejected, &self.problem_temporary, &self.problem)?;
        written.add(Folder::Rejected, problem);
        Ok(RejectedOutcome::Filed)
    }

    fn place_response(&self, folders: &Folders) -> Result<(), FileError> {
        let name = &self.file.name;
        if self.was_begun(folders)? {
            folders.discard(Folder::Responses, &self.response_temporary);
            return Ok(());
        }
        displace::run(folders, &displace::plan(folders, name, Newcomer::Rejected)?)?;
        must_be_free(folders.rename(Folder::Responses, &self.response_temporary, name)?, Folder::Responses)
    }

    /// A crash came between this file's response and its move: a response like it is there, written after the file
    /// last changed, and no file in `rejected/`.
    fn was_begun(&self, folders: &Folders) -> Result<bool, FileError> {
        let name = &self.file.name;
        let Some(written_at) = folders.changed_at(Folder::Responses, name)? else { return Ok(false) };
        Ok(written_at.as_micros() >= self.file.changed_ns / 1_000
            && !folders.exists(Folder::Rejected, name)?
            && folders.holds(Folder::Responses, name, &self.response)?)
    }

    fn place_problem(&self, folders: &Folders) -> Result<(), FileError> {
        let name = name::problem(&self.file.name);
        if folders.holds(Folder::Rejected, &name, &self.problem)? {
            folders.discard(Folder::Rejected, &self.problem_temporary);
            return Ok(());
        }
        make_room_in_rejected(folders, &name)?;
        must_be_free(folders.rename(Folder::Rejected, &self.problem_temporary, &name)?, Folder::Rejected)
    }

    fn move_file(&self, folders: &Folders, filing: &Filing) -> Result<RejectedOutcome, FileError> {
        let name = &self.file.name;
        let failed = FileError::of("move a rejected file", Folder::Rejected.name());
        if !is_still(folders.inbox(), name, self.file)? {
            return Ok(RejectedOutcome::Changed);
        }
        let (inbox, rejected) = (folders.inbox(), folders.fd(Folder::Rejected));
        make_room_in_rejected(folders, name)?;
        match folders::place((inbox, name), (rejected, name)) {
            Ok(Placed::Gone) => return Ok(RejectedOutcome::Changed),
            Ok(placed) => must_be_free(placed, Folder::Rejected)?,
            Err(Errno::XDEV) => return self.copy_file(folders, &filing.temporary()),
            Err(error) => return Err(failed(error)),
        }
        if moved_inode(rejected, name).map_err(failed)? == Some((self.file.device, self.file.inode)) {
            return Ok(RejectedOutcome::Filed);
        }
        // Another file took the name in the last moment and was moved in its stead: it goes back.
        folders::place((rejected, name), (inbox, name)).map_err(failed)?;
        Ok(RejectedOutcome::Changed)
    }

    /// To another file system there is no move: copy, make it durable, remove.
    fn copy_file(&self, folders: &Folders, temporary: &[u8]) -> Result<RejectedOutcome, FileError> {
        let name = &self.file.name;
        let failed = FileError::of("copy a rejected file", Folder::Rejected.name());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(folders.inbox(), name, flags, Mode::empty()).map_err(failed)?;
        let mut copy = folders.write(Folder::Rejected, temporary, b"")?;
        if let Err(error) = std::io::copy(&mut File::from(source), &mut copy) {
            folders.discard(Folder::Rejected, temporary);
            return Err(failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
        let mut written = Written::default();
        written.add(Folder::Rejected, copy);
        folders.sync_files(&written)?;
        must_be_free(folders.rename(Folder::Rejected, temporary, name)?, Folder::Rejected)?;
        folders.sync_names(Folder::Rejected)?;
        if !is_still(folders.inbox(), name, self.file)? {
            return Ok(RejectedOutcome::Changed);
        }
        rustix::fs::unlinkat(folders.inbox(), name, AtFlags::empty()).map_err(failed)?;
        Ok(RejectedOutcome::Filed)
    }
}

/// Whether a name in the inbox still stands for the file that was judged.
fn is_still(inbox: BorrowedFd<'_>, name: &[u8], file: &FileIdentity) -> Result<bool, FileError> {
    match rustix::fs::statat(inbox, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(folders::is_file(&stat, file)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(FileError::of("look at a file", ".")(error)),
    }
}

fn moved_inode(rejected: BorrowedFd<'_>, name: &[u8]) -> Result<Option<(u64, u64)>, Errno> {
    match rustix::fs::statat(rejected, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whatever stands there is of another rejected file, whose names happen to meet this one's.
fn make_room_in_rejected(folders: &Folders, name: &[u8]) -> Result<(), FileError> {
    let Some(changed_at) = folders.changed_at(Folder::Rejected, name)? else { return Ok(()) };
    let step = displace::aside(folders, Folder::Rejected, name, Tag::Rejected(changed_at))?;
    displace::run(folders, &[step])
}

fn must_be_free(placed: Placed, folder: Folder) -> Result<(), FileError> {
    match placed {
        Placed::Done => Ok(()),
        Placed::Occupied => Err(FileError::of("give a file its name", folder.name())(Errno::EXIST)),
        Placed::Gone => Err(FileError::of("give a file its name", folder.name())(Errno::NOENT)),
    }
}
