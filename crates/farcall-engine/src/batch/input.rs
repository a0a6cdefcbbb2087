//! Reading a batch's lines: a chunk at a time, and a digest of all that was read, to know the same input again.
//!
//! Blocking. No line is held that is longer than a call may be. What a line says is not looked at here.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::journal::Mark;

/// Lines read at one go.
pub const CHUNK_LINES_MAX: usize = 1_000;
/// Bytes read at one go, unless a single line is longer.
const CHUNK_BYTES_MAX: usize = 4 << 20;
/// What is asked of the system at a time.
const BUFFER_BYTES: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// NDJSON that is read once, from its beginning to its end.
pub struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    lines: u32,
    bytes: u64,
    digest: Sha256,
    line_bytes_max: u64,
    is_at_end: bool,
}

/// Some lines, and how far they lead.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    pub lines: Vec<Line>,
    pub mark: Mark,
}

/// A line of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1; lines without text count.
    pub number: u32,
    /// Without its end. Nothing when it is longer than a call may be.
    pub text: Option<Bytes>,
}

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("cannot read the input")]
    Read(#[from] io::Error),
    #[error("the input has more than {} lines", u32::MAX)]
    TooManyLines,
    /// Nothing of it was sent.
    #[error("the input has changed since this batch was begun: {what}")]
    Changed { what: &'static str },
}

impl Input {
    /// Reads from here on; a line longer than so many bytes is passed over.
    pub fn new(source: Box<dyn Read + Send>, line_bytes_max: u64) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { reader, lines: 0, bytes: 0, digest: Sha256::new(), line_bytes_max, is_at_end: false }
    }

    /// Reads on to a mark that was set earlier, and finds that nothing has changed up to there. `each` is given the lines.
    ///
    /// # Errors
    /// When it is not the same, or cannot be read.
    pub fn pass_over(&mut self, mark: &Mark, mut each: impl FnMut(Line)) -> Result<(), InputError> {
        while self.lines < mark.lines {
            let Some(line) = self.next_line()? else { return Err(InputError::Changed { what: "it is shorter" }) };
            each(line);
        }
        let now = self.mark();
        if mark.lines == 0 && !mark.is_end {
            return Ok(());
        }
        if now.digest != mark.digest || now.bytes != mark.bytes {
            return Err(InputError::Changed { what: "lines that were sent already are not the same" });
        }
        if mark.is_end && !self.reader.fill_buf()?.is_empty() {
            return Err(InputError::Changed { what: "it is longer" });
        }
        Ok(())
    }

    /// The next lines; blocks only while there is none. The last chunk is marked as the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn next_chunk(&mut self) -> Result<Chunk, InputError> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < CHUNK_LINES_MAX && bytes < CHUNK_BYTES_MAX {
            // Whoever writes into a pipe line by line is not made to fill a chunk first.
            if !lines.is_empty() && !self.reader.buffer().contains(&b'\n') {
                break;
            }
            let Some(line) = self.next_line()? else { break };
            bytes += line.text.as_ref().map_or(0, Bytes::len);
            lines.push(line);
        }
        Ok(Chunk { lines, mark: self.mark() })
    }

    fn mark(&self) -> Mark {
        let digest = self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Mark { lines: self.lines, bytes: self.bytes, digest, is_end: self.is_at_end }
    }

    /// Nothing at the end.
    fn next_line(&mut self) -> Result<Option<Line>, InputError> {
        let mut text = Vec::new();
        let (mut length, mut is_ended) = (0, false);
        while !is_ended {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                self.is_at_end = true;
                break;
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.map_or(buffer.len(), |end| end + 1)];
            is_ended = end.is_some();
            length += u64::try_from(part.len()).unwrap_or(u64::MAX);
            self.digest.update(part);
            if length <= self.line_bytes_max.saturating_add(2) {
                text.extend_from_slice(part);
            }
            let read = part.len();
            self.reader.consume(read);
        }
        if length == 0 {
            return Ok(None);
        }
        self.bytes += length;
        self.lines = self.lines.checked_add(1).ok_or(InputError::TooManyLines)?;
        let is_whole = u64::try_from(text.len()) == Ok(length);
        let text = trimmed(text, self.lines == 1);
        let fits = is_whole && u64::try_from(text.len()).is_ok_and(|length| length <= self.line_bytes_max);
        Ok(Some(Line { number: self.lines, text: fits.then_some(text) }))
    }
}

/// Without the line's end, and without what some editors begin a file with.
fn trimmed(text: Vec<u8>, is_first: bool) -> Bytes {
    let text = Bytes::from(text);
    let begin = if is_first && text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let line = &text[begin..];
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    text.slice_ref(line)
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("lines", &self.lines).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &'static str) -> Input {
        Input::new(Box::new(text.as_bytes()), 8)
    }

    fn texts(chunk: &Chunk) -> Vec<Option<&[u8]>> {
        chunk.lines.iter().map(|line| line.text.as_deref()).collect()
    }

    #[test]
    fn lines_come_without_their_ends_and_too_long_ones_without_text() {
        let mut input = input("\u{feff}one\r\n\n12345678\n123456789\nlast");
        let chunk = input.next_chunk().expect("it reads");
        assert_eq!(texts(&chunk), [Some(&b"one"[..]), Some(b""), Some(b"12345678"), None]);
        let rest = input.next_chunk().expect("it reads");
        assert_eq!((texts(&rest), rest.lines[0].number), (vec![Some(&b"last"[..])], 5));
        assert!(rest.mark.is_end && !chunk.mark.is_end);
        assert_eq!(rest.mark.bytes, 32);
    }

    #[test]
    fn the_same_input_is_passed_over_and_any_other_is_found_out() {
        let mark = input("a\nb\nc\n").next_chunk().expect("it reads").mark;
        let mut same = input("a\nb\nc\nd\n");
        same.pass_over(&mark, drop).expect("it begins the same");
        assert_eq!(texts(&same.next_chunk().expect("it reads")), [Some(&b"d"[..])]);
        let ended = Mark { is_end: true, ..mark.clone() };
        for (text, mark, what) in [
            ("a\nb\n", &mark, "it is shorter"),
            ("a\nb\nC\n", &mark, "lines that were sent already are not the same"),
            ("a\nb\nc", &mark, "lines that were sent already are not the same"),
            ("a\nb\nc\nd\n", &ended, "it is longer"),
        ] {
            let error = input(text).pass_over(mark, drop).expect_err(text);
            assert!(matches!(error, InputError::Changed { what: found } if found == what), "{text:?}: {error}");
        }
        input("a\nb\nc\n").pass_over(&ended, drop).expect("it is the same");
        input("x").pass_over(&Mark::default(), drop).expect("nothing was submitted");
    }

    #[test]
    fn a_chunk_does_not_wait_for_lines_that_are_not_written_yet() {
        let (mut writer, reader) = io::pipe().map(|(reader, writer)| (writer, reader)).expect("a pipe");
        let mut input = Input::new(Box::new(reader), 64);
        io::Write::write_all(&mut writer, b"first\nhalf").expect("there is room");
        assert_eq!(texts(&input.next_chunk().expect("it reads")), [Some(&b"first"[..])]);
        drop(writer);
        assert_eq!(texts(&input.next_chunk().expect("it reads")), [Some(&b"half"[..])]);
        assert!(input.next_chunk().expect("it reads").mark.is_end);
    }
}
