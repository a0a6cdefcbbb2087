//! The engine from the outside, against a real loopback network and a real file system; one module per part.

mod config;
mod engine;
mod forgotten;
mod forward;
mod hostile;
mod http;
mod permits;
mod refusals;
mod scale;
mod storage;
mod told;
mod upstream;
