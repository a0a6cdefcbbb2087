//! How things read over the wire: JSON documents made from what the engine tells.
//!
//! Headers, bodies, errors and times read as in response files: that form is the engine's `outcome`.

mod attempt;
mod call;
mod calls;
mod event;
mod explain;
mod health;
mod operation;
mod permit;
mod upstream;

pub(crate) use attempt::Attempts;
pub(crate) use call::AcceptedId;
pub(crate) use calls::Calls;
pub(crate) use event::{BreakerEvent, CallEvent};
pub(crate) use explain::Explanation;
pub(crate) use farcall_engine::outcome::Call;
pub(crate) use health::Health;
pub(crate) use operation::Operation;
pub(crate) use permit::{Permit, Released};
pub(crate) use upstream::{Upstream, Upstreams};
