//! Tests of the real binary, one module per part of it.
//!
//! They start processes, use directories of their own and nothing but loopback, and run side by side.

mod launch;
