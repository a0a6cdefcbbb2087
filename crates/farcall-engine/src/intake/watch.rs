//! Notifications of the kernel (inotify) about the inbox, as changes of names.
//!
//! A hint only: they can be lost, and some file systems send none. The scan is the truth.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use inotify::{Event, EventMask, Inotify, WatchMask};

use super::ledger::Change;
use super::look::is_call_name;

/// Room for about a thousand notifications of usual names.
const BUFFER_BYTES: usize = 64 << 10;

/// A watch on one directory.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    buffer: Vec<u8>,
}

/// What one notification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice<'n> {
    Name(&'n [u8], Change),
    /// Some were lost.
    Lost,
    /// The directory itself was moved, removed or unmounted.
    DirectoryGone,
}

impl Watch {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::DONT_FOLLOW
            | WatchMask::ONLYDIR;
        inotify.watches().add(dir, mask)?;
        Ok(Self { inotify, buffer: vec![0; BUFFER_BYTES] })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Hands over what has come, at most one buffer of it; false when nothing had.
    pub(super) fn read(&mut self, mut take: impl FnMut(Notice<'_>)) -> io::Result<bool> {
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        events.filter_map(|event| notice(&event)).for_each(&mut take);
        Ok(true)
    }
}

fn notice<'n>(event: &Event<&'n std::ffi::OsStr>) -> Option<Notice<'n>> {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return Some(Notice::Lost);
    }
    if event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT) {
        return Some(Notice::DirectoryGone);
    }
    let name = event.name.map(OsStrExt::as_bytes).filter(|name| is_call_name(name))?;
    let change = if event.mask.intersects(EventMask::MOVED_TO | EventMask::ISDIR) {
        Change::MovedIn
    } else if event.mask.contains(EventMask::CLOSE_WRITE) {
        Change::Closed
    } else if event.mask.contains(EventMask::MODIFY) {
        Change::Written
    } else {
        Change::Created
    };
    Some(Notice::Name(name, change))
}
