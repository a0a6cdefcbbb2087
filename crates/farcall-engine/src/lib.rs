//! The shell around the core: one engine that takes calls in, makes their attempts and keeps their outcomes.
//!
//! Everything that waits, reads or writes is here; everything that chooses is in `farcall-core`. Servers and programs
//! talk to the engine through its `Handle` only. The engine names no database: a store is handed in.

pub mod batch;
pub mod callback;
pub mod cause;
pub mod clock;
pub mod config;
mod connection_headers;
pub mod document;
mod engine;
pub mod execute;
mod filing;
pub mod forward;
mod handle;
mod inbox;
pub mod intake;
mod journal;
mod keeper;
pub mod listing;
mod media_type;
pub mod metrics;
mod nearest;
mod one_host;
pub mod operations;
pub mod outcome;
pub mod proxy;
pub mod quantity;
mod reads;
mod redirect;
mod request;
pub mod result_file;
mod retry_override;
mod run;
pub mod schema;
pub mod secret;
pub mod steer;
pub mod trace;
mod upstreams;
pub mod watch;

// What a handle's answers are made of.
pub use farcall_store::port::ReadError;
pub use farcall_store::record::{AttemptRecord, CallRecord, ErrorRecord, OutcomeRecord, ResponseRecord};

pub use engine::{Engine, Options, StartError};
pub use handle::{
    Accepted, CallView, ControlError, Explained, Handle, LimitView, Overview, ReloadError, SUBMISSIONS_MAX, Setting,
    Snapshot, StoreHealth, Submission, SubmitError, UpstreamOverview, UpstreamView,
};
