//! `farcall list`: calls by filter, newest first, over as many pages as it takes.
//!
//! Every page is printed when it comes; a million calls need no more memory than one page.

use farcall_core::time::Timestamp;
use farcall_engine::clock;
use farcall_engine::outcome::rfc3339;

use super::records::{CALL, Page};
use crate::args::client::{Filters, ListArgs, Moment};
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::records::Listing;

/// The largest page that a server gives.
const PAGE_MAX: u64 = 1_000;

pub(crate) fn run(context: &Context, args: &ListArgs) -> Result<Exit, Failure> {
    context.refuse_settings("list")?;
    let mut client = Client::new(Target::of(context, &args.server)?);
    let filters = parameters(&args.filters, clock::now().timestamp);
    client::block_on(async {
        let mut listing = Listing::new(context, &CALL);
        let mut left = if args.all { u64::MAX } else { args.limit.get() };
        let mut cursor = args.cursor.clone();
        loop {
            let limit = left.min(PAGE_MAX).to_string();
            let query = filters.iter().map(|(name, value)| (*name, value.as_str()));
            let query = query.chain([("limit", limit.as_str())]).chain(cursor.iter().map(|at| ("cursor", at.as_str())));
            let page: Page = client.ask(Request::get(&["v1", "calls"]).query(query)).await?.document()?;
            listing.print(&page.data)?;
            left = left.saturating_sub(u64::try_from(page.data.len()).unwrap_or(u64::MAX));
            // A page may be empty and have another after it: the server looks at so many calls only at a time.
            cursor = page.next_cursor.filter(|next| cursor.as_ref() != Some(next));
            if left == 0 || cursor.is_none() {
                break;
            }
        }
        listing.end_or_tell("no calls");
        if let Some(cursor) = cursor.filter(|_| !context.global.quiet) {
            context.screen.tell(format_args!("there are more: --all, a higher --limit, or --cursor {cursor}"));
        }
        Ok(Exit::Ok)
    })
}

/// The filters as the API names them.
pub(super) fn parameters(filters: &Filters, now: Timestamp) -> Vec<(&'static str, String)> {
    let Filters { state, upstream, function, source, tag, since, until } = filters;
    let moment = |moment: &Option<Moment>| moment.as_ref().map(|moment| at(moment, now));
    let given = [
        ("state", (!state.is_empty()).then(|| state.join(","))),
        ("upstream", upstream.clone()),
        ("function", function.clone()),
        ("source", source.clone()),
        ("tag", tag.clone()),
        ("since", moment(since)),
        ("until", moment(until)),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn at(moment: &Moment, now: Timestamp) -> String {
    match moment {
        Moment::Ago(length) => {
            let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
            rfc3339(Timestamp::from_micros(now.as_micros().saturating_sub(micros)))
        }
        Moment::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn filters_are_named_as_the_api_names_them() {
        let filters = Filters {
            state: vec!["failed".into()],
            since: Some(Moment::Ago(Duration::from_secs(90))),
            until: Some(Moment::Text("2026-11-20T09:00:00Z".into())),
            ..Filters::default()
        };
        let now = Timestamp::from_micros(1_795_165_200_000_000);
        let expected = [("state", "failed"), ("since", "2026-11-20T08:58:30.000Z"), ("until", "2026-11-20T09:00:00Z")];
        assert_eq!(parameters(&filters, now), expected.map(|(name, value)| (name, value.to_owned())));
    }
}
