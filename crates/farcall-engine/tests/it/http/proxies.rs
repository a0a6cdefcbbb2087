//! Forward proxies: what they are told, what they may refuse, and what they never learn.

use std::net::TcpListener as BlockingListener;
use std::sync::Arc;

use farcall_core::attempt::BytesSent::No;
use farcall_core::call::ErrorKind::{BlockedAddress, Connect, Tls};
use farcall_engine::config::Addresses;
use farcall_engine::execute::HttpRequest;
use farcall_engine::execute::http::{Transport, TransportSettings};
use farcall_engine::proxy::Proxy;
use url::Url;

use super::tls::Authority;
use super::{answer, execute, failure, get, in_own_process, post, transport};
use crate::upstream::{Step, Upstream, ok};

/// `user:s3cret`, as it is sent.
const CREDENTIALS: &str = "Basic dXNlcjpzM2NyZXQ=";

fn by(proxy: &Upstream, request: HttpRequest) -> HttpRequest {
    let text = format!("http://user:s3cret@127.0.0.1:{}", proxy.port());
    HttpRequest { proxy: Some(Arc::new(Proxy::parse(&text).expect("a proxy"))), ..request }
}

fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

#[tokio::test]
async fn a_proxy_gets_the_whole_url_and_its_own_credentials() {
    let proxy = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let transport = transport();
    for _ in 0..2 {
        let report = execute(&transport, by(&proxy, post(url("http://shop.test:8080/a?b=c"), "order"))).await;
        assert_eq!(answer(&report), (200, b"hi".as_slice()));
    }
    assert_eq!((proxy.connections(), proxy.arrivals().len()), (1, 2), "connections to a proxy are kept");
    let head = &proxy.arrivals()[0].head;
    assert!(head.starts_with("POST http://shop.test:8080/a?b=c HTTP/1.1\r\nhost: shop.test:8080\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nproxy-authorization: {CREDENTIALS}\r\n")), "{head}");
    // The name is the proxy's to look up: here nobody knows it.
    let report = execute(&transport, get(url("http://shop.test:8080/"))).await;
    assert_eq!(failure(&report).1, No);
}

#[tokio::test]
async fn a_connection_to_a_proxy_serves_its_own_origin_and_credentials_only() {
    let proxy = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let transport = transport();
    let other = format!("http://user:other@127.0.0.1:{}", proxy.port());
    let other =
        HttpRequest { proxy: Some(Arc::new(Proxy::parse(&other).expect("a proxy"))), ..get(url("http://a.test/")) };
    let requests = [by(&proxy, get(url("http://a.test/"))), by(&proxy, get(url("http://b.test/"))), other];
    for request in requests {
        assert_eq!(answer(&execute(&transport, request).await).0, 200);
    }
    let direct = get(proxy.url("/"));
    assert_eq!(answer(&execute(&transport, direct).await).0, 200);
    assert_eq!(proxy.connections(), 4);
    assert!(proxy.arrivals()[3].head.starts_with("GET / HTTP/1.1\r\n"));
    assert!(!proxy.arrivals()[3].head.contains("proxy-authorization"));
}

#[tokio::test]
async fn a_tunnel_leads_to_the_origin_which_learns_nothing_of_the_proxy() {
    let authority = Authority::new("ours");
    let origin = Upstream::tls(authority.server("shop.test"), vec![Step::Serve(ok("hi"))]).await;
    let granted = Step::Send(b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n".to_vec());
    let proxy = Upstream::always(vec![Step::Request, granted, Step::Relay(origin.port())]).await;
    let transport = authority.transport();
    for _ in 0..2 {
        let report = execute(&transport, by(&proxy, post(url("https://shop.test/a"), "order"))).await;
        assert_eq!(answer(&report), (200, b"hi".as_slice()));
    }
    assert_eq!((proxy.connections(), origin.connections(), origin.arrivals().len()), (1, 1, 2));
    let asked =
        format!("CONNECT shop.test:443 HTTP/1.1\r\nhost: shop.test:443\r\nproxy-authorization: {CREDENTIALS}\r\n\r\n");
    assert_eq!(proxy.arrivals()[0].head, asked);
    let head = &origin.arrivals()[0].head;
    assert!(head.starts_with("POST /a HTTP/1.1\r\nhost: shop.test\r\n") && !head.contains("proxy"), "{head}");
}

/// What comes of a tunnel that a proxy answers like this.
async fn check_refused(steps: &[Step], named: &str) {
    let proxy = Upstream::always([&[Step::Request], steps].concat()).await;
    let report = execute(&transport(), by(&proxy, post(url("https://shop.test/"), "order"))).await;
    assert_eq!(failure(&report), (Some(Connect), No, None, None), "{named}");
    let message = report.message.expect("a failure has a message");
    assert!(message.contains(named) && !message.contains("s3cret"), "{message:?} names {named:?}");
    proxy.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_sends_nothing() {
    let send = |text: &str| vec![Step::Send(text.as_bytes().to_vec()), Step::AwaitClose];
    check_refused(&send("HTTP/1.1 407 Who are you\r\n\r\n"), "407").await;
    check_refused(&send("HTTP/1.0 503 Later\r\nretry-after: 3600\r\n\r\n"), "503").await;
    check_refused(&send("HTTP/1.1 2\r\n\r\n"), "does not speak HTTP").await;
    check_refused(&send("SSH-2.0-x\r\n\r\n"), "does not speak HTTP").await;
    check_refused(&[], "closed the connection").await;
    check_refused(&[Step::Reset], "closed the connection").await;
    check_refused(&[Step::SendForever(b"HTTP/1.1 200 OK\r\nx: y\r\n".to_vec())], "without end").await;
}

#[tokio::test]
async fn a_proxy_that_reads_along_is_found_out() {
    let granted = Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    let impostor = Upstream::tls(Authority::new("other").server("shop.test"), vec![Step::Serve(ok("hi"))]).await;
    let proxy = Upstream::always(vec![Step::Request, granted, Step::Relay(impostor.port())]).await;
    let report = execute(&Authority::new("ours").transport(), by(&proxy, get(url("https://shop.test/")))).await;
    assert_eq!(failure(&report), (Some(Tls), No, None, None));
    assert_eq!(impostor.arrivals(), []);
}

#[tokio::test]
async fn waiting_for_a_proxy_is_bounded() {
    let connect_timeout = std::time::Duration::from_millis(50);
    let transport = Transport::new(&TransportSettings { connect_timeout, ..Default::default() });
    let proxy = Upstream::always(vec![Step::Request, Step::AwaitClose]).await;
    let request = by(&proxy, get(url("https://shop.test/")));
    let report = execute(&transport.expect("no file is needed"), request).await;
    assert_eq!(failure(&report), (Some(Connect), No, None, None));
    proxy.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn what_must_stay_public_goes_through_no_proxy() {
    let proxy = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    for text in ["http://8.8.8.8/", "https://8.8.8.8/", "http://127.0.0.1/"] {
        let request = HttpRequest { addresses: Addresses::Public, ..by(&proxy, get(url(text))) };
        let report = execute(&transport(), request).await;
        assert_eq!(failure(&report), (Some(BlockedAddress), No, None, None), "{text}");
    }
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn proxies_in_the_environment_are_ignored() {
    let recorder = BlockingListener::bind("127.0.0.1:0").expect("loopback can be bound");
    recorder.set_nonblocking(true).expect("a listener can be asked without waiting");
    let proxy = format!("http://{}", recorder.local_addr().expect("a bound socket has an address"));
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "CGI_HTTP_PROXY"];
    in_own_process("http::proxies::in_an_environment_with_proxies", &names.map(|name| (name, proxy.as_str())));
    assert_eq!(recorder.accept().map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
#[ignore = "started by the test above, in an environment of its own"]
async fn in_an_environment_with_proxies() {
    assert!(std::env::var_os("HTTP_PROXY").is_some());
    let authority = Authority::new("ours");
    let plain = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let secure = Upstream::tls(authority.server("127.0.0.1"), vec![Step::Serve(ok("hi"))]).await;
    for upstream in [&plain, &secure] {
        let report = execute(&authority.transport(), get(upstream.url("/"))).await;
        assert_eq!(answer(&report).0, 200);
    }
}
