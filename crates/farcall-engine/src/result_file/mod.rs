//! The files that users read: `responses/`, `requests/` and `rejected/`.
//!
//! [`Filing`] puts them in place so that a poller sees whole files only, a crash at any step leaves nothing lost or
//! doubled, and nothing is overwritten. A response's contents are durable before its name appears, its name before the
//! request file appears. Work comes in batches, so that one sync serves many files. What a call's end means is decided
//! elsewhere; calls here have ended.
//!
//! The plain name belongs to the file taken last. Whoever comes later moves the earlier pair aside, when the file is
//! taken ([`Filing::make_way`]) and again, if need be, when it is filed; see `displace`.

mod contents;
mod displace;
mod draft;
mod ended;
mod folders;
mod held;
mod name;
mod old;
mod owners;
mod rejected;
mod taken;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farcall_core::id::CallId;
use rustix::io::Errno;

use displace::Newcomer;
use folders::{Folder, Folders};
use held::HeldNames;
use owners::Owners;

pub use contents::{problem, rejected_response, response};
pub use ended::Ended;
pub(crate) use folders::{Inode, changed_ns, modified_ns, open_dir, read_up_to};
pub(crate) use old::{OldFiles, Removed};
pub use rejected::{Rejected, RejectedOutcome};
pub(crate) use taken::{Cleared, Taken};

/// Files that a crash left behind end in this; so do all that are being written.
const TEMPORARY_SUFFIX: &str = ".farcall.tmp";

/// Where responses, requests and rejected files of one working directory are put.
///
/// Cheap to share behind an `Arc`; batches of one directory go one after the other.
#[derive(Debug)]
pub struct Filing {
    dir: PathBuf,
    /// Tells this process's temporary files from those of an earlier one.
    run: u64,
    temporaries: AtomicU64,
    owners: Mutex<Owners>,
    held: HeldNames,
    /// Whether files without names have been found not to work.
    forgoes_unnamed_files: AtomicBool,
    stuck: Mutex<HashMap<Inode, i64>>,
}

/// A step that could not be done; everything before it stands, and doing it all again is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{folder}: cannot {action}")]
pub struct FileError {
    pub action: &'static str,
    /// The folder's name below the working directory.
    pub folder: &'static str,
    #[source]
    pub source: Errno,
}

impl Filing {
    /// Files into the folders below `dir`, an absolute path; missing folders are made when they are needed.
    ///
    /// `run` must differ from that of earlier processes, for example the time of the start.
    pub fn new(dir: impl Into<PathBuf>, run: u64) -> Self {
        Self {
            dir: dir.into(),
            run,
            temporaries: AtomicU64::new(0),
            owners: Mutex::default(),
            held: HeldNames::default(),
            forgoes_unnamed_files: AtomicBool::new(false),
            stuck: Mutex::default(),
        }
    }

    /// The working directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on the plain name belongs to this call. To be said when a call from a file is accepted, and at start
    /// for every one that is not filed yet, in the order of acceptance; before its end can be filed.
    pub fn claim(&self, name: &[u8], id: CallId) {
        self.owners().claim(name, id);
    }

    /// A call that claimed this name was not accepted.
    pub(crate) fn withdraw(&self, name: &[u8], id: CallId) {
        self.owners().withdraw(name, id);
    }

    /// Moves what stands under these plain names aside for the calls that were just taken.
    ///
    /// # Errors
    /// The first that failed; filing tries again by itself.
    pub fn make_way(&self, taken: &[(&[u8], CallId)]) -> Result<(), FileError> {
        let folders = Folders::open(&self.dir)?;
        let mut first_error = Ok(());
        for &(name, id) in taken {
            let _held = self.held.hold([name]);
            let moved =
                displace::plan(&folders, name, Newcomer::Call(id)).and_then(|moves| displace::run(&folders, &moves));
            first_error = first_error.and(moved);
        }
        first_error
    }

    /// Where the response file of a filed call stands just now; nothing when it is neither under its plain name nor
    /// under that of its id, for example because it was removed.
    pub fn response_of(&self, name: &[u8], id: CallId) -> Option<PathBuf> {
        let folders = Folders::open(&self.dir).ok()?;
        let _held = self.held.hold([name]);
        let candidates = [name.to_vec(), name::displaced(name, name::Tag::Call(id), 1)];
        let is_its = |name: &Vec<u8>| matches!(displace::occupant(&folders, name), Ok(occupant) if displace::standing(occupant, id) == displace::Standing::Own);
        candidates.into_iter().find(is_its).map(|name| self.path_of(Folder::Responses, &name))
    }

    /// Makes the folders, durably, if they are missing.
    ///
    /// # Errors
    /// When one can be neither opened nor made.
    pub(crate) fn make_folders(&self) -> Result<(), FileError> {
        Folders::open(&self.dir).map(drop)
    }

    /// Puts response and request files of ended calls in place; gives the absolute path of each response file.
    ///
    /// Safe to repeat for [`Ended::is_again`]: a call whose files are in place already keeps them. When this returns, what
    /// it says is durable.
    ///
    /// # Errors
    /// For each call whose files are not both in place, or whose call file is still in the inbox.
    pub fn file(&self, batch: &[Ended]) -> Vec<Result<PathBuf, FileError>> {
        ended::file(self, batch)
    }

    /// Moves inbox files that are no valid call to `rejected/`, with a problem file beside and a response file for each.
    ///
    /// Safe to repeat after a crash: the result is one response, one problem file, one rejected file.
    ///
    /// # Errors
    /// For each file that is not in `rejected/`.
    pub fn reject(&self, batch: &[Rejected<'_>]) -> Vec<Result<RejectedOutcome, FileError>> {
        rejected::reject(self, batch)
    }

    /// Removes what a crash left half written. Other files of this process are left alone, so it may run beside them.
    /// After every so many names it asks whether to go on.
    ///
    /// # Errors
    /// When a folder cannot be read or a leftover not be removed.
    pub fn sweep(&self, names: usize, goes_on: impl FnMut() -> bool) -> Result<(), FileError> {
        let folders = Folders::open(&self.dir)?;
        let own = self.temporary_prefix();
        let is_leftover =
            |name: &[u8]| name.ends_with(TEMPORARY_SUFFIX.as_bytes()) && !name.starts_with(own.as_bytes());
        folders.sweep(is_leftover, names, goes_on)
    }

    /// Files in the inbox whose calls are known and that could not be removed: inodes, and the change time (ctime, in ns)
    /// with which they were read. Whoever removes one strikes it out.
    pub(crate) fn stuck(&self) -> MutexGuard<'_, HashMap<Inode, i64>> {
        self.stuck.lock().expect("nothing panics while it holds the stuck files")
    }

    fn has_unnamed_files(&self) -> bool {
        !self.forgoes_unnamed_files.load(Ordering::Relaxed)
    }

    fn forgo_unnamed_files(&self) {
        self.forgoes_unnamed_files.store(true, Ordering::Relaxed);
    }

    /// A name that no other file has.
    fn temporary(&self) -> Vec<u8> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}{TEMPORARY_SUFFIX}", self.temporary_prefix()).into_bytes()
    }

    fn path_of(&self, folder: Folder, name: &[u8]) -> PathBuf {
        self.dir.join(folder.name()).join(OsStr::from_bytes(name))
    }

    fn temporary_prefix(&self) -> String {
        format!(".{:x}-", self.run)
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        // A mistake of ours in the middle of a batch leaves whole entries; what it was about is filed again.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileError {
    fn of(action: &'static str, folder: &'static str) -> impl Fn(Errno) -> Self + Copy {
        move |source| Self { action, folder, source }
    }
}

#[cfg(test)]
mod tests;
