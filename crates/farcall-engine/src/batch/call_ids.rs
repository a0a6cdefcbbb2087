//! Which call a line is: by the batch's own ids, or by the id that somebody else gave it.
//!
//! Ids that were given stand in a file, 16 bytes for each line at its place, so that a million of them take no memory. A
//! line without one, or with zeros, has the id that follows from the batch's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use farcall_core::id::CallId;

use super::line_ids::LineIds;

const ID_BYTES: u64 = 16;

/// From lines to calls.
#[derive(Debug)]
pub struct CallIds {
    own: LineIds,
    path: PathBuf,
    /// Made when the first id is given.
    given: OnceLock<File>,
}

impl CallIds {
    /// Those of a batch, with what was given before in the file of this path, if it is there.
    ///
    /// # Errors
    /// When there is one that cannot be opened.
    pub fn open(own: LineIds, path: &Path) -> io::Result<Self> {
        let given = match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => OnceLock::new(),
            file => OnceLock::from(file?),
        };
        Ok(Self { own, path: path.to_owned(), given })
    }

    /// Those that follow from the batch's.
    pub const fn own(&self) -> LineIds {
        self.own
    }

    /// The call that a line is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn id(&self, line: u32) -> io::Result<CallId> {
        Ok(self.given(line)?.unwrap_or_else(|| self.own.id(line)))
    }

    /// The id that a line was given.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn given(&self, line: u32) -> io::Result<Option<CallId>> {
        let Some(file) = self.given.get() else { return Ok(None) };
        let mut bytes = [0; ID_BYTES as usize];
        match file.read_exact_at(&mut bytes, place(line)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let bits = u128::from_be_bytes(bytes);
        Ok((bits != 0).then(|| CallId::from_bits(bits)))
    }

    /// These lines are these calls, which a kill does not undo.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give(&self, calls: &[(u32, CallId)]) -> io::Result<()> {
        let mut rest = calls;
        while let [(first, _), ..] = *rest {
            let is_next =
                |(index, (line, _)): (usize, &(u32, CallId))| u64::from(*line) == u64::from(first) + index as u64;
            let run = rest.iter().enumerate().take_while(|&(index, call)| is_next((index, call))).count();
            let bytes: Vec<u8> = rest[..run].iter().flat_map(|(_, id)| id.bits().to_be_bytes()).collect();
            self.file()?.write_all_at(&bytes, place(first))?;
            rest = &rest[run..];
        }
        Ok(())
    }

    /// Makes what was given durable.
    ///
    /// # Errors
    /// When the disk cannot.
    pub fn sync(&self) -> io::Result<()> {
        self.given.get().map_or(Ok(()), File::sync_data)
    }

    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.given.get() {
            return Ok(file);
        }
        let file = options().create(true).open(&self.path)?;
        Ok(self.given.get_or_init(|| file))
    }
}

/// Lines count from 1.
fn place(line: u32) -> u64 {
    (u64::from(line) - 1) * ID_BYTES
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use farcall_core::time::Timestamp;

    use super::*;

    #[test]
    fn what_was_given_is_found_again_and_all_other_lines_have_their_own() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("batch.ids");
        let own = LineIds::new(Timestamp::from_micros(1_795_165_200_000_000), 77 << 40);
        let ids = CallIds::open(own, &path)?;
        assert_eq!((ids.id(7)?, ids.given(7)?, path.exists()), (own.id(7), None, false));
        let given = |line: u32| (line, CallId::from_bits(u128::from(line) << 64));
        ids.give(&[given(2), given(3), given(9), given(10), given(1_000)])?;
        ids.sync()?;
        for ids in [ids, CallIds::open(own, &path)?] {
            for line in [2, 3, 9, 10, 1_000] {
                assert_eq!(ids.id(line)?, given(line).1, "{line}");
            }
            for line in [1, 4, 8, 11, 999, 1_001, u32::MAX] {
                assert_eq!((ids.id(line)?, ids.given(line)?), (own.id(line), None), "{line}");
            }
        }
        Ok(())
    }
}
