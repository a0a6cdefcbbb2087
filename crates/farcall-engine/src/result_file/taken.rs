//! Taking files out of the inbox: those of calls that are durable.
//!
//! A taken file lives on as a link in `.farcall/taken/`, named after its call, until it is filed; then it moves to
//! `requests/`. Why not remove it and write it again from the store: on ext4, freeing blocks and making files where
//! others were removed in the last minutes costs hundreds of microseconds each (`recently_deleted`, discards). Why not
//! rename it: that takes locks which producers need. The store stays the truth: a kept file that differs is not used.
//!
//! A link changes the file's ctime, so a file that could be linked and not removed looks like a new one; it is known
//! by its inode instead ([`Filing::half_taken`]). Link and removal happen under the lock that filing takes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};
use farcall_store::record::FileIdentity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::folders::{Folders, Placed, is_file, open_dir, place};
use super::{FileError, Filing};

const PRIVATE_FOLDER: &str = ".farcall";
const TAKEN_FOLDER: &str = "taken";

/// A file in the inbox whose call is durable.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) file: FileIdentity,
    pub(crate) bytes: Bytes,
    pub(crate) id: CallId,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleared {
    /// The inbox does not hold it any more.
    Gone,
    /// Another file has its name by now.
    Changed,
    /// It cannot be removed.
    Stuck(Errno),
}

/// The folder of taken files.
#[derive(Debug)]
pub(super) struct Kept {
    folder: OwnedFd,
}

impl Filing {
    /// Removes files from the inbox, if they are still the ones that were read; keeps them for filing where it can.
    pub(crate) fn clear(&self, inbox: BorrowedFd<'_>, files: &[Taken]) -> Vec<Cleared> {
        let kept = Kept::open(&self.dir);
        let owners = self.owners();
        let clear = |taken: &Taken| {
            let keep = kept.as_ref().filter(|_| owners.is_unfiled(&taken.file.name, taken.id));
            clear(inbox, taken, keep)
        };
        files.iter().map(clear).collect()
    }

    /// Makes sure that the files of these calls have left the inbox; when this returns, that is durable. The intake
    /// removes them too, and mostly first.
    ///
    /// # Errors
    /// When one of them cannot be removed: filing its call now would make it a new call after a crash.
    pub(crate) fn clear_durably(&self, files: &[Taken]) -> Result<(), FileError> {
        let folders = Folders::open(&self.dir)?;
        let failed = FileError::of("remove the file of an accepted call", ".");
        for cleared in self.clear(folders.inbox(), files) {
            if let Cleared::Stuck(error) = cleared {
                return Err(failed(error));
            }
        }
        folders.sync_inbox()
    }

    /// Inodes of files that were linked but, perhaps, not removed before a crash, with their calls.
    pub(crate) fn half_taken(&self) -> HashMap<(u64, u64), CallId> {
        let entries = Kept::open(&self.dir).and_then(|kept| Some((Dir::read_from(&kept.folder).ok()?, kept)));
        let Some((entries, kept)) = entries else { return HashMap::new() };
        let inode = |name: &str| {
            let stat = rustix::fs::statat(&kept.folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            (stat.st_nlink > 1).then_some(((stat.st_dev, stat.st_ino), name.parse().ok()?))
        };
        entries.filter_map(|entry| inode(entry.ok()?.file_name().to_str().ok()?)).collect()
    }
}

impl Kept {
    /// Nothing when there can be no such folder: files are removed, then, and written again from the store.
    pub(super) fn open(dir: &Path) -> Option<Self> {
        let inbox = open_dir(CWD, dir).ok()?;
        let private = open_private(&inbox, PRIVATE_FOLDER)?;
        Some(Self { folder: open_private(&private, TAKEN_FOLDER)? })
    }

    /// The file of a call, if it can be moved to this folder and holds exactly these bytes.
    pub(super) fn file(&self, id: CallId, contents: &[u8], folder: BorrowedFd<'_>) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.folder, id.to_string(), flags, Mode::empty()).ok()?);
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_movable = is_regular(&stat) && stat.st_dev == rustix::fs::fstat(folder).ok()?.st_dev;
        (is_movable && holds(&file, contents)).then_some(file)
    }

    /// Moves a call's file to its place, if the name is free.
    pub(super) fn place(&self, id: CallId, folder: BorrowedFd<'_>, name: &[u8]) -> Result<Placed, Errno> {
        place((self.folder.as_fd(), id.to_string().as_bytes()), (folder, name))
    }

    /// Nobody needs a call's file any more; mostly it is gone already.
    pub(super) fn discard(&self, id: CallId) {
        let _ = rustix::fs::unlinkat(&self.folder, id.to_string(), AtFlags::empty());
    }
}

fn clear(inbox: BorrowedFd<'_>, taken: &Taken, kept: Option<&Kept>) -> Cleared {
    let name = &*taken.file.name;
    let stat = match rustix::fs::statat(inbox, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_unchanged(inbox, &stat, taken) => stat,
        Ok(_) => return Cleared::Changed,
        Err(Errno::NOENT) => return Cleared::Gone,
        Err(error) => return Cleared::Stuck(error),
    };
    // One that has other names may be changed through them; and removing this name frees nothing.
    if let Some(kept) = kept.filter(|_| stat.st_nlink == 1) {
        let _ = rustix::fs::linkat(inbox, name, &kept.folder, taken.id.to_string(), AtFlags::empty());
        crash::reach(Point::FileLinked);
    }
    match rustix::fs::unlinkat(inbox, name, AtFlags::empty()) {
        Ok(()) => {
            crash::reach(Point::FileRemoved);
            Cleared::Gone
        }
        Err(Errno::NOENT) => Cleared::Gone,
        Err(error) => Cleared::Stuck(error),
    }
}

/// Whether this is the file that was read: the same, or changed only in what is no content. Some producers set mode or
/// times after they have closed a file.
fn is_unchanged(inbox: BorrowedFd<'_>, stat: &Stat, taken: &Taken) -> bool {
    if is_file(stat, &taken.file) {
        return true;
    }
    if (stat.st_dev, stat.st_ino) != (taken.file.device, taken.file.inode) || !is_regular(stat) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(inbox, &*taken.file.name, flags, Mode::empty()).map(File::from);
    let is_same_inode = |file: &File| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_ino == taken.file.inode);
    file.is_ok_and(|file| is_same_inode(&file) && holds(&file, &taken.bytes))
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn holds(file: &File, contents: &[u8]) -> bool {
    let mut found = Vec::with_capacity(contents.len() + 1);
    file.take(contents.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == contents
}

fn open_private(at: &OwnedFd, name: &str) -> Option<OwnedFd> {
    match open_dir(at, name) {
        Err(Errno::NOENT) => {}
        opened => return opened.ok(),
    }
    let _ = rustix::fs::mkdirat(at, name, Mode::RWXU);
    open_dir(at, name).ok()
}

#[cfg(test)]
mod tests;
