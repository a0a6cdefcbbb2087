//! Every coding whole, cut, damaged, nested, and larger than allowed.

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

fn br(plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let params = brotli::enc::BrotliEncoderParams::default();
    brotli::BrotliCompress(&mut &plain[..], &mut coded, &params).expect("writing to memory succeeds");
    coded
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 19).expect("writing to memory succeeds")
}

/// A way to code, under its name.
type Coding = (&'static str, fn(&[u8]) -> Vec<u8>);

const CODED: [Coding; 3] = [("gzip", gzip), ("br", br), ("zstd", zstd)];

#[tokio::test]
async fn every_coding_that_we_accept_is_removed_in_any_pieces() {
    assert_eq!(CODED.map(|(name, _)| name).join(", "), CODINGS);
    let plain: Vec<u8> = (0..200u8).collect();
    for (name, encode) in CODED {
        let coded = encode(&plain);
        check(name, &[&coded], Ok(&plain)).await;
        check(&name.to_uppercase(), &[&coded[..3], &coded[3..7], &coded[7..]], Ok(&plain)).await;
        check(name, &coded.chunks(1).collect::<Vec<_>>(), Ok(&plain)).await;
        check(name, &[], Ok(b"")).await;
        check(name, &[&encode(b"")], Ok(b"")).await;
    }
}

#[tokio::test]
async fn what_is_damaged_cut_off_or_followed_by_something_is_undecodable() {
    let plain: Vec<u8> = (0..200u8).collect();
    for (name, encode) in CODED {
        let coded = encode(&plain);
        for cut in 1..coded.len() {
            let (end, body, _) = collect(name, &[&coded[..cut]], 1_000).await;
            assert_eq!(end, Err(ErrorKind::Decode), "{name} cut off after {cut} of {}", coded.len());
            assert!(plain.starts_with(&body));
        }
        check(name, &[&coded, b"garbage behind it"], Err(ErrorKind::Decode)).await;
        check(name, &[b"{\"not\": \"coded\"} {\"not\": \"coded\"}"], Err(ErrorKind::Decode)).await;
    }
}

#[tokio::test]
async fn a_window_of_zstd_over_8_mib_is_refused() {
    let coded = |window_log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(window_log).and_then(|()| encoder.write_all(b"hello")).expect("a known parameter");
        encoder.finish().expect("writing to memory succeeds")
    };
    check("zstd", &[&coded(23)], Ok(b"hello")).await;
    check("zstd", &[&coded(24)], Err(ErrorKind::Decode)).await;
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
    for coding in ["identity", "gzip, gzip", "gzip, br", "br, zstd", "deflate", "compress", "aws-chunked", ""] {
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
    for (coding, coded) in [
        ("gzip", gzip(&[b'a'; 50_000])),
        ("br", br(&[b'a'; 50_000])),
        ("zstd", zstd(&[b'a'; 50_000])),
        ("identity", vec![b'a'; 50_000]),
    ] {
        let (end, body, _) = collect(coding, &[&coded], 50_000).await;
        assert_eq!((end, body.len()), (Ok(()), 50_000), "{coding}");
        let (end, body, _) = collect(coding, &[&coded], 49_999).await;
        assert_eq!((end, body.len()), (Err(ErrorKind::TooLarge), 49_999), "{coding}");
    }
}

#[tokio::test]
async fn a_bomb_takes_no_more_memory_than_the_cap_allows() {
    for (name, encode) in CODED {
        let bomb = encode(&vec![0; 8 << 20]);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, name.parse().expect("a header value"));
        let mut collector = Collector::new(&headers, 100_000);
        let failure = collector.push(&bomb).await.expect_err("80 times too large");
        assert_eq!(failure.kind, ErrorKind::TooLarge, "{name}");
        assert!(collector.capped().bytes.capacity() <= 200_000, "{name}");
    }
}

#[tokio::test]
async fn what_was_decoded_before_a_break_is_kept() {
    let plain: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    for (name, encode) in CODED {
        let coded = encode(&plain);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, name.parse().expect("a header value"));
        let mut collector = Collector::new(&headers, u64::MAX);
        collector.push(&coded[..coded.len() / 2]).await.expect("a good first half");
        let body = collector.into_body();
        assert!(body.len() > plain.len() / 10 && plain.starts_with(&body), "{name}: {} bytes", body.len());
    }
}
