//! The API on the other side of the tour: small, strict, and with a memory of what arrived when.
//!
//! `/shop/orders` answers 201. `/shop/flaky` answers the first try of a call with 503 and the second with 200.
//! `/limited/…` answers 429 to more than [`LIMIT_PER_SECOND`] requests in any second, wherever it begins.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::time::Instant;
use farcall_engine::clock;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What `/limited` bears.
pub(crate) const LIMIT_PER_SECOND: usize = 5;
const SECOND: Duration = Duration::from_secs(1);
/// The largest request body it reads, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Arrivals remembered; the tour makes a few dozen.
const ARRIVALS_MAX: usize = 100_000;

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
}

/// A listening upstream; gone when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    book: Arc<Book>,
    listening: JoinHandle<()>,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Book {
    arrivals: Mutex<Vec<Arrival>>,
    /// Idempotency keys that `/shop/flaky` has seen once.
    tried: Mutex<HashSet<String>>,
}

impl Upstream {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let book = Arc::new(Book::default());
        let listening = tokio::spawn(listen(listener, Arc::clone(&book)));
        Ok(Self { address, book, listening })
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived below a path so far, in order.
    pub(crate) fn arrivals(&self, path: &str) -> Vec<Arrival> {
        let arrivals = lock(&self.book.arrivals);
        arrivals.iter().filter(|arrival| arrival.path.starts_with(path)).cloned().collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The most arrivals in any window of this length, wherever it begins.
pub(crate) fn worst_window(arrivals: &[Arrival], window: Duration) -> usize {
    let from = |begin: usize| {
        let first = arrivals[begin].at;
        arrivals[begin..].iter().take_while(|arrival| arrival.at.since(first) < window).count()
    };
    (0..arrivals.len()).map(from).max().unwrap_or(0)
}

async fn listen(listener: TcpListener, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let book = Arc::clone(&book);
                let service = service_fn(move |request| answer(request, Arc::clone(&book)));
                let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                connections.spawn(connection);
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, book: Arc<Book>) -> Result<Response<Full<Bytes>>, Infallible> {
    let at = clock::now().instant;
    let path = request.uri().path().to_owned();
    let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("").to_owned();
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let status = book.note(at, &path, key);
    let mut response = Response::new(Full::new(Bytes::from(told(status, &path, &body).to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    Ok(response)
}

fn told(status: StatusCode, path: &str, body: &[u8]) -> Value {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => json!({"error": "not now, come back in a second"}),
        StatusCode::TOO_MANY_REQUESTS => json!({"error": "too many requests"}),
        StatusCode::NOT_FOUND => json!({"error": "nothing here", "path": path}),
        _ => json!({"ok": true, "received": serde_json::from_slice::<Value>(body).unwrap_or(Value::Null)}),
    }
}

impl Book {
    /// Decides the answer and writes the arrival down, in one step.
    fn note(&self, at: Instant, path: &str, key: String) -> StatusCode {
        let mut arrivals = lock(&self.arrivals);
        let status = if path.starts_with("/limited/") {
            let is_recent = |arrival: &&Arrival| arrival.path.starts_with("/limited/") && at.since(arrival.at) < SECOND;
            let recent = arrivals.iter().rev().filter(is_recent).take(LIMIT_PER_SECOND).count();
            if recent < LIMIT_PER_SECOND { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS }
        } else {
            match path {
                "/shop/orders" => StatusCode::CREATED,
                "/shop/flaky" if lock(&self.tried).insert(key) => StatusCode::SERVICE_UNAVAILABLE,
                "/shop/flaky" => StatusCode::OK,
                _ => StatusCode::NOT_FOUND,
            }
        };
        if arrivals.len() < ARRIVALS_MAX {
            arrivals.push(Arrival { at, path: path.to_owned(), status });
        }
        status
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn the_sixth_request_in_any_second_is_too_many() {
        let book = Book::default();
        let note = |millis| book.note(at(millis), "/limited/1", String::new());
        assert!([0, 100, 200, 300, 400].into_iter().all(|millis| note(millis) == StatusCode::OK));
        assert_eq!(note(999), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(note(2_000), StatusCode::OK);
    }

    #[test]
    fn a_flaky_call_succeeds_at_its_second_try() {
        let book = Book::default();
        let note = |key: &str| book.note(at(0), "/shop/flaky", key.to_owned()).as_u16();
        assert_eq!([note("a"), note("b"), note("a"), note("b")], [503, 503, 200, 200]);
    }

    #[test]
    fn the_worst_window_begins_anywhere() {
        let arrivals: Vec<_> = [0, 900, 950, 1_000, 1_899, 1_900]
            .map(|millis| Arrival { at: at(millis), path: "/".into(), status: StatusCode::OK })
            .into();
        assert_eq!(worst_window(&arrivals, SECOND), 4);
        assert_eq!(worst_window(&[], SECOND), 0);
    }
}
