//! Reading small files that a configuration names, never more than a stated number of bytes.
//!
//! A FIFO or a device in the place of a file is an error; nothing here ever waits for one.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens a regular file. Never waits: a FIFO or device in its place is an error.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok((file, metadata))
}

/// What a file holds.
///
/// # Errors
/// Those of opening and reading; `FileTooLarge` when it holds more than `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_opened(&open(path)?.0, bytes_max)
}

pub(crate) fn read_opened(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= bytes_max) {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_bound_are_read() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("file");
        std::fs::write(&path, "12345")?;
        assert_eq!(read(&path, 5)?, b"12345");
        assert_eq!(read(&path, 4).map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(read(dir.path(), 5).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        Ok(())
    }
}
