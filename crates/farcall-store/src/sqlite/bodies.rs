//! Bodies too large for a row: one file each in `bodies/`, whole and durable before the row that refers to it.
//!
//! A file is written under a temporary name, synced and renamed; [`Bodies::sync`] then makes the names durable. What a
//! crash leaves without a row is an orphan, removed by [`Bodies::sweep`]. Names are made of the call's id alone, so a
//! batch that is tried again writes the same file again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};

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

/// The directory of body files.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    dir: PathBuf,
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
    /// Bytes free for the user where the bodies lie.
    pub(super) fn free_bytes(&self) -> std::io::Result<u64> {
        let system = rustix::fs::statvfs(&self.dir)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// The body files of this store, without a look at the disk.
    pub(super) fn of_store(store: &Path) -> Self {
        Self { dir: store.join("bodies") }
    }

    /// Makes the directory where it is missing.
    pub(super) fn create(&self) -> io::Result<()> {
        private_directory(&self.dir)
    }

    /// Writes a body and makes its bytes durable; its name is durable after the next [`Bodies::sync`].
    pub(super) fn write(&self, call: CallId, part: Part, body: &[u8]) -> io::Result<()> {
        let path = self.path(call, part);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(body)?;
        file.sync_all()?;
        crash::reach(Point::BodyWritten);
        fs::rename(&temporary, &path)?;
        crash::reach(Point::BodyNamed);
        Ok(())
    }

    /// Makes the names of all files written so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn read(&self, call: CallId, part: Part) -> io::Result<Vec<u8>> {
        fs::read(self.path(call, part))
    }

    /// Removes a body that no row refers to. What cannot be removed now is an orphan for the next sweep.
    pub(super) fn discard(&self, call: CallId, part: Part) {
        let _ = fs::remove_file(self.path(call, part));
    }

    /// Removes temporary files and every body that `referred` does not know; names that are not ours are left alone.
    pub(super) fn sweep<E>(&self, mut referred: impl FnMut(CallId, Part) -> Result<bool, E>) -> Result<(), E>
    where
        E: From<io::Error>,
    {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(BodyName::parse) else { continue };
            let kept = match name {
                BodyName::Temporary => false,
                BodyName::Body(call, part) => referred(call, part)?,
            };
            if !kept {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, call: CallId, part: Part) -> PathBuf {
        self.dir.join(call.uuid() + part.extension())
    }
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
