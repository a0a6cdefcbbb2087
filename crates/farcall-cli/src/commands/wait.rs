//! `farcall wait ID...`: until each of some calls has ended, printing each as it does.
//!
//! The server is asked again and again, some calls at a time. One that goes away meanwhile, for a restart, is waited
//! for as well.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::anyhow;
use farcall_engine::quantity::duration;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use super::records::{self, CALL};
use crate::args::client::WaitArgs;
use crate::client::{self, Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::counted;
use crate::print::records::Listing;

/// How long is waited between two rounds, the first time and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How many calls one round asks for.
const ROUND_MAX: usize = 64;
/// How many rounds in a row may find no server before it is given up, and the pause between them: half a minute.
const LOST_MAX: u32 = 30;
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// What of a call says whether it has ended, and how.
#[derive(Debug, Deserialize)]
struct Progress {
    state: String,
    finished_at: Option<String>,
}

/// Calls that are waited for.
struct Waiting<'a> {
    context: &'a Context,
    client: Client,
    /// Those that have not ended; the ones in front are asked for next.
    pending: VecDeque<String>,
    /// Those that ended and are not printed yet.
    ended: Vec<Box<RawValue>>,
    listing: Listing<'a>,
    failed: u64,
    count: usize,
}

pub(crate) fn run(context: &Context, args: &WaitArgs) -> Result<Exit, Failure> {
    context.refuse_settings("wait")?;
    let mut seen = HashSet::new();
    let ids = args.ids.iter().map(|id| records::call_id(id)).collect::<Result<Vec<_>, _>>()?;
    let pending: VecDeque<_> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
    let mut waiting = Waiting {
        context,
        client: Client::new(Target::of(context, &args.server)?),
        count: pending.len(),
        pending,
        ended: Vec::new(),
        listing: Listing::new(context, &CALL),
        failed: 0,
    };
    client::block_on(async {
        let waited = match args.timeout {
            Some(length) => match timeout(length, waiting.all()).await {
                Ok(waited) => waited,
                Err(_) => Err(waiting.timed_out(length)),
            },
            None => waiting.all().await,
        };
        waiting.finish(waited)
    })
}

impl Waiting<'_> {
    /// Goes on until all have ended.
    async fn all(&mut self) -> Result<(), Failure> {
        let (mut pause, mut lost) = (PAUSE_FIRST, 0);
        let mut met = false;
        loop {
            let before = self.pending.len();
            match self.round().await {
                Ok(()) => (met, lost) = (true, 0),
                // It was there a moment ago: it may be on its way back.
                Err(failure) if met && failure.exit() == Exit::Unreachable && lost < LOST_MAX => {
                    if lost == 0 && !self.context.global.quiet {
                        self.context.screen.tell(format_args!("{}", failure.render(false)));
                        self.context.screen.tell("waiting for the server to come back");
                    }
                    lost += 1;
                    sleep(LOST_PAUSE).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            if self.pending.is_empty() {
                return Ok(());
            }
            pause = if self.pending.len() < before { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
            sleep(pause).await;
        }
    }

    /// Asks once for those in front, and puts those that have not ended to the back.
    async fn round(&mut self) -> Result<(), Failure> {
        for _ in 0..self.pending.len().min(ROUND_MAX) {
            let Some(id) = self.pending.front() else { break };
            let call: Box<RawValue> = self.client.ask(Request::get(&["v1", "calls", id])).await?.document()?;
            let progress: Progress = records::read(&call)?;
            let Some(id) = self.pending.pop_front() else { break };
            if progress.finished_at.is_none() {
                self.pending.push_back(id);
                continue;
            }
            self.failed += u64::from(!matches!(progress.state.as_str(), "succeeded" | "cancelled"));
            self.ended.push(call);
            if self.listing.is_streaming() {
                self.listing.print(&std::mem::take(&mut self.ended))?;
            }
        }
        Ok(())
    }

    fn timed_out(&self, length: Duration) -> Failure {
        let pending = self.pending.len();
        let first = self.pending.front().map(String::as_str).unwrap_or_default();
        let others = if pending > 1 { format!(" and {} more", pending - 1) } else { String::new() };
        let length = duration::to_text(length);
        Failure::new(
            Exit::TimedOut,
            anyhow!("{pending} of {} not ended within {length}: {first}{others}", counted(self.count as u64, "call")),
        )
        .with_hint("`farcall explain ID` says what a call waits for")
    }

    /// Prints what is left to print.
    fn finish(mut self, waited: Result<(), Failure>) -> Result<Exit, Failure> {
        self.listing.print(&self.ended)?;
        self.listing.end();
        waited?;
        Ok(if self.failed == 0 { Exit::Ok } else { Exit::CallFailed })
    }
}
