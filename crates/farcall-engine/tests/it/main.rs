//! Tests of the engine through its public interface, one module per part.

mod config;
