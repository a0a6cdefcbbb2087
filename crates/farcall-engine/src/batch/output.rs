//! Writing a batch's results, and finding out which of them an earlier process wrote.
//!
//! A file is itself the record of what was written to it: each whole line is a result. What a crash left half, or a power
//! cut empty, is cut off and written again. A stream is begun anew each time. Everything here blocks.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};

use serde::Deserialize;

use super::tally::Tally;

/// Where results go.
pub enum Output {
    /// A regular file.
    File(File),
    /// A pipe, a terminal, a device.
    Stream(Box<dyn Write + Send>),
}

/// What a file of results holds.
#[derive(Debug, Clone, Default)]
pub struct Written {
    pub lines: LineSet,
    pub tally: Tally,
}

/// A set of lines that takes a bit for each up to the last.
#[derive(Debug, Clone, Default)]
pub struct LineSet(Vec<u64>);

/// Why a file of results cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("cannot read and write the output")]
    Io(#[from] io::Error),
    #[error("line {place} of the output is no result of this batch")]
    Foreign { place: u64 },
}

/// As much of a result as tells whose it is.
#[derive(Debug, Deserialize)]
struct Head<'a> {
    line: u32,
    #[serde(borrow)]
    state: std::borrow::Cow<'a, str>,
}

impl Output {
    /// Writes whole lines.
    ///
    /// # Errors
    /// When they cannot be written; a part of them may have been.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(lines),
            Self::Stream(stream) => {
                stream.write_all(lines)?;
                stream.flush()
            }
        }
    }

    /// Makes all that was written durable, as far as its kind can be.
    ///
    /// # Errors
    /// When the disk cannot.
    pub fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Stream(_) => "Stream",
        })
    }
}

/// Reads which results a file holds, cuts off what is none at its end, and stands behind the last.
///
/// # Errors
/// When it cannot be read, or holds something else; nothing is changed then.
pub fn mend(file: &mut File) -> Result<Written, OutputError> {
    let mut written = Written::default();
    let (mut end, mut place) = (0, 0);
    file.seek(SeekFrom::Start(0))?;
    let (mut reader, mut text) = (BufReader::with_capacity(1 << 20, &*file), Vec::new());
    loop {
        text.clear();
        let length = reader.read_until(b'\n', &mut text)?;
        if length == 0 {
            break;
        }
        place += 1;
        let head = serde_json::from_slice::<Head<'_>>(&text).ok().filter(|_| text.ends_with(b"\n"));
        match head {
            Some(head) if written.lines.insert(head.line) => written.tally.add(&head.state),
            // A power cut leaves zeros where the contents had not come to the disk.
            None if text.contains(&0) || reader.fill_buf()?.is_empty() => break,
            Some(_) | None => return Err(OutputError::Foreign { place }),
        }
        end += u64::try_from(length).unwrap_or(u64::MAX);
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok(written)
}

impl LineSet {
    /// False when it was there already.
    pub fn insert(&mut self, line: u32) -> bool {
        let (word, bit) = place(line);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    pub fn contains(&self, line: u32) -> bool {
        let (word, bit) = place(line);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

const fn place(line: u32) -> (usize, u64) {
    ((line / u64::BITS) as usize, 1 << (line % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const TWO: &str =
        "{\"line\":1,\"state\":\"succeeded\"}\n{\"line\":7,\"id\":\"x\",\"state\":\"failed\",\"body\":{}}\n";

    fn mended(text: &[u8]) -> Result<(Written, Vec<u8>), Box<dyn std::error::Error>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(text)?;
        let written = mend(&mut file)?;
        file.write_all(b"next")?;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        io::Read::read_to_end(&mut file, &mut text)?;
        Ok((written, text))
    }

    #[test]
    fn half_a_line_and_zeros_are_cut_off() -> Outcome {
        for tail in [
            "",
            "{\"line\":8,\"state\":\"succ",
            "{\"line\":8}",
            "\0\0\0\n\0",
            "\0\0\n{\"line\":9,\"state\":\"failed\"}\n",
        ] {
            let (written, text) = mended(format!("{TWO}{tail}").as_bytes())?;
            assert_eq!(String::from_utf8(text)?, format!("{TWO}next"), "{tail:?}");
            let lines: Vec<u32> = (0..70).filter(|&line| written.lines.contains(line)).collect();
            assert_eq!((lines, written.tally.total(), written.tally.failed()), (vec![1, 7], 2, 1));
        }
        Ok(())
    }

    #[test]
    fn a_file_with_something_else_is_left_alone() -> Outcome {
        for text in [format!("notes\n{TWO}"), format!("{TWO}{TWO}"), format!("{TWO}notes\nmore\n")] {
            let mut file = tempfile::tempfile()?;
            file.write_all(text.as_bytes())?;
            assert!(matches!(mend(&mut file), Err(OutputError::Foreign { .. })), "{text}");
            assert_eq!(file.metadata()?.len(), text.len() as u64, "nothing is cut off");
        }
        Ok(())
    }
}
