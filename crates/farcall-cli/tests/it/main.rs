//! Tests of the real binary, one module per part of it.
//!
//! They start processes, use directories of their own and nothing but loopback, and run side by side.

mod batch;
mod breakers;
mod call;
mod cancels;
mod client;
mod clocks;
mod crash;
mod crash_points;
mod damage;
mod demo;
mod disk_errors;
mod disk_full;
mod gateway;
mod hedging;
mod inbox;
mod keys;
mod kofaf;
mod launch;
mod memory;
mod monitoring;
mod multiplexed;
mod order;
mod outage;
mod permits;
mod power;
mod problems;
mod quota;
mod redirects;
mod reload;
mod retention;
mod rig;
mod running;
mod secrets;
mod serving;
mod stopping;
mod traces;
mod upstreams;
mod usage;
mod webhooks;
