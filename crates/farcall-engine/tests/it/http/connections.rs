//! Connections: reused, replaced when that is harmless, closed when an attempt is given up, never used to send twice.

use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use farcall_core::attempt::BytesSent::{self, Maybe, No};
use farcall_core::call::ErrorKind::{self, Reset};
use farcall_engine::execute::http::{Room, RoomSize, Transport, TransportSettings};
use farcall_engine::execute::{HttpRequest, Report};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{answer, execute, failure, get, post, transport};
use crate::upstream::{Step, Upstream, bounded, ok};

/// Idle connections keep their buffers, or rest.
const KINDS: [fn() -> Transport; 2] = [transport, || with_room(Room::new(RoomSize { idle: 16, prompt: 0, shared: 0 }))];

fn with_room(room: Room) -> Transport {
    Transport::new(&TransportSettings { room, ..TransportSettings::default() }).expect("no file is needed")
}

/// Which connection each request came on.
fn carried_by(upstream: &Upstream) -> Vec<usize> {
    upstream.arrivals().iter().map(|arrival| arrival.connection).collect()
}

#[tokio::test]
async fn calls_in_a_row_use_one_connection() {
    for kind in KINDS {
        let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
        let transport = kind();
        for number in 0..50 {
            let report = execute(&transport, post(upstream.url("/"), format!("order {number}"))).await;
            assert_eq!(answer(&report), (200, b"hi".as_slice()));
        }
        assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 50));
    }
}

#[tokio::test]
async fn calls_at_once_have_a_connection_each_and_share_them_later() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let script = vec![Step::Request, Step::Gate(held), Step::Send(ok("hi")), Step::Serve(ok("ho"))];
    let upstream = Upstream::always(script).await;
    let transport = Arc::new(transport());
    let start = || {
        let (transport, request) = (Arc::clone(&transport), get(upstream.url("/")));
        tokio::spawn(async move { execute(&transport, request).await })
    };
    let both = [start(), start()];
    upstream.until(|seen| seen.arrivals.len() == 2).await;
    gate.add_permits(2);
    for one in both {
        assert_eq!(answer(&one.await.expect("an attempt does not panic")).1, b"hi");
    }
    for _ in 0..4 {
        assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"ho");
    }
    let carried_by = carried_by(&upstream);
    assert_eq!(upstream.connections(), 2);
    assert!(carried_by[2..].iter().all(|&connection| connection == carried_by[2]), "the one used last: {carried_by:?}");
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_and_the_request_sent_once() {
    for kind in KINDS {
        for end in [vec![], vec![Step::Reset]] {
            let script = [vec![Step::Request, Step::Send(ok("hi"))], end].concat();
            let upstream = Upstream::always(script).await;
            let transport = kind();
            for number in 1..=20 {
                let report = execute(&transport, post(upstream.url("/"), "order")).await;
                assert_eq!(answer(&report), (200, b"hi".as_slice()));
                upstream.until(|seen| seen.closed == number).await;
            }
            assert_eq!(carried_by(&upstream), (0..20).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_connection_that_spoke_while_idle_is_not_used_again() {
    for kind in KINDS {
        let stray = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n".to_vec();
        for stray in [[ok("hi"), stray.clone()].concat(), [ok("hi"), b"x".to_vec()].concat()] {
            let upstream = Upstream::always(vec![Step::Request, Step::Send(stray), Step::AwaitClose]).await;
            let transport = kind();
            for _ in 0..3 {
                assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "order")).await).1, b"hi");
            }
            assert_eq!(carried_by(&upstream), [0, 1, 2]);
        }
    }
}

/// One runtime thread, blocked while the other side acts, so that the runtime cannot have heard of it.
#[tokio::test]
async fn what_the_runtime_has_not_heard_of_is_seen_before_anything_is_written() {
    for kind in KINDS {
        for stray in ["", "HTTP/1.1 500 Not Yours\r\ncontent-length: 0\r\n\r\n"] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
            let url = format!("http://{}/", listener.local_addr().expect("a bound socket has an address"));
            let (go, told_to) = mpsc::channel();
            let (acted, has_acted) = mpsc::channel();
            let upstream = std::thread::spawn(move || -> std::io::Result<()> {
                let mut first = listener.accept()?.0;
                first.read(&mut [0; 1024]).and_then(|_| first.write_all(&ok("first")))?;
                told_to.recv().map_err(std::io::Error::other)?;
                first.write_all(stray.as_bytes())?;
                if stray.is_empty() {
                    first.shutdown(std::net::Shutdown::Both)?;
                }
                acted.send(()).map_err(std::io::Error::other)?;
                let mut second = listener.accept()?.0;
                second.read(&mut [0; 1024]).and_then(|_| second.write_all(&ok("second")))
            });
            let transport = kind();
            let url: url::Url = url.parse().expect("a URL");
            assert_eq!(answer(&execute(&transport, post(url.clone(), "order")).await).1, b"first");
            go.send(()).expect("the upstream waits");
            has_acted.recv().expect("the upstream acts");
            assert_eq!(answer(&execute(&transport, post(url, "order")).await).1, b"second");
            upstream.join().expect("the upstream does not panic").expect("nor fails");
        }
    }
}

#[tokio::test]
async fn a_connection_answered_in_the_middle_of_an_upload_is_closed() {
    let script = vec![Step::RequestHead, Step::Send(ok("enough")), Step::AwaitClose];
    let upstream = Upstream::always(script).await;
    let transport = transport();
    let report = execute(&transport, post(upstream.url("/"), vec![0; 64 << 20])).await;
    assert_eq!(answer(&report), (200, b"enough".as_slice()));
    upstream.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_request_that_went_out_on_a_dying_connection_is_not_sent_again() {
    for end in [vec![], vec![Step::Reset]] {
        let first = vec![Step::Request, Step::Send(ok("hi")), Step::Request];
        let upstream = Upstream::always([first, end].concat()).await;
        let transport = transport();
        assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "first")).await).1, b"hi");
        let report = execute(&transport, post(upstream.url("/"), "second")).await;
        assert_eq!(failure(&report), (Some(Reset), Maybe, None, None));
        upstream.until(|seen| seen.closed == 1).await;
        assert_eq!(carried_by(&upstream), [0, 0]);
    }
}

#[tokio::test]
async fn an_upstream_that_closes_at_random_never_gets_a_request_twice() {
    for kind in KINDS {
        // The upstream closes right behind its answer, so that close and next request race.
        let upstream = Upstream::always(vec![Step::Request, Step::Send(ok("hi"))]).await;
        let transport = kind();
        let mut answered = 0;
        for number in 0..300 {
            let report = execute(&transport, post(upstream.url("/"), format!("order {number}"))).await;
            answered += usize::from(report.result.error.is_none());
            assert!(matches!(report.result.error, None | Some(Reset)), "{report:?}");
        }
        let mut bodies: Vec<_> = upstream.arrivals().into_iter().map(|arrival| arrival.body).collect();
        let arrived = bodies.len();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies.len(), arrived, "every request arrived at most once");
        assert_eq!(arrived, answered, "and those that arrived were answered");
    }
}

#[tokio::test]
async fn answers_that_end_their_connection_are_not_followed_by_another() {
    for kind in KINDS {
        for reply in [
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi".to_vec(),
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec(),
        ] {
            let upstream = Upstream::always(vec![Step::Serve(reply)]).await;
            let transport = kind();
            for _ in 0..3 {
                assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"hi");
            }
            assert_eq!(carried_by(&upstream), [0, 1, 2]);
            upstream.until(|seen| seen.closed == 3).await;
        }
    }
}

#[tokio::test]
async fn each_origin_has_its_own_connections() {
    let one = Upstream::always(vec![Step::Serve(ok("one"))]).await;
    let two = Upstream::always(vec![Step::Serve(ok("two"))]).await;
    let transport = transport();
    for _ in 0..3 {
        assert_eq!(answer(&execute(&transport, get(one.url("/"))).await).1, b"one");
        assert_eq!(answer(&execute(&transport, get(two.url("/"))).await).1, b"two");
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
}

#[tokio::test]
async fn old_connections_are_closed_when_pruned_and_when_the_next_call_comes() {
    let settings = TransportSettings { idle_timeout: Duration::ZERO, ..TransportSettings::default() };
    let transport = Transport::new(&settings).expect("no file is needed");
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    for calls in 1..=3 {
        assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"hi");
        upstream.until(|seen| seen.closed == calls - 1).await;
    }
    transport.prune();
    upstream.until(|seen| seen.closed == 3).await;
    assert_eq!(carried_by(&upstream), [0, 1, 2]);
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let settings = TransportSettings { idle_max: 0, ..TransportSettings::default() };
    let transport = Transport::new(&settings).expect("no file is needed");
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    assert_eq!(answer(&execute(&transport, get(upstream.url("/"))).await).1, b"hi");
    upstream.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn upstreams_share_the_room_for_idle_connections() {
    let room = Room::new(RoomSize { idle: 1, prompt: 1, shared: 0 });
    let (one, two) = (with_room(room.clone()), with_room(room));
    let first = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let second = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    for _ in 0..2 {
        for (transport, upstream) in [(&one, &first), (&two, &second)] {
            assert_eq!(answer(&execute(transport, get(upstream.url("/"))).await).1, b"hi");
        }
    }
    assert_eq!((carried_by(&first), carried_by(&second)), (vec![0, 0], vec![0, 1]), "the first had the room");
    drop(one);
    for _ in 0..2 {
        assert_eq!(answer(&execute(&two, get(second.url("/"))).await).1, b"hi");
    }
    assert_eq!(carried_by(&second), [0, 1, 2, 2], "and has given it back");
}

/// Starts an attempt, gives it up when the upstream has come as far as `expected`, and waits for the close.
async fn abort(script: Vec<Step>, request: fn(&Upstream) -> HttpRequest, reached: fn(usize) -> bool) -> Report {
    let upstream = Upstream::always(script).await;
    let (transport, abort) = (transport(), CancellationToken::new());
    let attempt = transport.execute(request(&upstream), None, abort.clone());
    let give_up = async {
        upstream.until(|seen| seen.connections == 1 && reached(seen.arrivals.len())).await;
        abort.cancel();
    };
    let (report, ()) = bounded(Box::pin(async { tokio::join!(attempt, give_up) })).await;
    upstream.until(|seen| seen.closed == 1).await;
    report
}

fn aborted(report: &Report) -> (bool, Option<ErrorKind>, BytesSent, Option<u16>) {
    (report.aborted, report.result.error, report.result.bytes_sent, report.result.status)
}

#[tokio::test]
async fn giving_up_before_the_head_closes_the_connection() {
    let script = vec![Step::Request, Step::AwaitClose];
    let report = abort(script, |upstream| post(upstream.url("/"), "order"), |arrivals| arrivals == 1).await;
    assert_eq!(aborted(&report), (true, None, Maybe, None));
    assert_eq!((report.response, report.message), (None, None));
}

#[tokio::test]
async fn giving_up_while_connecting_has_sent_nothing() {
    let https = |upstream: &Upstream| get(format!("https://127.0.0.1:{}/", upstream.port()).parse().expect("a URL"));
    let report = abort(vec![Step::AwaitClose], https, |_| true).await;
    assert_eq!(aborted(&report), (true, None, No, None));
}

#[tokio::test]
async fn an_attempt_given_up_before_it_began_does_not_connect() {
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let (transport, abort) = (transport(), CancellationToken::new());
    abort.cancel();
    let report = bounded(transport.execute(get(upstream.url("/")), None, abort)).await;
    assert_eq!(aborted(&report), (true, None, No, None));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn giving_up_within_a_body_keeps_what_came() {
    let partial = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec();
    let upstream = Upstream::always(vec![Step::Request, Step::Send(partial), Step::AwaitClose]).await;
    let (transport, abort) = (transport(), CancellationToken::new());
    let recorder = Arc::<super::Recorder>::default();
    let attempt = transport.execute(get(upstream.url("/")), Some(recorder.clone()), abort.clone());
    let give_up = async {
        recorder.until(|told| !told.first_byte.is_empty()).await;
        abort.cancel();
    };
    let (report, ()) = bounded(Box::pin(async { tokio::join!(attempt, give_up) })).await;
    assert_eq!(aborted(&report), (true, None, Maybe, Some(200)));
    assert_eq!(report.response.expect("the head was there").body, "abc");
    upstream.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn dropping_an_attempt_closes_its_connection() {
    let upstream = Upstream::always(vec![Step::Request, Step::AwaitClose]).await;
    let transport = transport();
    let attempt = transport.execute(get(upstream.url("/")), None, CancellationToken::new());
    tokio::select! {
        report = attempt => panic!("nobody answers: {report:?}"),
        () = upstream.until(|seen| seen.arrivals.len() == 1) => {}
    }
    upstream.until(|seen| seen.closed == 1).await;
}
