//! The answer's body as it comes in: gzip, br or zstd removed, never more than allowed.
//!
//! The cap counts decoded bytes and holds while they are produced, so a small body that unpacks to a huge one costs
//! no more memory than any other. One coding is removed, and only one that we know; anything else stays as it is.

use std::fmt;
use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use bytes::Bytes;
use farcall_core::call::ErrorKind;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::raw::{DParameter, Decoder as Unpacker};
use zstd::stream::zio;

use super::classify::Failure;

/// What can be removed, as `accept-encoding` lists it.
pub(super) const CODINGS: &str = "gzip, br, zstd";
/// Coded bytes unpacked between two chances for other tasks to run; gzip makes at most 1,032 bytes of one.
const SLICE_BYTES: usize = 4 << 10;
/// Unpacked bytes handed on at once.
const BUFFER_BYTES: usize = 32 << 10;
/// The largest window of zstd, as a power of two: 8 MiB (RFC 9659), which every decoder must be able to hold.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A body being collected.
#[derive(Debug)]
pub(super) enum Collector {
    AsIs(Capped),
    Coded { decoder: Decoder, received: bool },
}

/// What removes a coding.
pub(super) enum Decoder {
    Gzip(Box<MultiGzDecoder<Capped>>),
    Br(Box<DecompressorWriter<Capped>>),
    Zstd(Box<zio::Writer<Capped, Unpacker<'static>>>),
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
        match Decoder::new(headers, Capped::new(bytes_max)) {
            Ok(decoder) => Self::Coded { decoder, received: false },
            Err(capped) => Self::AsIs(capped),
        }
    }

    /// Whatever its headers say.
    pub(super) fn as_it_is(bytes_max: u64) -> Self {
        Self::AsIs(Capped::new(bytes_max))
    }

    /// Takes what came.
    ///
    /// # Errors
    /// `too_large` when the body outgrows its maximum, `decode` when it is not what it says it is.
    pub(super) async fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let taken = match self {
            Self::AsIs(capped) => capped.write_all(piece),
            Self::Coded { decoder, received } => {
                *received = true;
                unpack(decoder.writer(), piece).await
            }
        };
        taken.map_err(|error| self.failure(&error))
    }

    /// The body has ended.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let finished = match self {
            Self::Coded { decoder, received: true } => decoder.finish(),
            // Servers label empty bodies as coded too.
            Self::Coded { received: false, .. } | Self::AsIs(_) => Ok(()),
        };
        finished.map_err(|error| self.failure(&error))
    }

    /// What was collected, complete or not.
    pub(super) fn into_body(mut self) -> Bytes {
        // Of a body that broke off, brings out what was decoded and still stands in the decoder's buffer.
        let _incomplete = self.finish();
        let capped = self.capped();
        // Some decoders go on when they are dropped.
        capped.bytes_max = 0;
        Bytes::from(std::mem::take(&mut capped.bytes))
    }

    /// Whether a coding was removed.
    pub(super) fn has_decoded(&self) -> bool {
        matches!(self, Self::Coded { received: true, .. })
    }

    /// Whether a body of this coded length is too large for certain.
    pub(super) fn refuses(&self, coded_bytes: u64) -> bool {
        match self {
            Self::AsIs(capped) => coded_bytes > capped.bytes_max as u64,
            Self::Coded { .. } => false,
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
        let name = match self {
            Self::Coded { decoder, .. } => decoder.name(),
            // Its only failure is to overflow.
            Self::AsIs(_) => "body",
        };
        Failure::new(ErrorKind::Decode, format!("the answer's body is no {name}: {error}"))
    }

    fn capped(&mut self) -> &mut Capped {
        match self {
            Self::AsIs(capped) => capped,
            Self::Coded { decoder, .. } => decoder.capped(),
        }
    }
}

impl Decoder {
    /// For the only coding of a body; gives the bytes' place back when there is none that we know, or more than one.
    fn new(headers: &HeaderMap, capped: Capped) -> Result<Self, Capped> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(coding), None) = (codings.next(), codings.next()) else { return Err(capped) };
        let coding = coding.as_bytes().trim_ascii();
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(capped))));
        }
        if coding.eq_ignore_ascii_case(b"br") {
            return Ok(Self::Br(Box::new(DecompressorWriter::new(capped, BUFFER_BYTES))));
        }
        if coding.eq_ignore_ascii_case(b"zstd") {
            // Fails only for want of memory; then the body stays as it is.
            let Ok(unpacker) = zstd_unpacker() else { return Err(capped) };
            return Ok(Self::Zstd(Box::new(zio::Writer::new_with_capacity(capped, unpacker, BUFFER_BYTES))));
        }
        Err(capped)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Gzip(_) => "gzip",
            Self::Br(_) => "brotli",
            Self::Zstd(_) => "zstd",
        }
    }

    fn writer(&mut self) -> &mut (dyn Write + Send) {
        match self {
            Self::Gzip(decoder) => decoder,
            Self::Br(decoder) => decoder,
            Self::Zstd(decoder) => decoder,
        }
    }

    /// Fails when the coded body is not complete.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Br(decoder) => decoder.close(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }

    fn capped(&mut self) -> &mut Capped {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Br(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.writer_mut(),
        }
    }
}

fn zstd_unpacker() -> io::Result<Unpacker<'static>> {
    let mut unpacker = Unpacker::new()?;
    unpacker.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
    Ok(unpacker)
}

async fn unpack(decoder: &mut (dyn Write + Send), piece: &[u8]) -> io::Result<()> {
    for slice in piece.chunks(SLICE_BYTES) {
        decoder.write_all(slice)?;
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Capped {
    fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { bytes: Vec::new(), bytes_max, overflowed: false }
    }
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
mod tests;
