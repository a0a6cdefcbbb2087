//! Everything an upstream can do wrong, and the name we give it.

use farcall_core::attempt::BytesSent;
use farcall_core::attempt::BytesSent::{Maybe, No};
use farcall_core::call::ErrorKind::{self, Connect, Decode, Dns, Invalid, Protocol, Reset, TooLarge, Truncated};
use farcall_engine::config::HeaderCaps;
use farcall_engine::execute::http::{Transport, TransportSettings};
use http::Method;
use tokio::net::TcpListener;

use super::answers::{br, gzip, with_head, zstd};
use super::{BODY_BYTES_MAX, answer, execute, failure, get, post, request, transport};
use crate::upstream::{Step, Upstream, ok};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked";

/// After the request, the upstream does `steps`; expected are kind, status and body. Bytes were sent in every case.
async fn check(steps: &[Step], expected: (ErrorKind, Option<u16>, Option<&[u8]>)) {
    let script = [&[Step::Request], steps].concat();
    let upstream = Upstream::always(script).await;
    let report = execute(&transport(), post(upstream.url("/"), "order")).await;
    let (kind, status, body) = expected;
    assert_eq!(failure(&report), (Some(kind), Maybe, status, body), "{steps:?}: {:?}", report.message);
    upstream.until(|seen| seen.closed == 1).await;
    assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 1), "nothing is ever sent twice");
}

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_connection_that_ends_before_the_head_is_a_reset() {
    check(&[], (Reset, None, None)).await;
    check(&[Step::Reset], (Reset, None, None)).await;
    check(&[send("HTTP/1.1 200 OK\r\ncontent-le")], (Reset, None, None)).await;
    check(&[send("HTTP/1.1 100 Continue\r\n\r\n")], (Reset, None, None)).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_truncated_and_its_beginning_is_kept() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    check(&[send(short)], (Truncated, Some(200), Some(b"abc"))).await;
    check(&[send(short), Step::Reset], (Truncated, Some(200), Some(b"abc"))).await;
    check(&[send("HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\n")], (Truncated, Some(500), Some(b""))).await;
    for cut in ["\r\n\r\n3\r\nabc\r\n", "\r\n\r\n5\r\nabc", "\r\n\r\n3\r\nabc\r\n0\r\n"] {
        check(&[send(CHUNKED), send(cut)], (Truncated, Some(200), Some(b"abc"))).await;
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    check(&[send("220 mail.example.com ESMTP\r\n")], (Protocol, None, None)).await;
    check(&[send("HTTP/2.0 200 OK\r\n\r\n")], (Protocol, None, None)).await;
    check(&[send("HTTP/1.1 2OO OK\r\n\r\n")], (Protocol, None, None)).await;
    check(&[Step::Send(vec![0, 0, 18, 4, 0, 0, 0, 0, 0])], (Protocol, None, None)).await;
    check(&[Step::SendForever(vec![0; 4096])], (Protocol, None, None)).await;
    check(&[send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc")], (Protocol, None, None))
        .await;
    check(&[send("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n")], (Protocol, None, None)).await;
    check(&[send(CHUNKED), send("\r\n\r\nxyz\r\n")], (Protocol, Some(200), Some(b""))).await;
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    check(&[send(switching)], (Protocol, Some(101), Some(b""))).await;
}

#[tokio::test]
async fn an_upstream_that_speaks_first_is_not_http() {
    let upstream = Upstream::always(vec![send("SSH-2.0-OpenSSH_9.2p1\r\n"), Step::AwaitClose]).await;
    let report = execute(&transport(), post(upstream.url("/"), "order")).await;
    assert_eq!(report.result.error, Some(Protocol), "{report:?}");
}

#[tokio::test]
async fn a_head_without_end_is_too_large() {
    let start = send("HTTP/1.1 200 OK\r\n");
    check(&[start.clone(), Step::SendForever(b"x-field: y\r\n".repeat(8))], (TooLarge, None, None)).await;
    check(&[start, send("x: "), Step::SendForever(vec![b'y'; 1 << 10])], (TooLarge, None, None)).await;
    let interim = b"HTTP/1.1 102 Processing\r\n\r\n".to_vec();
    check(&[Step::SendForever(interim)], (TooLarge, None, None)).await;
}

/// A head of exactly this many bytes and fields.
fn head(bytes: usize, fields: usize) -> Vec<u8> {
    let (first, last) = ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", "\r\n");
    let mut head = first.to_owned() + &"a:b\r\n".repeat(fields - 2) + "x:";
    let padding = bytes - head.len() - "\r\n".len() - last.len();
    head += &("y".repeat(padding) + "\r\n" + last);
    assert_eq!(head.len(), bytes);
    head.into_bytes()
}

#[tokio::test]
async fn the_caps_on_the_head_are_exact() {
    for caps in
        [HeaderCaps::default(), HeaderCaps { bytes: 1_000, fields: 10 }, HeaderCaps { bytes: 200_000, fields: 300 }]
    {
        let (bytes, fields) = (caps.bytes as usize, usize::from(caps.fields));
        let settings = TransportSettings { max_headers: caps, ..TransportSettings::default() };
        let transport = Transport::new(&settings).expect("no file is needed");
        for (bytes, fields, fits) in [(bytes, fields, true), (bytes + 1, fields, false), (bytes, fields + 1, false)] {
            let upstream = Upstream::always(vec![Step::Serve(head(bytes, fields))]).await;
            let error = execute(&transport, get(upstream.url("/"))).await.result.error;
            assert_eq!(error, (!fits).then_some(TooLarge), "{bytes} bytes, {fields} fields");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_maximum_is_too_large_and_the_connection_closed() {
    let first_part = vec![b'z'; BODY_BYTES_MAX as usize];
    let endless = Step::SendForever(vec![b'z'; 10_000]);
    check(&[send("HTTP/1.1 200 OK\r\n\r\n"), endless], (TooLarge, Some(200), Some(&first_part))).await;
    let chunk = [b"2710\r\n".as_slice(), &[b'z'; 10_000], b"\r\n"].concat();
    let endless = Step::SendForever(chunk);
    check(&[send(CHUNKED), send("\r\n\r\n"), endless], (TooLarge, Some(200), Some(&first_part))).await;
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    check(&[send(&announced), Step::AwaitClose], (TooLarge, Some(200), Some(b""))).await;
    check(
        &[send("HTTP/1.1 503 Busy\r\ncontent-length: 18446744073709551613\r\n\r\n"), Step::AwaitClose],
        (TooLarge, Some(503), Some(b"")),
    )
    .await;
}

#[tokio::test]
async fn a_body_of_exactly_the_maximum_is_complete() {
    let upstream = Upstream::always(vec![Step::Serve(ok(&"z".repeat(BODY_BYTES_MAX as usize)))]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(answer(&report).1.len() as u64, BODY_BYTES_MAX);
}

#[tokio::test]
async fn a_bomb_is_too_large_before_it_is_unpacked() {
    let plain = vec![b'z'; 32 << 20];
    for (coding, bomb) in [("gzip", gzip(&plain)), ("br", br(&plain)), ("zstd", zstd(&plain))] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}", bomb.len());
        let first_part = vec![b'z'; BODY_BYTES_MAX as usize];
        check(&[Step::Send(with_head(&head, &bomb)), Step::AwaitClose], (TooLarge, Some(200), Some(&first_part))).await;
    }
}

#[tokio::test]
async fn a_nested_bomb_is_not_unpacked_at_all() {
    let bomb = gzip(&gzip(&vec![b'z'; 32 << 20]));
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: {}", bomb.len());
    let upstream = Upstream::always(vec![Step::Serve(with_head(&head, &bomb))]).await;
    let report = execute(&transport(), get(upstream.url("/"))).await;
    assert_eq!(answer(&report), (200, bomb.as_slice()));
}

#[tokio::test]
async fn damaged_gzip_is_undecodable() {
    let coded = gzip(b"hello");
    let cut = &coded[..coded.len() - 4];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}", cut.len());
    check(&[Step::Send(with_head(&head, cut))], (Decode, Some(200), Some(b"hello"))).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-encoding: x-gzip\r\ncontent-length: 9";
    check(&[Step::Send(with_head(head, b"plaintext"))], (Decode, Some(200), Some(b""))).await;
}

#[tokio::test]
async fn gzip_that_breaks_off_with_its_connection_is_truncated() {
    let coded = gzip(b"hello");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}", coded.len());
    let cut = with_head(&head, &coded[..coded.len() - 4]);
    check(&[Step::Send(cut)], (Truncated, Some(200), Some(b"hello"))).await;
}

#[tokio::test]
async fn an_answer_that_comes_during_an_upload_counts_although_the_upload_breaks() {
    let refusal = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig".to_vec();
    for end in [vec![], vec![Step::Reset]] {
        let script = [vec![Step::RequestHead, Step::Send(refusal.clone())], end].concat();
        let upstream = Upstream::always(script).await;
        let report = execute(&transport(), post(upstream.url("/"), vec![0; 64 << 20])).await;
        assert_eq!(answer(&report), (413, b"big".as_slice()));
        assert_eq!(upstream.connections(), 1);
    }
}

/// What cannot even begin: nothing is sent, and there is no answer.
async fn check_unsent(transport: &Transport, method: Method, url: &str, kind: ErrorKind, named: &str) {
    let report = execute(transport, request(method, url.parse().expect("a URL"), "order")).await;
    assert_eq!(failure(&report), (Some(kind), No, None, None), "{url}");
    assert_eq!(report.first_byte_at, None);
    let message = report.message.expect("a failure has a message");
    assert!(message.contains(named), "{message:?} names {named:?}");
}

#[tokio::test]
async fn what_cannot_begin_sends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let address = listener.local_addr().expect("a bound socket has an address");
    drop(listener);
    let transport = transport();
    check_unsent(&transport, Method::POST, &format!("http://{address}/"), Connect, &address.to_string()).await;
    // A label of 64 letters cannot be a name, so no resolver is asked.
    let name = format!("{}.invalid", "a".repeat(64));
    check_unsent(&transport, Method::GET, &format!("http://{name}/"), Dns, &name).await;
    check_unsent(&transport, Method::GET, "ftp://127.0.0.1/", Invalid, "http").await;
    check_unsent(&transport, Method::CONNECT, "http://127.0.0.1/", Invalid, "CONNECT").await;
}

#[tokio::test]
async fn connecting_is_bounded_to_the_end_of_the_handshake() {
    let settings = TransportSettings { connect_timeout: std::time::Duration::from_millis(50), ..Default::default() };
    let transport = Transport::new(&settings).expect("no file is needed");
    let upstream = Upstream::always(vec![Step::AwaitClose]).await;
    let url = format!("https://127.0.0.1:{}/", upstream.port());
    let report = execute(&transport, get(url.parse().expect("a URL"))).await;
    let expected: (Option<ErrorKind>, BytesSent) = (Some(Connect), No);
    assert_eq!((report.result.error, report.result.bytes_sent), expected, "{report:?}");
    assert!(report.message.expect("a failure has a message").contains("within 50 ms"));
    upstream.until(|seen| seen.closed == 1).await;
}

/// The most memory this process has had resident, in KiB.
fn resident_kib_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells this too");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_bomb_takes_less_than_twice_the_maximum_of_memory() {
    for coding in ["gzip", "br", "zstd"] {
        super::in_own_process("http::faults::a_bomb_in_a_process_of_its_own", &[("CODING", coding)]);
    }
}

#[tokio::test]
#[ignore = "started by the test above, in a process whose memory is its own"]
async fn a_bomb_in_a_process_of_its_own() {
    const BODY_MIB_MAX: u64 = 32;
    // Members and frames may follow each other, so these unpack to 512 MiB; brotli has one stream only.
    let coding = std::env::var("CODING").expect("the test above says which");
    let bomb = match coding.as_str() {
        "gzip" => gzip(&vec![0; 8 << 20]).repeat(64),
        "br" => br(&vec![0; 48 << 20]),
        _ => zstd(&vec![0; 8 << 20]).repeat(64),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}", bomb.len());
    let upstream = Upstream::always(vec![Step::Request, Step::Send(with_head(&head, &bomb)), Step::AwaitClose]).await;
    let mut request = get(upstream.url("/"));
    request.max_response = BODY_MIB_MAX << 20;
    // What making the bomb took does not count.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux forgets the most memory there was");
    let before = resident_kib_max();
    let report = execute(&transport(), request).await;
    let grown = resident_kib_max() - before;
    assert_eq!((report.result.error, report.result.size), (Some(TooLarge), BODY_MIB_MAX << 20));
    assert!(grown < 2 * (BODY_MIB_MAX << 10), "{coding}: {grown} KiB for {BODY_MIB_MAX} MiB");
}
