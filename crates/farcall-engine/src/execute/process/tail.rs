//! The end of a stream of bytes, in bounded memory.
//!
//! A program may write gigabytes; all of it is read, so that it never blocks on us, and its last words are kept.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The last bytes of what a program wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: Vec<u8>,
    /// Bytes read in all, kept or not.
    total: u64,
}

impl Tail {
    /// How many bytes are kept.
    pub const BYTES_MAX: usize = 64 << 10;

    /// The kept bytes, at most [`Tail::BYTES_MAX`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(Self::BYTES_MAX)..]
    }

    /// How many bytes were written, kept or not.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// What is kept, for people: without white space at its ends, what is no UTF-8 replaced.
    pub fn to_trimmed_text(&self) -> String {
        String::from_utf8_lossy(self.as_bytes()).trim().to_owned()
    }

    /// Reads until the stream ends or breaks; dropped midway, it keeps what was read.
    pub(super) async fn fill(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 8 << 10];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            self.push(&chunk[..count]);
        }
    }

    /// Cuts the front off only when twice the limit is held, so that each byte moves once on average.
    fn push(&mut self, chunk: &[u8]) {
        self.total = self.total.saturating_add(chunk.len() as u64);
        self.bytes.extend_from_slice(chunk);
        if self.bytes.len() >= 2 * Self::BYTES_MAX {
            self.bytes.drain(..self.bytes.len() - Self::BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(chunks: impl IntoIterator<Item = Vec<u8>>) -> Tail {
        let mut tail = Tail::default();
        chunks.into_iter().for_each(|chunk| tail.push(&chunk));
        tail
    }

    #[test]
    fn a_short_stream_is_kept_whole() {
        let tail = filled([b"  one".to_vec(), b" two\xff\n".to_vec()]);
        assert_eq!(tail.as_bytes(), b"  one two\xff\n");
        assert_eq!(tail.to_trimmed_text(), "one two\u{fffd}");
    }

    #[test]
    fn of_a_long_stream_the_end_is_kept_in_bounded_memory() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
        let tail = filled(bytes.chunks(7_919).map(<[u8]>::to_vec));
        assert_eq!(tail.as_bytes(), &bytes[bytes.len() - Tail::BYTES_MAX..]);
        assert_eq!(tail.total(), 1_000_003);
        assert!(tail.bytes.capacity() <= 4 * Tail::BYTES_MAX, "holds {}", tail.bytes.capacity());
    }
}
