//! Which addresses a call may be sent to depends on the way it came in.

use farcall_engine::config::Addresses;
use serde_json::{Value, json};

use crate::farcall::{Farcall, Setup, post};
use crate::http::Reply;
use crate::upstream::Upstream;

/// Posts one call by each way; state and kind of error of what became of them.
async fn both_ways(farcall: &Farcall, document: &str) -> [(Value, Value); 2] {
    let by_tcp = farcall.post_call("", document).await;
    let mut client = farcall.connect_socket().await;
    client.send(post("", document)).await;
    let by_socket = client.reply().await;
    farcall.until_ended(2).await;
    [end_of(farcall, &by_tcp).await, end_of(farcall, &by_socket).await]
}

async fn end_of(farcall: &Farcall, accepted: &Reply) -> (Value, Value) {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let path = accepted.header("location").expect("an accepted call has a place");
    let call = farcall.get(path).await.json();
    (call["state"].clone(), call["error"]["kind"].clone())
}

async fn check(rule: Option<Addresses>, expected: [(Value, Value); 2], arrivals: usize) {
    let upstream = Upstream::start("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let farcall = Setup::new().with(|setup| setup.config.undeclared.addresses = rule).start().await;
    let ends = both_ways(&farcall, &json!({"url": upstream.url()}).to_string()).await;
    assert_eq!((ends, upstream.connections()), (expected, arrivals), "{rule:?}");
}

#[tokio::test]
async fn who_reaches_the_port_reaches_no_inner_address_and_the_user_does() {
    let (sent, blocked) = ((json!("succeeded"), Value::Null), (json!("failed"), json!("blocked_address")));
    check(None, [blocked.clone(), sent.clone()], 1).await;
    check(Some(Addresses::Any), [sent.clone(), sent], 2).await;
    check(Some(Addresses::Public), [blocked.clone(), blocked], 0).await;
}
