//! A file written for one of the folders, whole, that has no name there yet.
//!
//! Where the file system can, it has no name at all (`O_TMPFILE`): a crash leaves nothing of it, and one entry is made in
//! the folder instead of two made and one removed. Elsewhere, and beyond a number of open files, it is hidden under a
//! temporary name. Either way it gets its own name only if that is free.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use farcall_core::id::CallId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::folders::{Folder, Folders, Placed};
use super::{FileError, Filing};

/// The most files of a batch without names: each is an open file until it has one.
const UNNAMED_MAX: u64 = 256;
/// Of the files that this process may have open, this part at most: connections need the others.
const UNNAMED_SHARE: u64 = 4;

/// A file on its way to its name.
#[derive(Debug)]
pub(super) struct Draft {
    folder: Folder,
    state: State,
}

#[derive(Debug)]
enum State {
    Unnamed(File),
    /// Hidden; the file is open as long as it has to be synced by itself.
    Hidden(Vec<u8>, Option<File>),
}

/// Makes the drafts of one batch.
#[derive(Debug)]
pub(super) struct Drafts<'f> {
    filing: &'f Filing,
    unnamed_left: u64,
    /// Files of this batch are synced one by one, and stay open until then.
    keeps_open: bool,
}

impl<'f> Drafts<'f> {
    pub(super) fn new(filing: &'f Filing, keeps_open: bool) -> Self {
        let open_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let unnamed_left = if filing.has_unnamed_files() { UNNAMED_MAX.min(open_max / UNNAMED_SHARE) } else { 0 };
        Self { filing, unnamed_left, keeps_open }
    }

    /// Writes a file, not yet durable, and notes whose it is if it is a request. Nothing is left of it when that fails.
    pub(super) fn write(
        &mut self,
        folders: &Folders,
        folder: Folder,
        contents: &[u8],
        owner: Option<CallId>,
    ) -> Result<Draft, FileError> {
        let mark = |file: &File| owner.into_iter().for_each(|owner| Folders::mark(file, owner));
        let state = match self.unnamed(folders, folder, contents)? {
            Some(file) => {
                mark(&file);
                State::Unnamed(file)
            }
            None => {
                let name = self.filing.temporary();
                let file = folders.write(folder, &name, contents)?;
                mark(&file);
                State::Hidden(name, self.keeps_open.then_some(file))
            }
        };
        Ok(Draft { folder, state })
    }

    fn unnamed(&mut self, folders: &Folders, folder: Folder, contents: &[u8]) -> Result<Option<File>, FileError> {
        if self.unnamed_left == 0 {
            return Ok(None);
        }
        let failed = FileError::of("write a file", folder.name());
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        match openat(folders.fd(folder), ".", OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, mode) {
            Ok(fd) => {
                let mut file = File::from(fd);
                file.write_all(contents).map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
                self.unnamed_left -= 1;
                Ok(Some(file))
            }
            // This is how systems say that they know no such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                self.unnamed_left = 0;
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Draft {
    /// The file, as long as it is open.
    pub(super) fn file(&self) -> Option<&File> {
        match &self.state {
            State::Unnamed(file) => Some(file),
            State::Hidden(_, file) => file.as_ref(),
        }
    }

    pub(super) const fn folder(&self) -> Folder {
        self.folder
    }

    /// Gives it its name, if that is free.
    pub(super) fn place(&self, filing: &Filing, folders: &Folders, name: &[u8]) -> Result<Placed, FileError> {
        let file = match &self.state {
            State::Unnamed(file) => file,
            State::Hidden(hidden, _) => return folders.rename(self.folder, hidden, name),
        };
        let failed = FileError::of("give a file its name", self.folder.name());
        match name_it(file, folders, self.folder, name) {
            Ok(()) => Ok(Placed::Done),
            Err(Errno::EXIST) => Ok(Placed::Occupied),
            Err(error) => {
                // Without /proc, for example: next time there is a hidden name to rename.
                filing.forgo_unnamed_files();
                Err(failed(error))
            }
        }
    }

    /// Removes what nobody needs.
    pub(super) fn discard(&self, folders: &Folders) {
        if let State::Hidden(name, _) = &self.state {
            folders.discard(self.folder, name);
        }
    }
}

/// Older kernels let only the privileged link a descriptor as such; all know it under its name in /proc.
fn name_it(file: &File, folders: &Folders, folder: Folder, name: &[u8]) -> Result<(), Errno> {
    match linkat(file, "", folders.fd(folder), name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, path, folders.fd(folder), name, AtFlags::SYMLINK_FOLLOW)
        }
        linked => linked,
    }
}
