//! Answers that come in pieces: passed on as they come, whole or visibly not.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rig::{Gateway, Outcome, Peer};
use crate::rig::{pause, until};

/// Larger than all buffers on the way together, and than what the server may hold.
const LARGE: usize = 256 << 20;
const PIECE: usize = 64 << 10;

#[test]
fn events_come_one_by_one_as_they_are_sent() -> Outcome {
    let go_on = Arc::new(AtomicU64::new(0));
    let allowed = Arc::clone(&go_on);
    let peer = Peer::start(move |arrived| {
        arrived.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for number in 0..3 {
            while allowed.load(Ordering::SeqCst) <= number {
                pause(Duration::from_millis(1));
            }
            arrived.write(format!("9\r\ndata: {number}\n\n\r\n"))?;
        }
        arrived.until_left()
    })?;
    let gateway = Gateway::before(&peer)?;
    let mut client = gateway.connect()?;
    client.send("GET /proxy/api/events HTTP/1.1\nhost: localhost\n\n")?;
    // The head is there before there is any event.
    let head = client.head()?;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for number in 0..3 {
        go_on.fetch_add(1, Ordering::SeqCst);
        assert_eq!(client.chunk()?, Some(format!("data: {number}\n\n").into_bytes()));
    }
    // Nothing more is sent on it; that its client leaves is noticed all the same.
    client.hang_up();
    until("the upstream to be left", || (peer.closed() == 1).then_some(()));
    Ok(())
}

#[test]
fn a_large_download_goes_through_little_memory() -> Outcome {
    let peer = Peer::start(|arrived| {
        arrived.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"))?;
        let piece = vec![b'x'; PIECE];
        (0..LARGE / PIECE).try_for_each(|_| arrived.write(&piece))
    })?;
    let gateway = Gateway::before(&peer)?;
    let before = gateway.program.private_kib();
    let mut client = gateway.connect()?;
    client.send("GET /proxy/api/large HTTP/1.1\nhost: localhost\n\n")?;
    assert_eq!(client.head()?.header("content-length"), Some(LARGE.to_string().as_str()));
    // A client that takes its time is waited for, and nothing is heaped up meanwhile.
    pause(Duration::from_millis(500));
    let (mut got, mut most, mut buffer) = (client.buffered(), 0, vec![0; PIECE]);
    while got < LARGE {
        got += client.stream.read(&mut buffer)?;
        most = most.max(gateway.program.private_kib());
    }
    assert!(most < before + (16 << 10), "{before} KiB before, {most} KiB meanwhile");
    Ok(())
}

#[test]
fn what_the_upstream_breaks_off_is_broken_off_here() -> Outcome {
    let peer = Peer::start(|arrived| {
        arrived.write(match arrived.target() {
            "/base/length" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome",
            "/base/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
            _ => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\nno length\r\n",
        })?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    })?;
    let gateway = Gateway::before(&peer)?;
    for path in ["length", "chunked", "garbage"] {
        let mut client = gateway.connect()?;
        client.send(&format!("GET /proxy/api/{path} HTTP/1.1\nhost: localhost\n\n"))?;
        let head = client.head().map_err(|error| format!("{path}: {error}"))?;
        assert_eq!(head.status, 200, "{path}");
        let (rest, _) = client.rest();
        assert!(rest.windows(4).any(|four| four == b"some") && !rest.ends_with(b"0\r\n\r\n"), "{path}: {rest:?}");
    }
    // Who reads to the end, as HTTP/1.0 does, must not take what came for all there is.
    let mut old = gateway.connect()?;
    old.send("GET /proxy/api/chunked HTTP/1.0\nhost: localhost\n\n")?;
    let (_, ended_in_order) = old.rest();
    assert!(!ended_in_order);
    Ok(())
}

#[test]
fn a_body_without_a_length_comes_through_with_its_trailers() -> Outcome {
    let peer = Peer::start(|arrived| match arrived.target() {
        "/base/closed" => {
            arrived.write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end")?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        _ => arrived.write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nsome\r\n0\r\nx-sum: 7\r\n\r\n",
        ),
    })?;
    let gateway = Gateway::before(&peer)?;
    assert_eq!(gateway.get("/proxy/api/closed")?.text(), "to the end");
    let mut client = gateway.connect()?;
    client.send("GET /proxy/api/trailers HTTP/1.1\nhost: localhost\nte: trailers\nconnection: te, close\n\n")?;
    assert_eq!(client.head()?.header("trailer"), Some("x-sum"));
    let (rest, ended) = client.rest();
    assert!(ended && rest.ends_with(b"0\r\nx-sum: 7\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    Ok(())
}

#[test]
fn who_leaves_in_the_middle_of_a_body_ends_it_at_the_upstream() -> Outcome {
    let peer = Peer::start(|arrived| {
        arrived.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n")?;
        arrived.until_left()
    })?;
    let gateway = Gateway::before(&peer)?;
    let mut client = gateway.connect()?;
    client.send("GET /proxy/api/x HTTP/1.1\nhost: localhost\n\n")?;
    client.head()?;
    assert_eq!(client.chunk()?.as_deref(), Some(&b"some"[..]));
    client.hang_up();
    until("the upstream to be left", || (peer.closed() == 1).then_some(()));
    Ok(())
}
