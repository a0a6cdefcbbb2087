//! What a batch says of itself: a bar while it runs, a sentence at its end, an exit code.
//!
//! Results go elsewhere; all of this goes to stderr.

use std::time::Duration;

use farcall_core::time::Instant;
use farcall_engine::batch::{Standing, Tally};
use farcall_engine::clock;
use indicatif::MultiProgress;
use tokio::time::Interval;

use super::place::Place;
use crate::args::batch::BatchArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::print::{Screen, counted};
use crate::progress::{Count, Progress, spoken, waiting_line};
use crate::session::Session;

const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// What is told while it runs, and at its end.
pub(super) struct Report {
    progress: Progress,
    draws: Option<Interval>,
    screen: Screen,
    is_quiet: bool,
    begun_at: Instant,
    /// The input's size, when that is known.
    input_bytes: Option<u64>,
    output: String,
}

impl Report {
    pub(super) fn new(context: &Context, args: &BatchArgs) -> Self {
        Self {
            progress: Progress::new(context),
            draws: None,
            screen: context.screen,
            is_quiet: context.global.quiet,
            begun_at: clock::now().instant,
            input_bytes: None,
            output: args.out.as_ref().map_or_else(String::new, |path| format!(", results in {}", path.display())),
        }
    }

    /// The bars, for whoever else writes to the terminal.
    pub(super) fn bars(&self) -> Option<MultiProgress> {
        self.progress.bars()
    }

    /// It is about to run. Must be called inside a tokio runtime.
    pub(super) fn begin(&mut self, place: &Place, written: u64) {
        self.draws = Some(tokio::time::interval(DRAW_INTERVAL));
        self.input_bytes = place.input_bytes();
        if written > 0 {
            self.tell(&format!("going on: {} written already", counted(written, "result")));
        }
    }

    pub(super) fn tell(&self, line: &str) {
        if !self.is_quiet {
            self.screen.tell(line);
        }
    }

    /// Until the bar is to be drawn again.
    pub(super) async fn next_draw(&mut self) {
        match &mut self.draws {
            Some(draws) if self.progress.bars().is_some() => drop(draws.tick().await),
            _ => std::future::pending().await,
        }
    }

    pub(super) async fn draw(&mut self, session: &Session, standing: &Standing) {
        let overview = session.handle.overview().await;
        let now = clock::now();
        let waiting = waiting_line(&overview, &session.handle.snapshot(), now);
        self.draw_with(standing, waiting);
    }

    /// The same of a server, which is not asked what it waits for.
    pub(super) fn draw_with(&mut self, standing: &Standing, waiting: String) {
        let tally = &standing.tally;
        let count = Count {
            succeeded: tally.total() - tally.failed(),
            failed: tally.failed() - tally.rejected(),
            rejected: tally.rejected(),
            left: self.lines(standing).saturating_sub(tally.total()),
        };
        self.progress.show_count(count, waiting, clock::now());
    }

    pub(super) fn clear(&self) {
        self.progress.clear();
    }

    /// All lines have their results.
    pub(super) fn finished(&self, tally: &Tally, was_finished: bool) -> Exit {
        if was_finished {
            self.tell("this batch has ended already; --restart begins anew");
        }
        let took = spoken(clock::now().instant.since(self.begun_at));
        let took = if was_finished { String::new() } else { format!(" in {took}") };
        self.tell(&format!("{}{took}{}", sentence(tally), self.output));
        if tally.failed() > 0 { Exit::CallFailed } else { Exit::Ok }
    }

    /// The rest is left.
    pub(super) fn interrupted(&self, standing: &Standing) -> Exit {
        let written = standing.tally.total();
        let left = u64::from(standing.lines).saturating_sub(written);
        let unread = if standing.is_read { "" } else { ", and lines that were not read" };
        self.tell(&format!(
            "{}; {left} submitted without result yet{unread}; the same command goes on",
            sentence(&standing.tally)
        ));
        Exit::Interrupted
    }

    /// How many lines there are, or seem to be from the length of those that were read.
    fn lines(&self, standing: &Standing) -> u64 {
        let read = u64::from(standing.lines);
        match self.input_bytes {
            Some(bytes) if !standing.is_read && standing.bytes > 0 => {
                let estimate = u128::from(bytes) * u128::from(read) / u128::from(standing.bytes);
                u64::try_from(estimate).unwrap_or(u64::MAX).max(read)
            }
            _ => read,
        }
    }
}

/// `120 lines: 118 succeeded, 2 failed`
fn sentence(tally: &Tally) -> String {
    let counts: Vec<String> = tally.counts().map(|(state, count)| format!("{count} {state}")).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    format!("{}{counts}", counted(tally.total(), "result"))
}
