//! The server from the outside: real connections over loopback and the socket, a real engine on a store in memory.

mod addresses;
mod calls;
mod connections;
mod doors;
mod errors;
mod explain;
mod farcall;
mod health;
mod http;
mod stopping;
mod unreadable;
mod upstream;
mod upstreams;
