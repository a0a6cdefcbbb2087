//! One connection: HTTP/1.1 with limits that hold before a request is understood.
//!
//! A client that sends its head too slowly is cut off, one whose head is too large or no HTTP is told so (`last_word`). A connection that ends
//! with a request's body half read is closed in two steps, or the client, still sending, would see a reset instead of
//! our answer (RFC 9112, section 9.6).

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access::Gate;
use crate::app::App;
use crate::attended::{Attended, Attention, Client};
use crate::last_word::LastWord;
use crate::problem::{Code, Problem};

/// Largest head of a request: request line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most header fields of a request.
const HEAD_FIELDS_MAX: usize = 100;
/// After our last word: how long to listen on in all, and for the next byte, and to how much.
const LINGER_MAX: Duration = Duration::from_secs(30);
const LINGER_IDLE_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;

/// Whom a request comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitor {
    /// Nothing through the socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) attention: Attention,
}

/// What serves a connection.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) app: Arc<App>,
    pub(crate) gate: Gate,
    /// The longest wait for a complete head, also between two requests.
    pub(crate) header_timeout: Duration,
    /// From then on the request in flight is the connection's last.
    pub(crate) stopping: CancellationToken,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Serves a connection until either side ends it.
pub(crate) async fn serve<S: Client>(stream: S, serving: Serving) {
    let Serving { app, gate, header_timeout, stopping } = serving;
    let answering = Arc::clone(&app);
    let visitor = Visitor { address: stream.address(), attention: Attention::default() };
    let attended = Attended::new(stream, visitor.attention.clone());
    let service = service_fn(move |request: http::Request<Incoming>| -> Answer {
        let (app, access, visitor) = (Arc::clone(&answering), gate.now(), visitor.clone());
        Box::pin(async move { Ok(app.answer(&access, visitor, request.map(Body::new)).await) })
    });
    let mut connection = http1::Builder::new()
        // Without a timer the timeout would be none.
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEAD_FIELDS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // A client may close its side when it has sent its request.
        .half_close(true)
        .serve_connection(TokioIo::new(LastWord::on(attended)), service);
    let mut is_last = false;
    let served = loop {
        tokio::select! {
            served = poll_fn(|context| connection.poll_without_shutdown(context)) => break served,
            () = stopping.cancelled(), if !is_last => {
                is_last = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let mut stream = connection.into_parts().io.into_inner();
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection ended badly");
        // The body of an answer broke off.
        if error.is_user() {
            return stream.into_inner().await.into_inner().break_off();
        }
        if let Some(status) = stream.status().filter(|_| error.is_parse()) {
            stream.replace(app.not_understood(not_understood(status, &error))).await;
        }
    }
    let mut stream = stream.into_inner().await.into_inner();
    if stream.shutdown().await.is_ok() && !is_last {
        // Whoever does not listen by then never will.
        let _ = timeout(LINGER_MAX, discard(&mut stream)).await;
    }
}

/// Why something is no request.
fn not_understood(status: StatusCode, error: &hyper::Error) -> Problem {
    if status == StatusCode::BAD_REQUEST {
        return Problem::new(Code::MalformedRequest, format!("this is not HTTP/1.1: {error}"));
    }
    let detail = format!("request line and headers may have {HEAD_BYTES_MAX} bytes and {HEAD_FIELDS_MAX} fields");
    Problem::new(Code::HeadTooLarge, detail)
}

/// Reads what the client still sends, to no purpose but that it comes to an end.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut left = LINGER_BYTES_MAX;
    let mut sink = vec![0; 16 << 10];
    while let Ok(Ok(count @ 1..)) = timeout(LINGER_IDLE_MAX, stream.read(&mut sink)).await {
        let Some(rest) = left.checked_sub(count) else { return };
        left = rest;
    }
}
