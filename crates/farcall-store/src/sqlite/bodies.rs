//! Bodies too large for a row: one file each in `bodies/`, whole and durable before the row that refers to it.
//!
//! A file is written under a temporary name, synced and renamed; [`Bodies::sync`] then makes the names durable. What a
//! crash leaves without a row is an orphan, removed by [`Bodies::sweep`]. Names are made of the call's id alone, so a
//! batch that is tried again writes the same file again.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, renameat, statat, unlinkat};

use super::open::private_directory;

/// Bodies up to this size stand in their row.
pub(super) const INLINE_BYTES_MAX: usize = 64 * 1024;

const TEMPORARY: &str = ".tmp";

/// Which of a call's two bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Request,
    Response,
}

/// The directory of body files. It is the same one when it, or the working directory around it, is moved.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    dir: Arc<File>,
    /// Of calls that were pruned.
    unneeded: Arc<Mutex<Vec<(CallId, Part)>>>,
    /// Bytes of all bodies, once somebody has asked for that; near enough while some are written.
    bytes: Arc<Mutex<Option<u64>>>,
}

impl Part {
    const fn extension(self) -> &'static str {
        match self {
            Self::Request => ".request",
            Self::Response => ".response",
        }
    }
}

impl Bodies {
    /// Opens the body files of a store; makes their directory where it is missing.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let dir = store.join("bodies");
        private_directory(&dir)?;
        Ok(Self { dir: Arc::new(File::open(dir)?), unneeded: Arc::default(), bytes: Arc::default() })
    }

    /// Bytes free for the user where the bodies lie.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.dir)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Writes a body and makes its bytes durable; its name is durable after the next [`Bodies::sync`].
    pub(super) fn write(&self, call: CallId, part: Part, body: &[u8]) -> io::Result<()> {
        let name = file_name(call, part);
        let temporary = format!("{name}{TEMPORARY}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(body)?;
        file.sync_all()?;
        crash::reach(Point::BodyWritten);
        renameat(&self.dir, &temporary, &self.dir, &name)?;
        self.note(|bytes| bytes.saturating_add(length(body.len())));
        crash::reach(Point::BodyNamed);
        Ok(())
    }

    /// Makes the names of all files written so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    pub(super) fn read(&self, call: CallId, part: Part) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, file_name(call, part), flags, Mode::empty())?);
        let mut body = Vec::new();
        file.read_to_end(&mut body)?;
        Ok(body)
    }

    /// Removes a body that no row refers to. What cannot be removed now is an orphan for the next sweep.
    pub(super) fn discard(&self, call: CallId, part: Part) {
        let name = file_name(call, part);
        let size = statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_size);
        if unlinkat(&self.dir, name, AtFlags::empty()).is_ok() {
            self.note(|bytes| bytes.saturating_sub(u64::try_from(size).unwrap_or(0)));
        }
    }

    /// Bytes of all bodies. The first time every file is looked at.
    pub(super) fn stored_bytes(&self) -> io::Result<u64> {
        if let Some(bytes) = *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(bytes);
        }
        let mut bytes = 0_u64;
        for entry in Dir::read_from(&self.dir)? {
            // One that goes meanwhile takes nothing.
            let stat = statat(&self.dir, entry?.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            bytes += stat.ok().filter(is_file).and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0);
        }
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        Ok(bytes)
    }

    fn note(&self, change: impl FnOnce(u64) -> u64) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.map(change);
    }

    /// These bodies belong to no row any more. The file system may take its time to free them, so the writer leaves that
    /// to [`Bodies::remove_unneeded`].
    pub(super) fn discard_later(&self, bodies: Vec<(CallId, Part)>) {
        self.unneeded.lock().unwrap_or_else(PoisonError::into_inner).extend(bodies);
    }

    /// Removes what was left to be removed later.
    pub(super) fn remove_unneeded(&self) {
        let unneeded = std::mem::take(&mut *self.unneeded.lock().unwrap_or_else(PoisonError::into_inner));
        for (call, part) in unneeded {
            crash::reach(Point::BodyUnneeded);
            self.discard(call, part);
            crash::reach(Point::BodyRemoved);
        }
    }

    /// Removes temporary files and every body that `referred` does not know; names that are not ours are left alone.
    pub(super) fn sweep<E>(&self, mut referred: impl FnMut(CallId, Part) -> Result<bool, E>) -> Result<(), E>
    where
        E: From<io::Error>,
    {
        for entry in Dir::read_from(&self.dir).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let Some(name) = entry.file_name().to_str().ok().and_then(BodyName::parse) else { continue };
            let kept = match name {
                BodyName::Temporary => false,
                BodyName::Body(call, part) => referred(call, part)?,
            };
            if !kept {
                unlinkat(&self.dir, entry.file_name(), AtFlags::empty()).map_err(io::Error::from)?;
            }
        }
        Ok(())
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn file_name(call: CallId, part: Part) -> String {
    call.uuid() + part.extension()
}

/// What a name in the directory means.
enum BodyName {
    Temporary,
    Body(CallId, Part),
}

impl BodyName {
    fn parse(name: &str) -> Option<Self> {
        if let Some(body) = name.strip_suffix(TEMPORARY) {
            return Self::parse(body).map(|_| Self::Temporary);
        }
        [Part::Request, Part::Response].into_iter().find_map(|part| {
            let call = name.strip_suffix(part.extension())?.parse().ok()?;
            Some(Self::Body(call, part))
        })
    }
}
