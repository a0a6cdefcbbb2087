//! `farcall cancel ID...`: asks that calls end without being sent (any more).
//!
//! A call of which bytes may be out is told as such, and ends as it really ends.

use super::steer;
use crate::args::client::CallsArgs;
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context, args: &CallsArgs) -> Result<Exit, Failure> {
    steer::calls(context, args, "cancel")
}
