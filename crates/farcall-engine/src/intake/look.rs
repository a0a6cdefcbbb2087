//! Looking at one file of the inbox: what it is, and what it holds.
//!
//! Nothing is opened through a link, nothing but a regular file is opened at all, and nothing can make this wait. What
//! is read is one state of the file, or it is said to be changing.

use std::fs::File;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use farcall_store::record::FileIdentity;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::ledger::{Oddity, Stamp};
use crate::result_file::{changed_ns, modified_ns, read_up_to};

/// What lies under a name.
#[derive(Debug)]
pub(super) enum Look {
    Gone,
    Odd(Oddity),
    Changing,
    /// Larger than may be read; not read.
    TooLarge(Stamp),
    Read(Stamp, Bytes),
    /// The machine is short of something, or the disk failed: try again.
    Failed(Errno),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed_ns: changed_ns(stat),
            modified_ns: modified_ns(stat),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            has_other_names: stat.st_nlink > 1,
        }
    }

    /// The file's identity under a name.
    pub(super) fn identity(&self, name: &[u8]) -> FileIdentity {
        FileIdentity { name: name.to_vec(), device: self.device, inode: self.inode, changed_ns: self.changed_ns }
    }
}

/// Whether a name is that of a call file.
pub(super) fn is_call_name(name: &[u8]) -> bool {
    name.ends_with(b".json") && !name.starts_with(b".")
}

/// Looks at a name in the inbox; reads the file if it has at most `bytes_max` bytes.
pub(super) fn look(inbox: BorrowedFd<'_>, name: &[u8], bytes_max: u64) -> Look {
    // Looked at before it is opened: opening alone can do things to a device.
    let opened = match rustix::fs::statat(inbox, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match oddity(&stat) {
            Some(oddity) => return Look::Odd(oddity),
            None => rustix::fs::openat(
                inbox,
                name,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
                Mode::empty(),
            ),
        },
        Err(error) => Err(error),
    };
    let read = opened.and_then(|fd| read(&File::from(fd), bytes_max));
    match read {
        Ok(look) => look,
        Err(Errno::NOENT) => Look::Gone,
        Err(Errno::ACCESS | Errno::PERM) => Look::Odd(Oddity::Unreadable),
        Err(Errno::LOOP) => Look::Odd(Oddity::SymbolicLink),
        Err(Errno::NXIO) => Look::Odd(Oddity::Special),
        Err(error) => Look::Failed(error),
    }
}

fn read(file: &File, bytes_max: u64) -> Result<Look, Errno> {
    let before = rustix::fs::fstat(file)?;
    if let Some(oddity) = oddity(&before) {
        return Ok(Look::Odd(oddity));
    }
    let stamp = Stamp::of(&before);
    if stamp.size > bytes_max {
        return Ok(Look::TooLarge(stamp));
    }
    let bytes = read_up_to(file, usize::try_from(stamp.size).unwrap_or(usize::MAX - 1) + 1)?;
    let is_same = bytes.len() as u64 == stamp.size && Stamp::of(&rustix::fs::fstat(file)?) == stamp;
    Ok(if is_same { Look::Read(stamp, bytes.into()) } else { Look::Changing })
}

fn oddity(stat: &Stat) -> Option<Oddity> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Symlink => Some(Oddity::SymbolicLink),
        FileType::Directory => Some(Oddity::Folder),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Some(Oddity::Special)
        }
    }
}

#[cfg(test)]
mod tests;
