//! How far the store had come: the number of its commits, kept beside the database in the lock file.
//!
//! A database whose log was taken away, or that was put back from a copy, opens without complaint and lacks what was
//! committed since. The number is written after each commit and not synced: it is never ahead of what is durable, and
//! after a power cut it may be behind, which tells nothing and does no harm. A number that does not read is none.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Digits of the number, so that it is written over in place.
const DIGITS: usize = 20;

/// The lock file, locked.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    pub(super) const fn in_file(lock: File) -> Self {
        Self(lock)
    }

    /// The number of commits that were noted last.
    pub(super) fn commits(&self) -> Option<i64> {
        let mut digits = [0; DIGITS];
        self.0.read_exact_at(&mut digits, 0).ok()?;
        std::str::from_utf8(&digits).ok()?.parse().ok()
    }

    /// Notes a commit that is durable. When that fails a loss is not noticed, and nothing is lost by it.
    pub(super) fn note(&self, commits: i64) {
        let _ = self.0.write_all_at(format!("{commits:0DIGITS$}\n").as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_noted_is_read_and_anything_else_is_none() -> std::io::Result<()> {
        let file = tempfile::tempfile()?;
        let mark = Mark::in_file(file.try_clone()?);
        assert_eq!(mark.commits(), None);
        mark.note(12_345);
        mark.note(7);
        assert_eq!(mark.commits(), Some(7));
        file.write_all_at(b"?", 3)?;
        assert_eq!(mark.commits(), None);
        Ok(())
    }
}
