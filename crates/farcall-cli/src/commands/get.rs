//! `farcall get ID`: a call as it stands, the attempts made for it, or its answer's body.
//!
//! That it ended badly is no failure of this command: it was found.

use anyhow::Context as _;

use super::records::{self, ATTEMPT, Page};
use crate::args::client::GetArgs;
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::records::{Listing, single};

pub(crate) fn run(context: &Context, args: &GetArgs) -> Result<Exit, Failure> {
    context.refuse_settings("get")?;
    let mut client = Client::new(Target::of(context, &args.server)?);
    let id = records::call_id(&args.id)?;
    client::block_on(async {
        if args.response {
            let answer = client.ask(Request::get(&["v1", "calls", &id, "response"])).await?;
            let printed = context.screen.bytes(&answer.body).context("the answer cannot be written");
            printed.map_err(|error| Failure::new(Exit::Usage, error))?;
        } else if args.attempts {
            let page: Page = client.ask(Request::get(&["v1", "calls", &id, "attempts"])).await?.document()?;
            let mut listing = Listing::new(context, &ATTEMPT);
            listing.print(&page.data)?;
            listing.end_or_tell("no attempts yet");
        } else {
            single(context, "id", &client.ask(Request::get(&["v1", "calls", &id])).await?.document::<Box<_>>()?)?;
        }
        Ok(Exit::Ok)
    })
}
