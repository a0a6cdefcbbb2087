//! More frames than anybody needs, and answers that are too large.

use std::io;

use farcall_core::attempt::BytesSent::Maybe;
use farcall_core::call::ErrorKind::TooLarge;
use http::Method;

use super::peer::{
    CANCEL, DATA, END_HEADERS, HEADERS, PING, Peer, Peers, SETTINGS, STATUS_103, STATUS_200, WINDOW_UPDATE, field,
    frame, head, ok,
};
use super::{Authority, execute, get, settings, transport};
use crate::http::{BODY_BYTES_MAX, answer, failure, request};

/// After such a flood of frames that carry nothing, or within one, an answer is an answer.
async fn check_survived(flood: fn() -> Vec<u8>) {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], move |mut peer| async move {
        let stream = peer.request().await?;
        // The other side has to answer, and is listened to.
        for _ in 0..20 {
            peer.send(flood()).await?;
        }
        peer.send(ok(stream, "hi")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"hi");
}

#[tokio::test]
async fn floods_of_pings_settings_and_windows_hold_nobody_up() {
    check_survived(|| frame(PING, 0, 0, &[7; 8]).repeat(100)).await;
    check_survived(|| frame(SETTINGS, 0, 0, &[]).repeat(100)).await;
    check_survived(|| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(100)).await;
}

#[tokio::test]
async fn interim_answers_without_end_are_too_large() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        if stream > 1 {
            peer.send(frame(HEADERS, END_HEADERS, stream, STATUS_103).repeat(100)).await?;
            peer.send(ok(stream, "at last")).await?;
        }
        while peer.seen.borrow().resets.is_empty() {
            peer.send(frame(HEADERS, END_HEADERS, stream, STATUS_103).repeat(60)).await?;
            read_what_is_there(&mut peer).await?;
        }
        let stream = peer.request().await?;
        peer.send(frame(HEADERS, END_HEADERS, stream, STATUS_103).repeat(100)).await?;
        peer.send(ok(stream, "at last")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let report = execute(&transport, get(upstream.url("/"))).await;
    assert_eq!(failure(&report), (Some(TooLarge), Maybe, None, None));
    upstream.until(|seen| seen.resets == [(0, 1, CANCEL)]).await;
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"at last", "a hundred are allowed");
    assert_eq!(upstream.connections(), 1);
}

async fn read_what_is_there(peer: &mut Peer) -> io::Result<()> {
    match tokio::time::timeout(std::time::Duration::from_millis(1), peer.frame()).await {
        Ok(read) => read.map(drop),
        Err(_nothing) => Ok(()),
    }
}

#[tokio::test]
async fn a_body_over_the_maximum_is_too_large_and_its_stream_reset() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(head(stream)).await?;
        for _ in 0..10 {
            peer.send(frame(DATA, 0, stream, &[b'x'; 16_000])).await?;
        }
        let announced = peer.request().await?;
        let block = [STATUS_200, &field("content-length", "100001")].concat();
        peer.send(frame(HEADERS, END_HEADERS, announced, &block)).await?;
        let unread = peer.request().await?;
        peer.send(frame(HEADERS, END_HEADERS | 1, unread, &block)).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let report = execute(&transport, get(upstream.url("/"))).await;
    assert_eq!((report.result.error, report.result.bytes_sent), (Some(TooLarge), Maybe));
    assert_eq!(report.result.size, BODY_BYTES_MAX);
    upstream.until(|seen| seen.resets == [(0, 1, CANCEL)]).await;
    let report = execute(&transport, get(upstream.url("/"))).await;
    assert_eq!(failure(&report), (Some(TooLarge), Maybe, Some(200), Some(b"".as_slice())));
    let report = execute(&transport, request(Method::HEAD, upstream.url("/"), "")).await;
    assert_eq!(answer(&report).0, 200, "an answer to HEAD has no body, however long it says it would be");
    assert_eq!(upstream.connections(), 1);
}
