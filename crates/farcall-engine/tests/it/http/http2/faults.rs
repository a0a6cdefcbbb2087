//! Requests that an HTTP/2 upstream refuses, gives up, breaks off, or leaves without an answer.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::attempt::BytesSent::{self, Maybe, No, Refused};
use farcall_core::call::ErrorKind::{self, Connect, Protocol, Reset, TooLarge, Truncated};
use farcall_engine::execute::http::TransportSettings;

use super::peer::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, HTTP_1_1_REQUIRED, INTERNAL_ERROR, MAX_STREAMS,
    NO_ERROR, PUSH_PROMISE, Peer, Peers, REFUSED_STREAM, STATUS_103, STATUS_200, Seen, field, frame, goaway, head, ok,
    reset,
};
use super::{Authority, ended, execute, get, post, settings, start, transport};
use crate::http::{answer, failure};

type Expected = (ErrorKind, BytesSent, Option<u16>, Option<&'static [u8]>);

/// What comes of a request when the first connection plays this, and whether the next request is answered on it.
async fn check<F>(
    script: impl Fn(Peer) -> F + Send + Sync + 'static,
    (kind, bytes_sent, status, body): Expected,
    next_connection: usize,
) -> Peers
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let authority = Authority::new("ours");
    let script = std::sync::Arc::new(script);
    let upstream = Peers::start(&authority, &[], move |peer| {
        let script = std::sync::Arc::clone(&script);
        async move { if peer.number == 0 { script(peer).await } else { peer.serve("next").await } }
    })
    .await;
    let transport = transport(&settings(&authority));
    let report = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(kind), bytes_sent, status, body), "{:?}", report.message);
    let next = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(answer(&next), (200, b"next".as_slice()));
    let carried_by = upstream.arrivals().last().map(|&(connection, _)| connection);
    assert_eq!(carried_by, Some(next_connection), "{:?}", report.message);
    upstream
}

/// Sends these frames after the first request, made from the number of its stream, and then answers.
async fn check_frames(frames: fn(u32) -> Vec<u8>, expected: Expected, next_connection: usize) -> Peers {
    let script = move |mut peer: Peer| async move {
        let stream = peer.request().await?;
        peer.send(frames(stream)).await?;
        peer.serve("next").await
    };
    check(script, expected, next_connection).await
}

#[tokio::test]
async fn a_refused_stream_was_not_processed_and_its_connection_goes_on() {
    let upstream = check_frames(|stream| reset(stream, REFUSED_STREAM), (Reset, Refused, None, None), 0).await;
    assert_eq!(upstream.arrivals(), [(0, 1), (0, 3)], "nobody sent it again");
}

#[tokio::test]
async fn any_other_reset_leaves_open_what_became_of_the_request() {
    for code in [|stream| reset(stream, CANCEL), |stream| reset(stream, INTERNAL_ERROR), |stream| reset(stream, 99)] {
        check_frames(code, (Reset, Maybe, None, None), 0).await;
    }
}

#[tokio::test]
async fn who_began_to_answer_cannot_have_refused() {
    let frames = |stream| [head(stream), reset(stream, REFUSED_STREAM)].concat();
    check_frames(frames, (Truncated, Maybe, Some(200), Some(b"")), 0).await;
    let interim = |stream| [frame(HEADERS, END_HEADERS, stream, STATUS_103), reset(stream, REFUSED_STREAM)].concat();
    check_frames(interim, (Reset, Maybe, None, None), 0).await;
}

#[tokio::test]
async fn a_body_that_is_reset_is_truncated_and_its_beginning_is_kept() {
    for code in [NO_ERROR, CANCEL, INTERNAL_ERROR] {
        let script = move |mut peer: Peer| async move {
            let stream = peer.request().await?;
            peer.send([head(stream), frame(DATA, 0, stream, b"abc")].concat()).await?;
            peer.send(reset(stream, code)).await?;
            peer.serve("next").await
        };
        check(script, (Truncated, Maybe, Some(200), Some(b"abc")), 0).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_takes_what_is_on_it_along() {
    let before = |mut peer: Peer| async move { peer.request().await.map(drop) };
    check(before, (Reset, Maybe, None, None), 1).await;
    let within = |mut peer: Peer| async move {
        let stream = peer.request().await?;
        peer.send([head(stream), frame(DATA, 0, stream, b"abc")].concat()).await
    };
    check(within, (Truncated, Maybe, Some(200), Some(b"abc")), 1).await;
}

#[tokio::test]
async fn what_lies_behind_the_last_stream_of_a_goaway_was_not_processed() {
    for code in [NO_ERROR, INTERNAL_ERROR] {
        let script = move |mut peer: Peer| async move {
            peer.request().await?;
            peer.send(goaway(0, code)).await?;
            peer.linger().await
        };
        let upstream = check(script, (Reset, Refused, None, None), 1).await;
        upstream.until(|seen| seen.closed == 1).await;
        assert_eq!(upstream.arrivals(), [(0, 1), (1, 1)], "nobody sent it again");
    }
}

#[tokio::test]
async fn what_lies_before_it_is_answered_and_new_requests_go_elsewhere() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        if peer.number > 0 {
            return peer.serve("second").await;
        }
        let streams = [peer.request().await?, peer.request().await?];
        peer.send(goaway(streams[0].min(streams[1]), NO_ERROR)).await?;
        let mut seen = peer.seen.subscribe();
        let goes_elsewhere = |seen: &Seen| seen.arrivals.iter().any(|&(connection, _)| connection == 1);
        drop(seen.wait_for(goes_elsewhere).await.map_err(io::Error::other)?);
        peer.send(ok(1, "first")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let attempts = start(&transport, &upstream, 2);
    upstream.until(|seen| seen.arrivals.len() == 2).await;
    // Whichever of the two was refused, a third goes over a connection of its own while the other still waits.
    while !attempts.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    let third = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(answer(&third).1, b"second");
    let mut reports = ended(attempts).await;
    reports.sort_by_key(|report| report.result.status);
    assert_eq!(failure(&reports[0]), (Some(Reset), Refused, None, None));
    assert_eq!(answer(&reports[1]).1, b"first");
    upstream.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn an_answer_that_came_whole_counts_although_the_request_was_not_read() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request_head().await?;
        peer.send([ok(stream, "enough"), reset(stream, NO_ERROR)].concat()).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let report = execute(&transport, post(upstream.url("/"), Bytes::from(vec![0; 8 << 20]))).await;
    assert_eq!(answer(&report), (200, b"enough".as_slice()));
}

#[tokio::test]
async fn what_is_not_http2_is_a_protocol_error() {
    let late_headers = |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, STATUS_200);
    check_frames(late_headers, (Protocol, Maybe, None, None), 1).await;
    let garbage = |_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec();
    check_frames(garbage, (Protocol, Maybe, None, None), 1).await;
    let no_status = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &field("x-a", "b"));
    check_frames(no_status, (Protocol, Maybe, None, None), 0).await;
    let framed = |stream| {
        let block = [STATUS_200, &field("connection", "close")].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    check_frames(framed, (Protocol, Maybe, None, None), 0).await;
    let data_first = |stream| frame(DATA, END_STREAM, stream, b"hi");
    check_frames(data_first, (Protocol, Maybe, None, None), 1).await;
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_no_answer() {
    for body in [b"hi".as_slice(), b"hihihi"] {
        let script = move |mut peer: Peer| async move {
            let stream = peer.request().await?;
            let block = [STATUS_200, &field("content-length", "4")].concat();
            peer.send(frame(HEADERS, END_HEADERS, stream, &block)).await?;
            peer.send(frame(DATA, END_STREAM, stream, body)).await?;
            peer.serve("next").await
        };
        check(script, (Protocol, Maybe, Some(200), Some(b"")), 0).await;
    }
}

#[tokio::test]
async fn nothing_is_taken_that_was_pushed() {
    let push = |stream: u32| {
        let promised = [&(2u32).to_be_bytes()[..], &[0x82, 0x87, 0x84], &field(":authority", "127.0.0.1")].concat();
        frame(PUSH_PROMISE, END_HEADERS, stream, &promised)
    };
    check_frames(push, (Protocol, Maybe, None, None), 1).await;
}

#[tokio::test]
async fn a_side_that_does_not_answer_ping_is_given_up() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        peer.is_polite = false;
        peer.linger().await
    })
    .await;
    let transport = transport(&TransportSettings { keep_alive: Duration::from_millis(20), ..settings(&authority) });
    let report = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(Reset), Maybe, None, None));
    let message = report.message.expect("a failure has a message");
    assert!(message.contains("silent"), "{message}");
    upstream.until(|seen| seen.closed == 1 && seen.pings == 1).await;
}

#[tokio::test]
async fn a_side_that_answers_ping_may_take_its_time() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        while peer.seen.borrow().pings < 5 {
            peer.frame().await?;
        }
        peer.send(ok(stream, "late")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&TransportSettings { keep_alive: Duration::from_millis(20), ..settings(&authority) });
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"late");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn who_takes_no_requests_is_not_waited_for_longer_than_for_a_connection() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[(MAX_STREAMS, 0)], Peer::linger).await;
    let connect_timeout = Duration::from_millis(200);
    let transport = transport(&TransportSettings { connect_timeout, ..settings(&authority) });
    let report = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(Connect), No, None, None));
    upstream.until(|seen| seen.closed == 1).await;
    assert_eq!(upstream.arrivals(), []);
}

#[tokio::test]
async fn an_upstream_that_wants_http1_gets_it_from_the_next_attempt_on() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(reset(stream, HTTP_1_1_REQUIRED)).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let report = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(Protocol), Maybe, None, None));
    // This upstream takes nothing but HTTP/2, so the handshake shows what it was offered.
    let report = execute(&transport, post(upstream.url("/"), "order")).await;
    assert_eq!(failure(&report), (Some(ErrorKind::Tls), No, None, None));
    assert_eq!(upstream.arrivals(), [(0, 1)]);
}

#[tokio::test]
async fn heads_over_the_caps_are_too_large() {
    let many = |stream| {
        let fields = field("x-a", "b").repeat(101);
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200, &fields].concat())
    };
    check_frames(many, (TooLarge, Maybe, None, None), 0).await;
    let long = |stream| {
        let part = field("x-long", &"y".repeat(120)).repeat(90);
        let fields = [field("x-set", &"z".repeat(100)).repeat(9), part].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200, &fields].concat())
    };
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], move |mut peer| async move {
        loop {
            let stream = peer.request().await?;
            peer.send(long(stream)).await?;
        }
    })
    .await;
    let caps = |bytes| farcall_engine::config::HeaderCaps { bytes, fields: 100 };
    // 99 lines and the status line, as HTTP/1.1 would write them.
    let exact = 19 + 9 * (5 + 2 + 100 + 2) + 90 * (6 + 2 + 120 + 2);
    for (bytes, expected) in [(exact, None), (exact - 1, Some(TooLarge))] {
        let transport = transport(&TransportSettings { max_headers: caps(bytes), ..settings(&authority) });
        let report = execute(&transport, get(upstream.url("/"))).await;
        assert_eq!(report.result.error, expected, "{bytes}: {report:?}");
    }
}

#[tokio::test]
async fn a_head_far_over_the_caps_ends_its_connection() {
    let endless = |stream| {
        let mut frames = frame(HEADERS, 0, stream, STATUS_200);
        for _ in 0..2_000 {
            frames.extend(frame(CONTINUATION, 0, stream, &field("x-a", &"y".repeat(100))));
        }
        frames
    };
    check_frames(endless, (Protocol, Maybe, None, None), 1).await;
}
