//! Taking files out of the inbox: those of calls that are durable.
//!
//! A taken file lives on in `.farcall/taken/`, named after its call, until it is filed; then it moves to `requests/`. Why
//! not remove it and write it again from the store: on ext4, freeing blocks and making files where others were removed in
//! the last minutes costs hundreds of microseconds each (`recently_deleted`, discards). The store stays the truth: a kept
//! file that differs is not used.
//!
//! It is renamed, not linked and removed: a rename takes whatever has the name at that moment, so that a file that came in
//! its place meanwhile is not lost but recognised and put back. One that cannot be moved is known by its inode
//! ([`Filing::stuck`]), and by what the store has of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};
use farcall_store::record::FileIdentity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::folders::{Folders, Inode, Placed, is_file, modified_ns, open_dir, place, read_up_to};
use super::{Ended, FileError, Filing};

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
    /// Takes files out of the inbox, if they are still the ones that were read; keeps them for filing where it can.
    pub(crate) fn clear(&self, inbox: BorrowedFd<'_>, files: &[Taken]) -> Vec<Cleared> {
        let kept = Kept::open(&self.dir);
        files.iter().map(|taken| self.clear_one(inbox, taken, kept.as_ref())).collect()
    }

    pub(super) fn clear_one(&self, inbox: BorrowedFd<'_>, taken: &Taken, kept: Option<&Kept>) -> Cleared {
        let name = &*taken.file.name;
        let inode = match rustix::fs::statat(inbox, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_unchanged(inbox, &stat, taken) => (stat.st_dev, stat.st_ino),
            Ok(_) => return Cleared::Changed,
            Err(Errno::NOENT) => return Cleared::Gone,
            Err(error) => return Cleared::Stuck(error),
        };
        let is_unfiled = self.owners().is_unfiled(name, taken.id);
        let cleared = match kept {
            Some(kept) => kept.take((inbox, name), inode, is_unfiled.then_some(taken.id), self.temporary()),
            None => remove(inbox, name),
        };
        if cleared == Cleared::Gone {
            self.owners().note_cleared(name, taken.id);
            crash::reach(Point::FileRemoved);
        }
        cleared
    }

    /// Takes a file out of the inbox that was found to be stuck, if it still has its name.
    pub(crate) fn clear_stuck(&self, inbox: BorrowedFd<'_>, name: &[u8], inode: Inode) -> Cleared {
        match Kept::open(&self.dir) {
            Some(kept) => kept.take((inbox, name), inode, None, self.temporary()),
            None => remove(inbox, name),
        }
    }

    /// Takes the inbox files of these calls away, if they are still there; when this returns, that is durable. One that
    /// cannot be removed is known from then on, see [`Filing::stuck`].
    ///
    /// # Errors
    /// When the folders cannot be used.
    pub fn clear_inbox<'f>(&self, files: impl IntoIterator<Item = &'f FileIdentity>) -> Result<(), FileError> {
        let folders = Folders::open(&self.dir)?;
        for file in files {
            let found = rustix::fs::statat(folders.inbox(), &*file.name, AtFlags::SYMLINK_NOFOLLOW);
            let Some(stat) = found.ok().filter(|stat| is_file(stat, file)) else { continue };
            let inode = (stat.st_dev, stat.st_ino);
            if let Cleared::Stuck(error) = self.clear_stuck(folders.inbox(), &file.name, inode) {
                let name = file.name.escape_ascii();
                tracing::warn!(file = %name, %error, "a call file cannot be removed; its call is known");
                self.stuck().insert(inode, file.changed_ns);
            }
        }
        folders.sync_inbox()
    }
}

impl Kept {
    /// Nothing when there can be no such folder: files are removed, then, and written again from the store.
    pub(super) fn open(dir: &Path) -> Option<Self> {
        let inbox = open_dir(CWD, dir).ok()?;
        let private = open_private(&inbox, PRIVATE_FOLDER)?;
        Some(Self { folder: open_private(&private, TAKEN_FOLDER)? })
    }

    /// The file of a call, if it can be moved to a folder on this device and holds what it held when it was read. Its
    /// size and times do not tell: after a power cut a file that nobody synced may have both and hold zeros.
    pub(super) fn file(&self, ended: &Ended, device: u64) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.folder, ended.id.to_string(), flags, Mode::empty()).ok()?);
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_it = (stat.st_dev, stat.st_ino) == (ended.file.device, ended.file.inode) && stat.st_nlink == 1;
        let is_movable = is_it && is_regular(&stat) && stat.st_dev == device;
        (is_movable && holds(&file, &ended.request)).then_some(file)
    }

    /// Moves a call's file to its place, if the name is free.
    pub(super) fn place(&self, id: CallId, folder: BorrowedFd<'_>, name: &[u8]) -> Result<Placed, Errno> {
        place((self.folder.as_fd(), id.to_string().as_bytes()), (folder, name))
    }

    /// Nobody needs a call's file any more; mostly it is gone already.
    pub(super) fn discard(&self, id: CallId) {
        let _ = rustix::fs::unlinkat(&self.folder, id.to_string(), AtFlags::empty());
    }

    /// Takes a file out of the inbox and keeps it for the call, if there is one to keep it for.
    fn take(&self, from: (BorrowedFd<'_>, &[u8]), inode: Inode, call: Option<CallId>, temporary: Vec<u8>) -> Cleared {
        let mut to = call.map_or_else(|| temporary.clone(), |id| id.to_string().into_bytes());
        let mut placed = place(from, (self.folder.as_fd(), &to));
        if placed == Ok(Placed::Occupied) && to != temporary {
            to = temporary;
            placed = place(from, (self.folder.as_fd(), &to));
        }
        match placed {
            Ok(Placed::Done) => {}
            Ok(Placed::Gone) => return Cleared::Gone,
            Ok(Placed::Occupied) => return Cleared::Stuck(Errno::EXIST),
            // Another file system is mounted on the private folder.
            Err(Errno::XDEV) => return remove(from.0, from.1),
            Err(error) => return Cleared::Stuck(error),
        }
        let stat = rustix::fs::statat(&self.folder, &*to, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) != inode) {
            return self.put_back(&to, from);
        }
        if call.is_none_or(|id| id.to_string().as_bytes() != &*to) {
            let _ = rustix::fs::unlinkat(&self.folder, &*to, AtFlags::empty());
        }
        Cleared::Gone
    }

    /// Another file took the name in the last moment and was taken in its stead. When yet another has the name by now,
    /// whoever dropped that one has replaced this one.
    fn put_back(&self, taken: &[u8], (inbox, name): (BorrowedFd<'_>, &[u8])) -> Cleared {
        match place((self.folder.as_fd(), taken), (inbox, name)) {
            Ok(Placed::Done | Placed::Gone) => {}
            Ok(Placed::Occupied) => drop(rustix::fs::unlinkat(&self.folder, taken, AtFlags::empty())),
            Err(error) => return Cleared::Stuck(error),
        }
        Cleared::Changed
    }
}

fn remove(inbox: BorrowedFd<'_>, name: &[u8]) -> Cleared {
    match rustix::fs::unlinkat(inbox, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Cleared::Gone,
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
    if is_unwritten(stat, &taken.file, &taken.bytes) {
        return true;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(inbox, &*taken.file.name, flags, Mode::empty()).map(File::from);
    let is_same_inode = |file: &File| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_ino == taken.file.inode);
    file.is_ok_and(|file| is_same_inode(&file) && holds(&file, &taken.bytes))
}

/// Whether nobody has written to the file since it was read: writing sets its time of modification. A producer may have
/// set that into the future; then its contents tell.
fn is_unwritten(stat: &Stat, file: &FileIdentity, contents: &[u8]) -> bool {
    u64::try_from(stat.st_size).is_ok_and(|size| size == contents.len() as u64) && modified_ns(stat) <= file.changed_ns
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn holds(file: &File, contents: &[u8]) -> bool {
    read_up_to(file, contents.len() + 1).is_ok_and(|found| found == contents)
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
