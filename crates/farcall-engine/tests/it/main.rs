//! The engine from the outside, against a real loopback network and a real file system.

mod http;
mod upstream;
