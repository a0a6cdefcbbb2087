//! The upstream of the benchmarks: one thread of hyper that answers 200 with a little JSON, and counts what arrives.
//!
//! It says its address on the first line of stdout, then answers each line on stdin with a line of JSON: `tally`,
//! `worst <microseconds>`, `within <microseconds>`, `after <microseconds>`, `reset`. It ends with its stdin. A request tells
//! which call it is by `?n=<number>`; with `?slow=<percent>&slow_ms=<ms>&fast_ms=<ms>` the answer is made to wait,
//! with `?fail=<percent>` it is 500. Every address of 127.0.0.0/8 leads here, so that it can be ten thousand origins; nobody from elsewhere is
//! answered.
#![expect(clippy::print_stdout, reason = "stdout is how it answers")]

mod tally;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use bench_gauge::now_us;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use tally::Tally;

const ANSWER: &[u8] = br#"{"ok":true,"message":"hello from upstream"}"#;

type Shared = Rc<RefCell<Tally>>;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = tokio::task::LocalSet::new().block_on(&runtime, serve());
    // The thread that reads stdin is not waited for.
    runtime.shutdown_background();
    done
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    println!("{}:{}", Ipv4Addr::LOCALHOST, listener.local_addr()?.port());
    let tally = Shared::default();
    let accepting = tokio::task::spawn_local(accept(listener, Rc::clone(&tally)));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{}", obey(&line, &mut tally.borrow_mut()));
    }
    accepting.abort();
    Ok(())
}

fn obey(line: &str, tally: &mut Tally) -> serde_json::Value {
    let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
    match (command, argument.parse()) {
        ("tally", _) => tally.summary(),
        ("worst", Ok(window_us)) => json!({ "worst": tally.worst(window_us) }),
        ("within", Ok(span_us)) => json!({ "within": tally.within(span_us) }),
        ("after", Ok(since_us)) => json!({ "after": tally.after(since_us) }),
        ("reset", _) => {
            *tally = Tally::default();
            json!({})
        }
        _ => json!({ "error": format!("cannot {line:?}") }),
    }
}

async fn accept(listener: TcpListener, tally: Shared) {
    loop {
        // A connection that went away before it was accepted is its client's business.
        if let Ok((stream, peer)) = listener.accept().await
            && peer.ip().is_loopback()
        {
            tokio::task::spawn_local(answer_all(stream, Rc::clone(&tally)));
        }
    }
}

async fn answer_all(stream: TcpStream, tally: Shared) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Rc::clone(&tally)));
    // A client that breaks off is counted by what did arrive.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, tally: Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query();
    tally.borrow_mut().arrived(now_us(), query.and_then(number));
    let wait_ms = query.and_then(|query| wait_ms(query, fastrand::f64()));
    let fails = query.is_some_and(|query| fails(query, fastrand::f64()));
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            break;
        }
    }
    if let Some(wait_ms) = wait_ms {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    if fails {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn number(query: &str) -> Option<usize> {
    value(query, "n=")?.parse().ok()
}

/// `slow_ms` of so many of a hundred requests as `slow` says, `fast_ms` of the others; `chance` is from 0 to 1.
fn wait_ms(query: &str, chance: f64) -> Option<u64> {
    let percent: f64 = value(query, "slow=")?.parse().ok()?;
    let name = if chance * 100.0 < percent { "slow_ms=" } else { "fast_ms=" };
    value(query, name)?.parse().ok()
}

/// Whether the answer is a 500: of so many of a hundred as `fail` says.
fn fails(query: &str, chance: f64) -> bool {
    value(query, "fail=")
        .and_then(|percent| percent.parse::<f64>().ok())
        .is_some_and(|percent| chance * 100.0 < percent)
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_waits_longer() {
        let query = "n=7&slow=3&slow_ms=1000&fast_ms=5";
        assert_eq!((wait_ms(query, 0.029), wait_ms(query, 0.03)), (Some(1_000), Some(5)));
        assert_eq!((wait_ms("n=7", 0.0), number(query)), (None, Some(7)));
        assert!(fails("fail=5", 0.049) && !fails("fail=5", 0.05) && !fails(query, 0.0));
    }
}
