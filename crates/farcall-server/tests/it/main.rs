//! The server from the outside: real connections over loopback and the socket, a real engine on a store in memory.

mod addresses;
mod breakers;
mod bulk;
mod calls;
mod connections;
mod docs;
mod doors;
mod errors;
mod events;
mod explain;
mod farcall;
mod health;
mod http;
mod lists;
mod metrics;
mod monitoring;
mod openapi;
mod operations;
mod permits;
mod steering;
mod stopping;
mod unreadable;
mod upstream;
mod upstreams;
