//! Sending one request, by HTTP/1.1 or HTTP/2, exactly once, and telling exactly what became of it.
//!
//! [`Transport`] is the way to one upstream: its idle connections, its trust, its caps. Nothing in here retries,
//! follows a redirect, reads a proxy from the environment or keeps a cookie: what the engine did not ask for is not
//! sent. An HTTP/1.1 connection is driven inside the attempt that uses it, so giving the attempt up closes it at once. An
//! HTTP/2 connection is shared, and giving an attempt up ends its stream.

mod address;
mod answer;
mod classify;
mod connect;
mod connection;
mod decode;
mod dns;
mod http2;
mod http_date;
mod meter;
mod outgoing;
mod pool;
mod quota;
mod relay;
mod retry_after;
mod room;
mod tls;
mod transport;
mod tunnel;
mod ways;
mod wire;

use std::time::Duration;

use farcall_core::remaining::Remaining;
use farcall_core::time::Timestamp;
use http::HeaderMap;

pub use dns::Resolver;
pub use room::{Room, RoomSize};
pub use tls::CaError;
pub use transport::{Transport, TransportError, TransportSettings};

/// What an answer's headers say of when to come back, and of how much more its upstream takes.
pub(crate) fn told(headers: &HeaderMap, now: Timestamp) -> (Option<Duration>, Option<Remaining>) {
    (retry_after::wait(headers, now), quota::read(headers, now))
}
