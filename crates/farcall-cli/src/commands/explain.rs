//! `farcall explain ID`: what a call waits for, until when, and what comes before it.
//!
//! The server finds out; here it is shown.

use super::records;
use crate::args::client::ExplainArgs;
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::records::single;

pub(crate) fn run(context: &Context, args: &ExplainArgs) -> Result<Exit, Failure> {
    context.refuse_settings("explain")?;
    let mut client = Client::new(Target::of(context, &args.server)?);
    let id = records::call_id(&args.id)?;
    client::block_on(async {
        let answer = client.ask(Request::get(&["v1", "calls", &id, "explain"])).await?;
        single(context, "id", &answer.document::<Box<_>>()?)?;
        Ok(Exit::Ok)
    })
}
