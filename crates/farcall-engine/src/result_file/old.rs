//! Removing files that were kept long enough from `requests/`, `responses/` and `rejected/`, few at a time.
//!
//! What stands under one name goes together: request and response, rejected file, problem and response. The youngest of
//! them counts, by its change time (ctime), which a rename into place sets and nobody can set back. The response goes
//! last: whoever sees a request can read its response. Looked at are regular files with the names that farcall gives:
//! `*.json`, not hidden; nothing is opened through a link. Nothing goes whose call is not filed yet.

use farcall_core::id::CallId;
use farcall_crash::{self as crash, Point};
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::displace::{self, Occupant};
use super::folders::{Folder, Folders, changed_ns};
use super::{FileError, Filing, name};

const EXTENSION: &[u8] = b".json";
const PROBLEM_EXTENSION: &[u8] = b".problem.json";

/// One look at all names there are.
#[derive(Debug)]
pub(crate) struct OldFiles {
    folders: Folders,
    /// Still to be looked through, the last one first.
    rest: Vec<(Folder, Dir)>,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Removed {
    pub(crate) files: usize,
    pub(crate) is_over: bool,
}

impl Filing {
    /// Begins to look through the folders.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn old_files(&self) -> Result<OldFiles, FileError> {
        let folders = Folders::open(&self.dir)?;
        let open = |folder: Folder| {
            let dir = Dir::read_from(folders.fd(folder)).map_err(FileError::of("read the folder", folder.name()))?;
            Ok((folder, dir))
        };
        let rest = [Folder::Responses, Folder::Rejected, Folder::Requests].map(open);
        let rest = rest.into_iter().collect::<Result<_, FileError>>()?;
        Ok(OldFiles { folders, rest })
    }
}

impl OldFiles {
    /// Looks at this many names more, and removes what was last changed before `before_ns` (nanoseconds since 1970) and
    /// belongs to no call that `is_unfiled` says is not filed yet.
    ///
    /// # Errors
    /// When a folder cannot be read or a file not be removed.
    pub(crate) fn go_on<E: From<FileError>>(
        &mut self,
        filing: &Filing,
        (names, before_ns): (usize, i64),
        mut is_unfiled: impl FnMut(CallId) -> Result<bool, E>,
    ) -> Result<Removed, E> {
        let mut removed = Removed::default();
        for _ in 0..names {
            let Some((folder, dir)) = self.rest.last_mut() else {
                return Ok(Removed { is_over: true, ..removed });
            };
            let folder = *folder;
            let failed = FileError::of("read the folder", folder.name());
            match dir.read() {
                None => drop(self.rest.pop()),
                Some(entry) => {
                    let entry = entry.map_err(failed)?;
                    let Some(name) = group_of(folder, entry.file_name().to_bytes()) else { continue };
                    removed.files += self.remove(filing, &name, before_ns, &mut is_unfiled)?;
                }
            }
        }
        Ok(removed)
    }

    /// Removes what stands under a name, if all of it is old.
    fn remove<E: From<FileError>>(
        &self,
        filing: &Filing,
        name: &[u8],
        before_ns: i64,
        is_unfiled: &mut impl FnMut(CallId) -> Result<bool, E>,
    ) -> Result<usize, E> {
        if !self.are_old(name, before_ns)? {
            return Ok(0);
        }
        let _held = filing.held.hold([name]);
        // Somebody may have put another pair there before it was held.
        if !self.are_old(name, before_ns)? {
            return Ok(0);
        }
        if let Some(call) = self.call_of(name)?
            && is_unfiled(call)?
        {
            return Ok(0);
        }
        let mut removed = 0;
        for (folder, name) in parts(name) {
            match rustix::fs::unlinkat(self.folders.fd(folder), &*name, AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(FileError::of("remove an old file", folder.name())(error).into()),
            }
            crash::reach(Point::OldFileRemoved);
        }
        Ok(removed)
    }

    /// Whether there is something, and all of it regular files that were last changed before.
    fn are_old(&self, name: &[u8], before_ns: i64) -> Result<bool, FileError> {
        let mut is_any = false;
        for (folder, name) in parts(name) {
            match rustix::fs::statat(self.folders.fd(folder), &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => return Ok(false),
                Ok(stat) if changed_ns(&stat) >= before_ns => return Ok(false),
                Ok(_) => is_any = true,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(FileError::of("look at a file", folder.name())(error)),
            }
        }
        Ok(is_any)
    }

    /// Whose files these are, as far as they tell.
    fn call_of(&self, name: &[u8]) -> Result<Option<CallId>, FileError> {
        if let Occupant::Call(id) = displace::occupant(&self.folders, name)? {
            return Ok(Some(id));
        }
        Ok(self.folders.marked(Folder::Requests, name)?.and_then(|id| id.parse().ok()))
    }
}

/// What may stand under a name, in the order in which it goes.
fn parts(name: &[u8]) -> [(Folder, Vec<u8>); 4] {
    [
        (Folder::Requests, name.to_vec()),
        (Folder::Rejected, name.to_vec()),
        (Folder::Rejected, name::problem(name)),
        (Folder::Responses, name.to_vec()),
    ]
}

/// The name under which a file stands with others; nothing for names that farcall gives to none.
fn group_of(folder: Folder, name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b".") || !name.ends_with(EXTENSION) {
        return None;
    }
    match name.strip_suffix(PROBLEM_EXTENSION).filter(|_| folder == Folder::Rejected) {
        // That of a long name has a name of its own.
        Some(base) if base.ends_with(EXTENSION) && name::problem(base) == name => Some(base.to_vec()),
        Some(_) | None => Some(name.to_vec()),
    }
}
