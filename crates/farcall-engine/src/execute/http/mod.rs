//! Sending one HTTP/1.1 request, exactly once, and telling exactly what became of it.
//!
//! [`Transport`] is the way to one upstream: its idle connections, its trust, its caps. Nothing in here retries,
//! follows a redirect, reads a proxy from the environment or keeps a cookie: what the engine did not ask for is not
//! sent. Connections are driven inside the attempt that uses them, so giving an attempt up closes its connection at
//! once, and no task outlives its attempt.

mod address;
mod answer;
mod classify;
mod connect;
mod connection;
mod decode;
mod dns;
mod meter;
mod outgoing;
mod pool;
mod retry_after;
mod tls;
mod transport;
mod tunnel;
mod wire;

pub use dns::Resolver;
pub use pool::Room;
pub use tls::CaError;
pub use transport::{Transport, TransportError, TransportSettings};
