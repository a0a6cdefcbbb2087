//! The gateway: `/proxy/{upstream}/{path}` and routes, as clients and upstreams see them byte by byte.

mod access;
mod examples;
mod fields;
mod passing;
mod refusals;
mod rig;
mod routes;
mod sharing;
mod smart;
mod streams;
