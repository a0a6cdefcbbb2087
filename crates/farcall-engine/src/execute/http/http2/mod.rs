//! HTTP/2: many requests on one connection, each with an account of its own.
//!
//! The h2 crate speaks the protocol; a wire below it sees every frame go out, so that for each request it is known
//! whether its first byte can have left and when its last one did. One task drives a connection; it ends with the
//! connection, and the connection with whoever uses it last. Nothing in here sends a request a second time.

mod classify;
mod connection;
mod exchange;
mod frames;
mod keep_alive;
mod ledger;
mod request;
mod wire;

pub(super) use connection::{Connection, Home, Place, Terms};
