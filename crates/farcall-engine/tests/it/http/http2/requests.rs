//! What an HTTP/2 upstream gets to see, and how its answers read.

use std::sync::Arc;

use bytes::Bytes;
use farcall_engine::execute::HttpRequest;
use farcall_engine::proxy::Proxy;
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::peer::{INITIAL_WINDOW, Peer, Peers, WINDOW_UPDATE, frame, ok};
use super::{Authority, execute, get, post, settings, transport};
use crate::http::{Recorder, Told, answer, request};
use crate::upstream::{Step, Upstream, bounded};

/// An upstream of the h2 crate that answers everything with what makes it an answer, and hands on what it got.
async fn listening(authority: &Authority, name: &str) -> (u16, mpsc::UnboundedReceiver<(Request<()>, Bytes)>) {
    let mut config = authority.server(name);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let (got, gets) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, got) = (tls.clone(), got.clone());
            tokio::spawn(async move {
                let stream = tls.accept(tcp).await.expect("a client that believes us");
                let mut connection = h2::server::handshake(stream).await.expect("a client that speaks HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let got = got.clone();
                    tokio::spawn(async move {
                        let (head, mut body) = request.into_parts();
                        let mut whole = Vec::new();
                        while let Some(piece) = body.data().await {
                            let piece = piece.expect("a whole body");
                            body.flow_control().release_capacity(piece.len()).expect("a window");
                            whole.extend_from_slice(&piece);
                        }
                        let answer = Response::builder().header("X-Mixed", "a").header("set-cookie", "b");
                        let answer = answer.header("set-cookie", "c").body(()).expect("a good answer");
                        let mut sent = respond.send_response(answer, false).expect("an open stream");
                        sent.send_data(Bytes::from(whole.clone()), false).expect("an open stream");
                        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().expect("a value"))]);
                        sent.send_trailers(trailers).expect("an open stream");
                        let _gone = got.send((Request::from_parts(head, ()), Bytes::from(whole)));
                    });
                }
            });
        }
    });
    (port, gets)
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect()
}

#[tokio::test]
async fn a_request_arrives_as_http2_says_it() {
    let authority = Authority::new("ours");
    let (port, mut gets) = listening(&authority, "127.0.0.1").await;
    let transport = transport(&settings(&authority));
    let url: url::Url = format!("https://127.0.0.1:{port}/a%20b?c=d&e").parse().expect("a URL");
    let given = [
        ("x-b", "1"),
        ("cookie", "a=b; c=d"),
        ("authorization", "Bearer s"),
        ("te", "trailers"),
        ("connection", "x-b"),
        ("keep-alive", "1"),
        ("upgrade", "h2c"),
        ("transfer-encoding", "chunked"),
    ];
    let headers =
        given.map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    let sent = HttpRequest { headers: headers.into_iter().collect(), ..request(Method::PUT, url, "order") };
    let report = execute(&transport, sent).await;
    assert_eq!(answer(&report), (200, b"order".as_slice()));
    let response = report.response.expect("an answer");
    let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-mixed", "set-cookie", "set-cookie"], "without what came behind the body");

    let (arrived, body) = bounded(gets.recv()).await.expect("it arrived");
    assert_eq!((arrived.method(), body.as_ref()), (&Method::PUT, b"order".as_slice()));
    assert_eq!(arrived.uri().to_string(), format!("https://127.0.0.1:{port}/a%20b?c=d&e"));
    let expected = [
        "x-b: 1",
        "cookie: a=b; c=d",
        "authorization: Bearer s",
        "accept-encoding: gzip, br, zstd",
        "content-length: 5",
    ];
    assert_eq!(lines(arrived.headers()), expected);
}

#[tokio::test]
async fn large_bodies_go_both_ways_within_the_windows() {
    let authority = Authority::new("ours");
    let (port, mut gets) = listening(&authority, "127.0.0.1").await;
    let transport = transport(&settings(&authority));
    let url: url::Url = format!("https://127.0.0.1:{port}/").parse().expect("a URL");
    let body: Vec<u8> = (0..5_000_000u32).map(|number| number as u8).collect();
    let request = HttpRequest { max_response: 6_000_000, ..post(url, body.clone()) };
    let report = execute(&transport, request).await;
    assert!(answer(&report) == (200, body.as_slice()));
    assert!(bounded(gets.recv()).await.expect("it arrived").1 == body);
}

#[tokio::test]
async fn a_tunnel_carries_http2_too() {
    let authority = Authority::new("ours");
    let (port, mut gets) = listening(&authority, "shop.test").await;
    let granted = Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    let proxy = Upstream::always(vec![Step::Request, granted, Step::Relay(port)]).await;
    let transport = transport(&settings(&authority));
    let through = Arc::new(Proxy::parse(&format!("http://127.0.0.1:{}", proxy.port())).expect("a proxy"));
    for _ in 0..3 {
        let request = get("https://shop.test/a".parse().expect("a URL"));
        let report = execute(&transport, HttpRequest { proxy: Some(Arc::clone(&through)), ..request }).await;
        assert_eq!(answer(&report).0, 200);
        let (arrived, _) = bounded(gets.recv()).await.expect("it arrived");
        assert_eq!(arrived.uri().to_string(), "https://shop.test/a");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn who_does_not_speak_http2_is_spoken_to_by_http1() {
    let authority = Authority::new("ours");
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut server = authority.server("127.0.0.1");
        server.alpn_protocols = protocols;
        let upstream = Upstream::tls(server, vec![Step::Serve(crate::upstream::ok("hi"))]).await;
        let transport = transport(&settings(&authority));
        for _ in 0..3 {
            assert_eq!(answer(&execute(&transport, post(upstream.url("/"), "order")).await).1, b"hi");
        }
        assert!(upstream.arrivals()[0].head.starts_with("POST / HTTP/1.1\r\n"));
        assert_eq!((upstream.connections(), upstream.arrivals().len()), (1, 3));
    }
}

#[tokio::test]
async fn sent_is_told_when_the_last_of_a_request_has_left() {
    let authority = Authority::new("ours");
    // A window that the body does not fit into, opened when the test says so.
    let upstream = Peers::start(&authority, &[(INITIAL_WINDOW, 1)], |mut peer: Peer| async move {
        let stream = peer.request_head().await?;
        // All but the last byte.
        peer.frame().await?;
        let mut seen = peer.seen.subscribe();
        drop(seen.wait_for(|seen| seen.pings == 99).await.map_err(std::io::Error::other)?);
        peer.send(frame(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes())).await?;
        peer.request().await?;
        drop(seen.wait_for(|seen| seen.pings == 100).await.map_err(std::io::Error::other)?);
        peer.send(ok(stream, "hi")).await?;
        peer.linger().await
    })
    .await;
    let transport = transport(&settings(&authority));
    let recorder = Arc::<Recorder>::default();
    let attempt = transport.execute(post(upstream.url("/"), "ab"), Some(recorder.clone()), CancellationToken::new());
    let watching = async {
        upstream.until(|seen| seen.connections == 1).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(recorder.told(), Told::default());
        upstream.seen.send_modify(|seen| seen.pings = 99);
        recorder.until(|told| told.sent.len() == 1).await;
        assert_eq!(recorder.told().first_byte, []);
        upstream.seen.send_modify(|seen| seen.pings = 100);
    };
    let (report, ()) = bounded(async { tokio::join!(attempt, watching) }).await;
    assert_eq!(answer(&report).1, b"hi");
    let Told { sent, first_byte } = recorder.told();
    assert_eq!((sent.len(), &first_byte[..]), (1, &[report.first_byte_at.expect("an answer has one")][..]));
    assert!(sent[0] <= first_byte[0]);
}
