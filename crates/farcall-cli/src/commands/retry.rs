//! `farcall retry ID...`: makes ended calls anew.
//!
//! Each is a call of its own, and the old one keeps its end.

use super::steer;
use crate::args::client::CallsArgs;
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context, args: &CallsArgs) -> Result<Exit, Failure> {
    steer::calls(context, args, "retry")
}
