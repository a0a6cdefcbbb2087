//! The folders, opened, and the few operations on them that everything here is made of.
//!
//! Opened anew for every batch, so that a folder which was removed or replaced meanwhile is found again. Each operation
//! is relative to a folder's descriptor; none overwrites.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use farcall_store::record::FileIdentity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::FileError;

/// Up to this many files are synced one by one; for more, the whole file system is.
pub(super) const FILES_SYNCED_SINGLY_MAX: usize = 8;
/// The extended attribute that tells which call a request file belongs to.
const CALL_ATTRIBUTE: &str = "user.farcall.call";

/// One of the folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    Requests,
    Responses,
    Rejected,
}

/// The working directory and its folders.
#[derive(Debug)]
pub(super) struct Folders {
    inbox: OwnedFd,
    requests: OwnedFd,
    responses: OwnedFd,
    rejected: OwnedFd,
    had_no_rejected: OnceCell<bool>,
}

/// What came of putting a file under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Done,
    /// The name is taken; nothing was changed.
    Occupied,
    /// There is no such file to put anywhere.
    Gone,
}

impl Folder {
    pub(super) const ALL: [Self; 3] = [Self::Requests, Self::Responses, Self::Rejected];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Responses => "responses",
            Self::Rejected => "rejected",
        }
    }
}

/// Files whose contents are not durable yet; of many, only the folders they are in.
#[derive(Debug, Default)]
pub(super) struct Written {
    files: Vec<(Folder, File)>,
    folders: Vec<Folder>,
    is_many: bool,
}

impl Written {
    pub(super) fn add(&mut self, folder: Folder, file: File) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
        self.files.push((folder, file));
        if self.is_many || self.files.len() > FILES_SYNCED_SINGLY_MAX {
            self.is_many = true;
            self.files.clear();
        }
    }
}

impl Folders {
    pub(super) fn open(dir: &Path) -> Result<Self, FileError> {
        let inbox = open_dir(CWD, dir).map_err(FileError::of("open the working directory", "."))?;
        let folder = |folder: Folder| open_or_make(&inbox, folder);
        let (requests, responses, rejected) =
            (folder(Folder::Requests)?, folder(Folder::Responses)?, folder(Folder::Rejected)?);
        Ok(Self { inbox, requests, responses, rejected, had_no_rejected: OnceCell::new() })
    }

    /// Makes it durable which files are in the inbox.
    pub(super) fn sync_inbox(&self) -> Result<(), FileError> {
        rustix::fs::fsync(&self.inbox).map_err(FileError::of("sync the inbox", "."))
    }

    /// Whether nothing was in `rejected/` when this was first asked: then no name need be looked for there.
    pub(super) fn had_no_rejected(&self) -> bool {
        *self.had_no_rejected.get_or_init(|| {
            let Ok(mut entries) = Dir::read_from(&self.rejected) else { return false };
            entries.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
        })
    }

    pub(super) fn inbox(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }

    pub(super) fn fd(&self, folder: Folder) -> BorrowedFd<'_> {
        match folder {
            Folder::Requests => self.requests.as_fd(),
            Folder::Responses => self.responses.as_fd(),
            Folder::Rejected => self.rejected.as_fd(),
        }
    }

    /// The device that a folder's files lie on.
    pub(super) fn device(&self, folder: Folder) -> Result<u64, FileError> {
        let failed = FileError::of("look at the folder", folder.name());
        Ok(rustix::fs::fstat(self.fd(folder)).map_err(failed)?.st_dev)
    }

    /// Writes a new file, not yet durable. Nothing is left of it when that fails.
    pub(super) fn write(&self, folder: Folder, name: &[u8], contents: &[u8]) -> Result<File, FileError> {
        let failed = FileError::of("write a file", folder.name());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let mut file = File::from(rustix::fs::openat(self.fd(folder), name, flags, mode).map_err(failed)?);
        if let Err(error) = file.write_all(contents) {
            self.discard(folder, name);
            return Err(failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
        Ok(file)
    }

    /// Makes the contents of files durable that were written into these folders.
    pub(super) fn sync_files(&self, written: &Written) -> Result<(), FileError> {
        if !written.is_many {
            return written.files.iter().try_for_each(|(folder, file)| {
                rustix::fs::fdatasync(file).map_err(FileError::of("sync a file", folder.name()))
            });
        }
        self.sync_devices(written.folders.iter().map(|folder| (folder.name(), self.fd(*folder))))
    }

    /// Makes everything durable that was done in the inbox, in `responses/` and in `requests/`.
    pub(super) fn sync_file_systems(&self) -> Result<(), FileError> {
        let folders = [Folder::Responses, Folder::Requests].map(|folder| (folder.name(), self.fd(folder)));
        self.sync_devices(folders.into_iter().chain([(".", self.inbox.as_fd())]))
    }

    /// Makes a file's contents durable, if it is open.
    pub(super) fn sync_file(&self, folder: Folder, file: Option<&File>) -> Result<(), FileError> {
        let failed = FileError::of("sync a file", folder.name());
        file.map_or(Ok(()), |file| rustix::fs::fdatasync(file).map_err(failed))
    }

    /// Each file system once.
    fn sync_devices<'f>(&self, folders: impl Iterator<Item = (&'static str, BorrowedFd<'f>)>) -> Result<(), FileError> {
        let mut synced = Vec::new();
        for (name, folder) in folders {
            let failed = FileError::of("sync the file system", name);
            let device = rustix::fs::fstat(folder).map_err(failed)?.st_dev;
            if !synced.contains(&device) {
                rustix::fs::syncfs(folder).map_err(failed)?;
                synced.push(device);
            }
        }
        Ok(())
    }

    /// Makes the names of a folder durable.
    pub(super) fn sync_names(&self, folder: Folder) -> Result<(), FileError> {
        rustix::fs::fsync(self.fd(folder)).map_err(FileError::of("sync names", folder.name()))
    }

    /// Gives a file another name in its folder, if that is free.
    pub(super) fn rename(&self, folder: Folder, from: &[u8], to: &[u8]) -> Result<Placed, FileError> {
        place((self.fd(folder), from), (self.fd(folder), to)).map_err(FileError::of("rename a file", folder.name()))
    }

    /// Removes a file that nobody needs; one that stays is swept at the next start.
    pub(super) fn discard(&self, folder: Folder, name: &[u8]) {
        let _ = rustix::fs::unlinkat(self.fd(folder), name, AtFlags::empty());
    }

    pub(super) fn exists(&self, folder: Folder, name: &[u8]) -> Result<bool, FileError> {
        Ok(self.changed_at(folder, name)?.is_some())
    }

    /// When a file's contents were last changed; nothing when there is no such file.
    pub(super) fn changed_at(&self, folder: Folder, name: &[u8]) -> Result<Option<Timestamp>, FileError> {
        match rustix::fs::statat(self.fd(folder), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
                Ok(Some(Timestamp::from_micros(stat.st_mtime.saturating_mul(1_000_000).saturating_add(nanos / 1_000))))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FileError::of("look at a file", folder.name())(error)),
        }
    }

    /// At most the first `bytes_max` bytes of a regular file; nothing when there is no such file.
    pub(super) fn read(&self, folder: Folder, name: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = self.open_regular(folder, name)? else { return Ok(None) };
        read_up_to(&file, bytes_max).map(Some).map_err(FileError::of("read a file", folder.name()))
    }

    /// Whether a file has exactly these contents.
    pub(super) fn holds(&self, folder: Folder, name: &[u8], contents: &[u8]) -> Result<bool, FileError> {
        Ok(self.read(folder, name, contents.len() + 1)?.is_some_and(|found| found == contents))
    }

    /// Notes whose file this is, where the file system can keep that; what reads it has another way without.
    pub(super) fn mark(file: &File, call: CallId) {
        let _ = rustix::fs::fsetxattr(file, CALL_ATTRIBUTE, call.to_string().as_bytes(), XattrFlags::empty());
    }

    /// Whose file it is, when that was noted.
    pub(super) fn marked(&self, folder: Folder, name: &[u8]) -> Result<Option<String>, FileError> {
        let Some(file) = self.open_regular(folder, name)? else { return Ok(None) };
        let mut value = [0u8; 64];
        match rustix::fs::fgetxattr(&file, CALL_ATTRIBUTE, &mut value[..]) {
            Ok(length) => Ok(std::str::from_utf8(&value[..length]).ok().map(str::to_owned)),
            Err(_) => Ok(None),
        }
    }

    /// Removes the files whose names the condition holds for; asks after every so many names whether to go on.
    pub(super) fn sweep(
        &self,
        is_leftover: impl Fn(&[u8]) -> bool,
        names: usize,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<(), FileError> {
        let mut read = 0_usize;
        for folder in Folder::ALL {
            let failed = FileError::of("sweep leftovers", folder.name());
            for entry in Dir::read_from(self.fd(folder)).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_bytes();
                if is_leftover(name) {
                    rustix::fs::unlinkat(self.fd(folder), name, AtFlags::empty()).map_err(failed)?;
                }
                read += 1;
                if read.is_multiple_of(names) && !goes_on() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn open_regular(&self, folder: Folder, name: &[u8]) -> Result<Option<File>, FileError> {
        let failed = FileError::of("open a file", folder.name());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(self.fd(folder), name, flags, Mode::empty()) {
            Ok(fd) => {
                let mode = rustix::fs::fstat(&fd).map_err(failed)?.st_mode;
                Ok((FileType::from_raw_mode(mode) == FileType::RegularFile).then(|| File::from(fd)))
            }
            // LOOP is a symbolic link, NXIO a socket: no file of ours.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// At most so many bytes of a regular file, from where it stands. Such a file gives all it has at once, and less than was
/// asked for only at its end.
pub(crate) fn read_up_to(file: &File, bytes_max: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; bytes_max];
    let mut filled = 0;
    while filled < bytes_max {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut bytes[filled..]))?;
        filled += count;
        if count == 0 || bytes_max - filled == 1 {
            break;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Whether what has a file's name is the very file, unchanged since it was looked at. The device does not count: a reboot
/// may number the disks anew, and what lay in a folder lies there still.
pub(crate) fn is_file(stat: &Stat, file: &FileIdentity) -> bool {
    stat.st_ino == file.inode && changed_ns(stat) == file.changed_ns
}

/// A file's device and its number there.
pub(crate) type Inode = (u64, u64);

/// The time of modification (mtime) in nanoseconds.
pub(crate) fn modified_ns(stat: &Stat) -> i64 {
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// The change time (ctime) in nanoseconds.
pub(crate) fn changed_ns(stat: &Stat) -> i64 {
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

/// Renames a file unless the new name is taken. Across file systems this fails with `XDEV`.
pub(super) fn place(from: (BorrowedFd<'_>, &[u8]), to: (BorrowedFd<'_>, &[u8])) -> Result<Placed, Errno> {
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Placed::Done),
        Err(Errno::EXIST) => Ok(Placed::Occupied),
        Err(Errno::NOENT) => Ok(Placed::Gone),
        // A file system that cannot refuse to replace can link: that never replaces either.
        Err(Errno::INVAL | Errno::NOSYS) => link_then_unlink(from, to),
        Err(error) => Err(error),
    }
}

fn link_then_unlink(from: (BorrowedFd<'_>, &[u8]), to: (BorrowedFd<'_>, &[u8])) -> Result<Placed, Errno> {
    match rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
        Ok(()) => {
            rustix::fs::unlinkat(from.0, from.1, AtFlags::empty())?;
            Ok(Placed::Done)
        }
        Err(Errno::EXIST) => Ok(Placed::Occupied),
        Err(Errno::NOENT) => Ok(Placed::Gone),
        Err(error) => Err(error),
    }
}

fn open_or_make(inbox: &OwnedFd, folder: Folder) -> Result<OwnedFd, FileError> {
    let failed = FileError::of("open the folder (links are not followed)", folder.name());
    match open_dir(inbox, folder.name()) {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(failed),
    }
    match rustix::fs::mkdirat(inbox, folder.name(), Mode::RWXU | Mode::RWXG | Mode::RWXO) {
        Ok(()) => rustix::fs::fsync(inbox).map_err(failed)?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(FileError::of("make the folder", folder.name())(error)),
    }
    open_dir(inbox, folder.name()).map_err(failed)
}

/// Opens a folder, but none through a link: whoever may put a link in place must not choose where files go.
pub(crate) fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}
