//! The HTTP face of an engine: a TCP port for programs and browsers, a socket for the user's own commands.
//!
//! Requests are checked, understood and handed to the engine's `Handle`; nothing is decided here, and the store is
//! never touched. A request passes `app` (the steps every request takes, in order), `access` (who may come in) and
//! `routes` (one file per resource); `wire` is how things read, `problem` how failures do. Requests that are not HTTP
//! at all never get that far: `last_word` answers them in hyper's place.

mod access;
mod app;
mod attended;
mod body;
mod connection;
mod gateway;
mod last_word;
mod listen;
mod metrics;
mod openapi;
mod panics;
mod places;
mod problem;
mod routes;
mod server;
mod wire;

pub use listen::{BindError, Listeners};
pub use server::{Options, Server};
