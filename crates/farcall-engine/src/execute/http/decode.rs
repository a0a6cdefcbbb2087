//! The answer's body as it comes in: gzip removed, never more than allowed.
//!
//! The cap counts decoded bytes and holds while they are produced, so a small body that unpacks to a huge one costs
//! no more memory than any other. One coding is removed; anything but exactly `gzip` or `x-gzip` stays as it is.

use std::io::{self, Write};

use bytes::Bytes;
use farcall_core::call::ErrorKind;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::classify::Failure;

/// Coded bytes unpacked between two chances for other tasks to run; gzip makes at most 1,032 bytes of one.
const SLICE_BYTES: usize = 4 << 10;

/// A body being collected.
#[derive(Debug)]
pub(super) enum Collector {
    AsIs(Capped),
    Gzip { decoder: Box<MultiGzDecoder<Capped>>, received: bool },
}

/// Bytes up to a maximum.
#[derive(Debug)]
pub(super) struct Capped {
    bytes: Vec<u8>,
    bytes_max: usize,
    overflowed: bool,
}

impl Collector {
    /// For an answer with these headers.
    pub(super) fn new(headers: &HeaderMap, bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let capped = Capped { bytes: Vec::new(), bytes_max, overflowed: false };
        if is_gzip(headers) {
            return Self::Gzip { decoder: Box::new(MultiGzDecoder::new(capped)), received: false };
        }
        Self::AsIs(capped)
    }

    /// Takes what came.
    ///
    /// # Errors
    /// `too_large` when the body outgrows its maximum, `decode` when it is not what it says it is.
    pub(super) async fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let taken = match self {
            Self::AsIs(capped) => capped.write_all(piece),
            Self::Gzip { decoder, received } => {
                *received = true;
                unpack(decoder, piece).await
            }
        };
        taken.map_err(|error| self.failure(&error))
    }

    /// The body has ended.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let finished = match self {
            Self::Gzip { decoder, received: true } => decoder.try_finish(),
            // Servers label empty bodies as gzip too.
            Self::Gzip { received: false, .. } | Self::AsIs(_) => Ok(()),
        };
        finished.map_err(|error| self.failure(&error))
    }

    /// What was collected, complete or not.
    pub(super) fn into_body(mut self) -> Bytes {
        // Of a body that broke off, brings out what was decoded and still stands in the decoder's buffer.
        let _incomplete = self.finish();
        Bytes::from(std::mem::take(&mut self.capped().bytes))
    }

    /// Whether a coding was removed.
    pub(super) fn has_decoded(&self) -> bool {
        matches!(self, Self::Gzip { received: true, .. })
    }

    /// Whether a body of this coded length is too large for certain.
    pub(super) fn refuses(&self, coded_bytes: u64) -> bool {
        match self {
            Self::AsIs(capped) => coded_bytes > capped.bytes_max as u64,
            Self::Gzip { .. } => false,
        }
    }

    /// Why a body over the maximum is refused.
    pub(super) fn too_large(&mut self) -> Failure {
        let bytes_max = self.capped().bytes_max;
        Failure::new(ErrorKind::TooLarge, format!("the answer's body has more than {bytes_max} bytes"))
    }

    fn failure(&mut self, error: &io::Error) -> Failure {
        if self.capped().overflowed {
            return self.too_large();
        }
        Failure::new(ErrorKind::Decode, format!("the answer's body is no gzip: {error}"))
    }

    fn capped(&mut self) -> &mut Capped {
        match self {
            Self::AsIs(capped) => capped,
            Self::Gzip { decoder, .. } => decoder.get_mut(),
        }
    }
}

async fn unpack(decoder: &mut MultiGzDecoder<Capped>, piece: &[u8]) -> io::Result<()> {
    for slice in piece.chunks(SLICE_BYTES) {
        decoder.write_all(slice)?;
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

fn is_gzip(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(coding), None) = (codings.next(), codings.next()) else { return false };
    let coding = coding.as_bytes().trim_ascii();
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.bytes_max - self.bytes.len();
        if bytes.len() <= room {
            self.bytes.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        self.bytes.extend_from_slice(&bytes[..room]);
        self.overflowed = true;
        Err(io::Error::other("too large"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to memory succeeds")
    }

    async fn collect(coding: &str, pieces: &[&[u8]], bytes_max: u64) -> (Result<(), ErrorKind>, Bytes, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().expect("a header value"));
        let mut collector = Collector::new(&headers, bytes_max);
        let mut end = Ok(());
        for piece in pieces {
            if end.is_ok() {
                end = collector.push(piece).await;
            }
        }
        let end = end.and_then(|()| collector.finish()).map_err(|failure| failure.kind);
        let decoded = collector.has_decoded();
        (end, collector.into_body(), decoded)
    }

    async fn check(coding: &str, pieces: &[&[u8]], expected: Result<&[u8], ErrorKind>) {
        let (end, body, _) = collect(coding, pieces, 1_000).await;
        assert_eq!(end.map(|()| body.as_ref()), expected, "{coding}, {pieces:?}");
    }

    #[tokio::test]
    async fn gzip_is_removed_under_both_names_and_in_any_pieces() {
        let coded = gzip(b"hello");
        check("gzip", &[&coded], Ok(b"hello")).await;
        check("X-GZip", &[&coded[..3], &coded[3..]], Ok(b"hello")).await;
        check("gzip", &[&coded, &coded], Ok(b"hellohello")).await;
        check("gzip", &[], Ok(b"")).await;
    }

    #[tokio::test]
    async fn other_and_nested_codings_stay_as_they_are() {
        for coding in ["br", "identity", "gzip, gzip", "deflate"] {
            let (end, body, decoded) = collect(coding, &[b"\x1f\x8b"], 1_000).await;
            assert_eq!((end, body.as_ref(), decoded), (Ok(()), b"\x1f\x8b".as_slice(), false), "{coding}");
        }
    }

    #[tokio::test]
    async fn damaged_gzip_is_undecodable() {
        let coded = gzip(b"hello");
        check("gzip", &[&coded[..coded.len() - 1]], Err(ErrorKind::Decode)).await;
        check("gzip", &[&coded[..5]], Err(ErrorKind::Decode)).await;
        check("gzip", &[b"{\"not\": \"gzip\"}"], Err(ErrorKind::Decode)).await;
        check("gzip", &[&coded, b"garbage behind it"], Err(ErrorKind::Decode)).await;
        let mut flipped = coded;
        let checksum = flipped.len() - 8;
        flipped[checksum] ^= 1;
        check("gzip", &[&flipped], Err(ErrorKind::Decode)).await;
    }

    #[tokio::test]
    async fn the_cap_is_exact_and_keeps_the_first_part() {
        for (coding, coded) in [("gzip", gzip(&[b'a'; 50_000])), ("identity", vec![b'a'; 50_000])] {
            let (end, body, _) = collect(coding, &[&coded], 50_000).await;
            assert_eq!((end, body.len()), (Ok(()), 50_000), "{coding}");
            let (end, body, _) = collect(coding, &[&coded], 49_999).await;
            assert_eq!((end, body.len()), (Err(ErrorKind::TooLarge), 49_999), "{coding}");
        }
    }

    #[tokio::test]
    async fn a_bomb_takes_no_more_memory_than_the_cap_allows() {
        let bomb = gzip(&vec![0; 8 << 20]);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().expect("a header value"));
        let mut collector = Collector::new(&headers, 100_000);
        let failure = collector.push(&bomb).await.expect_err("80 times too large");
        assert_eq!(failure.kind, ErrorKind::TooLarge);
        assert!(collector.capped().bytes.capacity() <= 200_000);
    }

    #[tokio::test]
    async fn what_was_decoded_before_a_break_is_kept() {
        let plain: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let coded = gzip(&plain);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().expect("a header value"));
        let mut collector = Collector::new(&headers, u64::MAX);
        collector.push(&coded[..coded.len() / 2]).await.expect("a good first half");
        let body = collector.into_body();
        assert!(body.len() > plain.len() / 4 && plain.starts_with(&body), "{} bytes", body.len());
    }
}
