//! Connections that many attempts share: how many there are, who may close them, and whom that concerns.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::attempt::BytesSent::{Maybe, No};
use farcall_core::call::ErrorKind::{Connect, Reset};
use farcall_engine::execute::Report;
use farcall_engine::execute::http::{Room, RoomSize, Transport, TransportSettings};
use tokio_util::sync::CancellationToken;

use super::peer::{CANCEL, INITIAL_WINDOW, MAX_STREAMS, Peer, Peers, WINDOW_UPDATE, frame, ok};
use super::{Authority, ended, execute, get, post, settings, start, transport};
use crate::http::{answer, failure};
use crate::upstream::{Step, Upstream, bounded};

/// Collects so many requests before it answers the first.
async fn answer_all(mut peer: Peer, count: usize) -> io::Result<()> {
    let mut streams = Vec::new();
    while streams.len() < count {
        streams.push(peer.request().await?);
    }
    for stream in streams {
        peer.send(ok(stream, "hi")).await?;
    }
    peer.serve("later").await
}

#[tokio::test]
async fn attempts_at_once_share_a_connection_from_the_first_on() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |peer| answer_all(peer, 100)).await;
    let transport = transport(&settings(&authority));
    for report in ended(start(&transport, &upstream, 100)).await {
        assert_eq!(answer(&report), (200, b"hi".as_slice()));
    }
    for _ in 0..50 {
        assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"later");
    }
    assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 150));
}

#[tokio::test]
async fn more_than_one_connection_carries_get_another() {
    let authority = Authority::new("ours");
    for (allowed, own, expected) in
        [(&[(MAX_STREAMS, 1)], 100, 6), (&[(MAX_STREAMS, 4)], 100, 2), (&[(MAX_STREAMS, 100)], 3, 2)]
    {
        // Answers come only when all requests are there.
        let upstream = Peers::start(&authority, allowed, |mut peer| async move {
            loop {
                let stream = peer.request().await?;
                let mut seen = peer.seen.subscribe();
                let mut streams = vec![stream];
                loop {
                    tokio::select! {
                        all = seen.wait_for(|seen| seen.arrivals.len() >= 6) => {
                            drop(all.map_err(io::Error::other)?);
                            break;
                        }
                        stream = peer.request() => streams.push(stream?),
                    }
                }
                for stream in streams {
                    peer.send(ok(stream, "hi")).await?;
                }
            }
        })
        .await;
        let transport = transport(&TransportSettings { streams_max: own, ..settings(&authority) });
        for report in ended(start(&transport, &upstream, 6)).await {
            assert_eq!(answer(&report).1, b"hi");
        }
        assert_eq!((upstream.connections(), upstream.arrivals().len()), (expected, 6), "{allowed:?}");
        // Idle ones are used again.
        for report in ended(start(&transport, &upstream, 6)).await {
            assert_eq!(answer(&report).1, b"hi");
        }
        assert_eq!((upstream.connections(), upstream.arrivals().len()), (expected, 12), "{allowed:?}");
    }
}

#[tokio::test]
async fn upstreams_share_the_room_for_idle_connections() {
    let authority = Authority::new("ours");
    let room = Room::new(RoomSize { idle: 8, prompt: 8, shared: 1 });
    let with_room = || transport(&TransportSettings { room: room.clone(), ..settings(&authority) });
    let (one, two) = (with_room(), with_room());
    let first = Peers::start(&authority, &[], |peer| async move { peer.serve("hi").await }).await;
    let second = Peers::start(&authority, &[], |peer| async move { peer.serve("hi").await }).await;
    for _ in 0..3 {
        for (transport, upstream) in [(&one, &first), (&two, &second)] {
            assert_eq!(answer(&execute(transport, get(upstream.url("/"))).await).1, b"hi");
        }
    }
    assert_eq!((first.connections(), second.connections()), (1, 3), "the first had the room");
    // What is in use needs none.
    let reports = ended(start(&two, &second, 20)).await;
    assert!(reports.iter().all(|report| answer(report).1 == b"hi"));
    drop(one);
    let before = second.connections();
    for _ in 0..3 {
        assert_eq!(answer(&execute(&two, get(second.url("/"))).await).1, b"hi");
    }
    assert!(second.connections() <= before + 1, "and has given it back");
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_fails_all_that_waited_for_it() {
    let silent = Upstream::always(vec![Step::AwaitClose]).await;
    let authority = Authority::new("ours");
    let connect_timeout = Duration::from_millis(300);
    let transport = transport(&TransportSettings { connect_timeout, ..settings(&authority) });
    let url: url::Url = format!("https://127.0.0.1:{}/", silent.port()).parse().expect("a URL");
    let attempt = |_| {
        let (transport, url) = (Arc::clone(&transport), url.clone());
        tokio::spawn(async move { execute(&transport, get(url)).await })
    };
    for report in ended((0..20).map(attempt).collect()).await {
        assert_eq!(failure(&report), (Some(Connect), No, None, None));
    }
    assert_eq!(silent.connections(), 1);
}

#[tokio::test]
async fn whoever_waited_goes_on_when_the_one_that_opens_is_given_up() {
    let authority = Authority::new("ours");
    let silent = Upstream::start(|number| if number == 0 { vec![Step::AwaitClose] } else { vec![] }).await;
    let transport = transport(&settings(&authority));
    let url: url::Url = format!("https://127.0.0.1:{}/", silent.port()).parse().expect("a URL");
    let abort = CancellationToken::new();
    let first = transport.execute(get(url.clone()), None, abort.clone());
    let second = async {
        silent.until(|seen| seen.connections == 1).await;
        let second = transport.execute(get(url.clone()), None, CancellationToken::new());
        let give_up = async {
            tokio::task::yield_now().await;
            abort.cancel();
        };
        tokio::join!(second, give_up).0
    };
    let (first, second) = bounded(Box::pin(async { tokio::join!(first, second) })).await;
    assert!(first.aborted && first.result.bytes_sent == No, "{first:?}");
    assert_eq!(failure(&second), (Some(farcall_core::call::ErrorKind::Tls), No, None, None));
    assert_eq!(silent.connections(), 2);
}

/// Answers the second request only, once the first was reset.
async fn answer_the_second(mut peer: Peer) -> io::Result<()> {
    let streams = [peer.request().await?, peer.request().await?];
    while peer.seen.borrow().resets.is_empty() {
        peer.frame().await?;
    }
    let reset = peer.seen.borrow().resets[0].1;
    let other = if streams[0] == reset { streams[1] } else { streams[0] };
    peer.send(ok(other, "hi")).await?;
    peer.serve("later").await
}

#[tokio::test]
async fn giving_one_attempt_up_resets_its_stream_and_no_other() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], answer_the_second).await;
    let transport = transport(&settings(&authority));
    let abort = CancellationToken::new();
    let first = transport.execute(post(upstream.url("/"), "order"), None, abort.clone());
    let second = transport.execute(post(upstream.url("/"), "order"), None, CancellationToken::new());
    let give_up = async {
        upstream.until(|seen| seen.arrivals.len() == 2).await;
        abort.cancel();
    };
    let (first, second, ()) = bounded(Box::pin(async { tokio::join!(first, second, give_up) })).await;
    assert_eq!((first.aborted, first.result.error, first.result.bytes_sent), (true, None, Maybe));
    assert_eq!(answer(&second).1, b"hi");
    upstream.until(|seen| seen.resets.len() == 1 && seen.resets[0].2 == CANCEL).await;
}

/// Makes an attempt and gives it up once so many requests have arrived.
async fn give_up(transport: &Transport, upstream: &Peers, arrivals: usize) -> Report {
    let abort = CancellationToken::new();
    let attempt = transport.execute(post(upstream.url("/"), "order"), None, abort.clone());
    let give_up = async {
        upstream.until(|seen| seen.arrivals.len() == arrivals).await;
        abort.cancel();
    };
    bounded(Box::pin(async { tokio::join!(attempt, give_up) })).await.0
}

#[tokio::test]
async fn giving_up_what_was_never_heard_of_closes_the_connection() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(ok(stream, "first")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"first");
    let report = give_up(&transport, &upstream, 2).await;
    assert_eq!((report.aborted, report.result.error, report.result.bytes_sent), (true, None, Maybe));
    upstream.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_connection_that_others_wait_on_stays_theirs() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(ok(stream, "first")).await?;
        if peer.number > 0 {
            return peer.serve("elsewhere").await;
        }
        let waits = peer.request().await?;
        // Given up, and never heard of; then what comes elsewhere.
        peer.request().await?;
        while peer.seen.borrow().resets.is_empty() {
            peer.frame().await?;
        }
        let mut seen = peer.seen.subscribe();
        drop(seen.wait_for(|seen| seen.connections == 2).await.map_err(io::Error::other)?);
        peer.send(ok(waits, "waited for")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"first");
    let waits = start(&transport, &upstream, 1);
    upstream.until(|seen| seen.arrivals.len() == 2).await;
    assert!(give_up(&transport, &upstream, 3).await.aborted);
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"first", "over a new connection");
    assert_eq!(answer(&ended(waits).await[0]).1, b"waited for");
    assert_eq!(upstream.arrivals(), [(0, 1), (0, 3), (0, 5), (1, 1)]);
    upstream.until(|seen| seen.resets == [(0, 5, CANCEL)]).await;
}

/// An upstream that stops to read in the middle of an upload, while another request waits to go out behind it.
#[tokio::test]
async fn a_request_that_was_given_up_does_not_go_out_when_the_way_is_free_again() {
    let authority = Authority::new("ours");
    const LARGEST: &[(u16, u32)] = &[(INITIAL_WINDOW, (1 << 31) - 1)];
    let upstream = Peers::start(&authority, LARGEST, |mut peer| async move {
        if peer.number > 0 {
            return peer.serve("later").await;
        }
        peer.send(frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes())).await?;
        peer.request_head().await?;
        peer.seen.send_modify(|seen| seen.pings = 1);
        let mut seen = peer.seen.subscribe();
        drop(seen.wait_for(|seen| seen.pings == 2).await.map_err(io::Error::other)?);
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let upload = {
        let (transport, request) = (Arc::clone(&transport), post(upstream.url("/"), vec![0; 64 << 20]));
        tokio::spawn(async move { execute(&transport, request).await })
    };
    upstream.until(|seen| seen.pings == 1).await;
    let abort = CancellationToken::new();
    let attempt = transport.execute(post(upstream.url("/"), "order"), None, abort.clone());
    // Long enough to be handed over, which nobody can see, and then too late to go out.
    let give_up = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        abort.cancel();
    };
    let (report, ()) = bounded(Box::pin(async { tokio::join!(attempt, give_up) })).await;
    assert_eq!((report.aborted, report.result.bytes_sent), (true, Maybe), "it might still have gone out");
    tokio::time::sleep(Duration::from_millis(150)).await;
    upstream.seen.send_modify(|seen| seen.pings = 2);
    upstream.until(|seen| seen.closed == 1).await;
    let report = upload.await.expect("an attempt does not panic");
    assert_eq!(failure(&report), (Some(Reset), Maybe, None, None));
    assert_eq!(upstream.arrivals(), [], "neither is whole, and of the second there is nothing");
    assert_eq!(upstream.heads(), [(0, 1)]);
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"later");
}

#[tokio::test]
async fn dropping_an_attempt_resets_its_stream() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], answer_the_second).await;
    let transport = transport(&settings(&authority));
    let second = start(&transport, &upstream, 1);
    upstream.until(|seen| seen.arrivals.len() == 1).await;
    {
        let attempt = transport.execute(get(upstream.url("/")), None, CancellationToken::new());
        tokio::select! {
            report = attempt => panic!("nobody answers: {report:?}"),
            () = upstream.until(|seen| seen.arrivals.len() == 2) => {}
        }
    }
    assert_eq!(answer(&ended(second).await[0]).1, b"hi");
    upstream.until(|seen| seen.resets == [(0, 3, CANCEL)]).await;
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_and_the_request_sent_once() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(ok(stream, "hi")).await
    })
    .await;
    let transport = transport(&settings(&authority));
    for number in 1..=20 {
        let report = execute(&transport, post(upstream.url("/"), "order")).await;
        assert_eq!(answer(&report), (200, b"hi".as_slice()));
        upstream.until(|seen| seen.closed == number).await;
    }
    assert_eq!(upstream.arrivals(), (0..20).map(|connection| (connection, 1)).collect::<Vec<_>>());
}

/// One runtime thread, blocked while the other side closes, so that the runtime cannot have heard of it.
#[tokio::test]
async fn what_the_runtime_has_not_heard_of_is_seen_before_anything_is_written() {
    let authority = Arc::new(Authority::new("ours"));
    let (ready, is_ready) = std::sync::mpsc::channel();
    let theirs = Arc::clone(&authority);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let upstream = Peers::start(&theirs, &[], |mut peer| async move {
                let stream = peer.request().await?;
                peer.send(ok(stream, "hi")).await?;
                let mut seen = peer.seen.subscribe();
                drop(seen.wait_for(|seen| seen.pings > 0).await.map_err(io::Error::other)?);
                Ok(())
            })
            .await;
            ready.send(upstream).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    let upstream = is_ready.recv().expect("the upstream starts");
    let transport = transport(&settings(&authority));
    assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "order")).await).1, b"hi");
    upstream.seen.send_modify(|seen| seen.pings = 1);
    while upstream.seen.borrow().closed == 0 {
        std::thread::yield_now();
    }
    assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "order")).await).1, b"hi");
    assert_eq!(upstream.arrivals(), [(0, 1), (1, 1)]);
}

#[tokio::test]
async fn an_upstream_that_closes_at_random_never_gets_a_request_twice() {
    let authority = Authority::new("ours");
    // It closes right behind its answer, so that close and next request race.
    let upstream = Peers::start(&authority, &[], |mut peer| async move {
        let stream = peer.request().await?;
        peer.send(ok(stream, "hi")).await
    })
    .await;
    let transport = transport(&settings(&authority));
    let mut answered = 0;
    for _ in 0..200 {
        let report = execute(&transport, post(upstream.url("/"), "order")).await;
        answered += usize::from(report.result.error.is_none());
        assert!(matches!((report.result.error, report.result.bytes_sent), (None | Some(Reset), Maybe)), "{report:?}");
    }
    assert_eq!(upstream.arrivals().len(), answered, "those that arrived were answered, and no other arrived");
}

#[tokio::test]
async fn old_connections_are_closed_when_pruned() {
    let authority = Authority::new("ours");
    let upstream = Peers::start(&authority, &[], |peer| peer.serve("hi")).await;
    let idle_now = [
        TransportSettings { idle_timeout: Duration::ZERO, ..settings(&authority) },
        TransportSettings { idle_max: 0, ..settings(&authority) },
    ];
    for (round, settings) in idle_now.iter().enumerate() {
        let transport = Transport::new(settings).expect("a good authority file");
        for calls in 1..=3 {
            assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"hi");
            upstream.until(|seen| seen.closed == 3 * round + calls - 1).await;
        }
        transport.prune();
        upstream.until(|seen| seen.closed == 3 * (round + 1)).await;
    }
}
