//! Connections: kept alive, cut off when slow, bounded in number, closed so that the last answer arrives.

use std::time::Duration;

use crate::farcall::{Farcall, Setup, post};
use crate::http::bounded;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_many_requests_even_pipelined() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    for _ in 0..3 {
        client.send(HEALTH).await;
        assert_eq!(client.reply().await.status, 200);
    }
    client.send([HEALTH, &post("", "[]"), HEALTH].concat()).await;
    for status in [200, 400, 200] {
        assert_eq!(client.reply().await.status, status);
    }
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let short = |setup: &mut Setup| setup.options.header_timeout = Duration::from_millis(100);
    let farcall = Setup::new().with(short).start().await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nHost: loc"] {
        let mut client = farcall.connect().await;
        client.send(beginning).await;
        assert_eq!(client.rest().await, b"", "after {beginning:?}");
    }
    let mut idle = farcall.connect().await;
    idle.send(HEALTH).await;
    assert_eq!(idle.reply().await.status, 200);
    assert_eq!(idle.rest().await, b"", "an idle connection is closed too");
    let mut dripping = farcall.connect_socket().await;
    dripping.send("GET /healthz HTTP/1.1\r\n").await;
    assert_eq!(dripping.rest().await, b"");
}

#[tokio::test]
async fn a_client_may_close_its_side_after_its_request() {
    let farcall = Farcall::start().await;
    let mut client = farcall.connect().await;
    client.send(HEALTH).await;
    client.finish_sending().await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_gets_its_answer() {
    let farcall = Setup::new().with(|setup| setup.config.server.max_body = 1_024).start().await;
    let body = " ".repeat(20 << 20);
    let mut client = farcall.connect().await;
    client.send(post("", &body)).await;
    assert_eq!(client.reply().await.status, 413);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_the_socket_has_its_own() {
    let farcall = Setup::new().with(|setup| setup.options.connections_max = 1).start().await;
    let mut first = farcall.connect().await;
    first.send(HEALTH).await;
    assert_eq!(first.reply().await.status, 200);

    let mut second = farcall.connect().await;
    second.send(HEALTH).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.reply()).await;
    assert!(early.is_err(), "answered while the only place was taken");
    let mut through_socket = farcall.connect_socket().await;
    through_socket.send(HEALTH).await;
    assert_eq!(through_socket.reply().await.status, 200);

    drop(first);
    assert_eq!(bounded(second.reply()).await.status, 200);
}
