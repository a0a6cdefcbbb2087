//! What a callback tells, and how: a command with the values of the call that ended, or a signed request with its outcome.
//!
//! When a callback runs, and how often, is decided elsewhere; it is a call like any other.

mod command;
mod signature;
pub(crate) mod stored;
pub(crate) mod webhook;

pub(crate) use command::command;
pub use command::{CallbackValues, environment, expand, has_variable};
pub use signature::{SigningKey, SigningKeyError};
