//! Stopping: what is in flight finishes, in bounded time, and nothing new begins.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::farcall::{Farcall, Setup};
use crate::http::bounded;

const LATER: &str = r#"{"url": "http://localhost:1", "delay": 3600}"#;

fn head(length: usize) -> String {
    format!("POST /v1/calls HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_its_connection_closed() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    client.send(head(LATER.len())).await;
    assert_eq!(client.reply().await.status, 100, "the server handles the request now");
    farcall.stop.cancel();
    client.send(LATER).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
    assert_eq!(client.rest().await, b"");
    bounded(farcall.serving).await.expect("the server ends");
    assert!(TcpStream::connect(farcall.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_server_up() {
    let farcall = Farcall::start().await;
    let mut idle = farcall.connect().await;
    idle.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.reply().await.status, 200);
    let mut begun = farcall.connect_socket().await;
    begun.send("GET /healthz HTTP/1.1\r\n\r\nGET").await;
    assert_eq!(begun.reply().await.status, 200);
    drop(farcall.stop().await);
    assert_eq!(idle.rest().await, b"");
    assert_eq!(begun.rest().await, b"", "a request of which only the beginning came is none");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off() {
    let short = |setup: &mut Setup| setup.options.shutdown_timeout = Duration::from_millis(100);
    let farcall = Setup::new().with(short).start().await;
    let mut client = farcall.connect().await;
    client.send(head(LATER.len())).await;
    assert_eq!(client.reply().await.status, 100);
    drop(farcall.stop().await);
}
