//! The bar of `farcall run` and `farcall batch`: how much is done, what failed, what waits and why, how fast it goes, how long it takes.
//!
//! Shown on a terminal only. Two lines, drawn a few times a second from what the engine says of itself.

use std::collections::VecDeque;
use std::time::Duration;

use farcall_core::call::{State, WaitReason};
use farcall_core::time::{Instant, Now};
use farcall_engine::{Overview, Snapshot};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::context::Context;
use crate::summary::Tally;

/// The rate is that of the last seconds.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Two lines on a terminal, or nothing.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Option<Bars>,
    rate: Rate,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    done: ProgressBar,
    waiting: ProgressBar,
}

/// What there is to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) overview: &'a Overview,
    pub(crate) snapshot: &'a Snapshot,
    /// Files in the inbox that are not calls yet.
    pub(crate) inbox: u64,
    pub(crate) rejected: u64,
    pub(crate) now: Now,
}

/// How many have come to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// Succeeded or cancelled.
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// Beside all others.
    pub(crate) rejected: u64,
    pub(crate) left: u64,
}

impl Progress {
    pub(crate) fn new(context: &Context) -> Self {
        let is_shown = context.screen.stderr_is_terminal() && !context.global.quiet;
        let shown = is_shown.then(|| Bars::new(context.screen.stderr_has_color()));
        Self { shown, rate: Rate::default() }
    }

    /// The bars, for whoever else writes to the terminal.
    pub(crate) fn bars(&self) -> Option<MultiProgress> {
        self.shown.as_ref().map(|bars| bars.all.clone())
    }

    pub(crate) fn show(&mut self, standing: Standing<'_>) {
        let Standing { overview, snapshot, inbox, rejected, now } = standing;
        let tally = Tally::of(overview);
        let count = Count {
            succeeded: tally.succeeded() + tally.cancelled(),
            failed: tally.failed(),
            rejected,
            left: live(snapshot) + inbox,
        };
        let mut waiting = waiting_line(overview, snapshot, now);
        if inbox > 0 {
            let separator = if waiting.is_empty() { "" } else { ", " };
            waiting.push_str(&format!("{separator}{inbox} in the inbox"));
        }
        self.show_count(count, waiting, now);
    }

    /// Shows so many, and a line of what the others wait for.
    pub(crate) fn show_count(&mut self, count: Count, waiting: String, now: Now) {
        let ended = count.succeeded + count.failed;
        self.rate.note(now.instant, ended);
        let Some(bars) = &self.shown else { return };
        // A bar of nothing at all would look like one of all.
        if ended + count.left == 0 {
            return;
        }
        bars.done.set_length(ended + count.left);
        bars.done.set_position(ended);
        bars.done.set_message(done_line(count, &self.rate));
        bars.waiting.set_message(waiting);
        bars.done.tick();
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        if let Some(bars) = &self.shown {
            bars.done.finish_and_clear();
            bars.waiting.finish_and_clear();
        }
    }
}

impl Bars {
    fn new(has_color: bool) -> Self {
        let all = MultiProgress::new();
        let bar = if has_color { "{bar:30.green/black.bright}" } else { "{bar:30}" };
        let style = |template: &str| ProgressStyle::with_template(template).expect("the template is ours");
        let done_style = style(&format!("{bar} {{pos}}/{{len}}  {{wide_msg}}")).progress_chars("━╸─");
        let done = all.add(ProgressBar::no_length().with_style(done_style));
        let waiting = all.add(ProgressBar::no_length().with_style(style("{wide_msg}")));
        Self { all, done, waiting }
    }
}

/// Calls that have not ended.
pub(crate) fn live(snapshot: &Snapshot) -> u64 {
    State::ALL.iter().filter(|state| !state.is_end()).map(|&state| snapshot.census.calls(state)).sum()
}

/// `118 done, 2 failed, 12/s, 1m 20s left`
fn done_line(count: Count, rate: &Rate) -> String {
    let mut parts = vec![format!("{} done", count.succeeded)];
    if count.failed > 0 {
        parts.push(format!("{} failed", count.failed));
    }
    if count.rejected > 0 {
        parts.push(format!("{} rejected", count.rejected));
    }
    if let Some(per_second) = rate.per_second() {
        parts.push(format!("{per_second:.1}/s"));
        parts.push(format!("{} left", spoken(estimate(count.left, per_second))));
    }
    parts.join(", ")
}

/// `3 running, 870 wait: rate_limit 863, backoff 7, next in 2s`
pub(crate) fn waiting_line(overview: &Overview, snapshot: &Snapshot, now: Now) -> String {
    let mut parts = Vec::new();
    if snapshot.is_draining {
        parts.push("stopping, once more Ctrl-C stops at once".to_owned());
    }
    if snapshot.in_flight > 0 {
        parts.push(format!("{} running", snapshot.in_flight));
    }
    let waiting: u64 = overview.waiting.iter().map(|(_, count)| count).sum();
    if waiting > 0 {
        let reasons: Vec<_> = overview.waiting.iter().map(|(reason, count)| reason_count(*reason, *count)).collect();
        parts.push(format!("{waiting} wait: {}", reasons.join(", ")));
    }
    if let Some(at) = overview.next_at {
        let pause = at.since(now.timestamp);
        if pause >= Duration::from_secs(1) {
            parts.push(format!("next in {}", spoken(pause)));
        }
    }
    parts.join(", ")
}

fn reason_count(reason: WaitReason, count: u64) -> String {
    format!("{} {count}", reason.as_str())
}

fn estimate(left: u64, per_second: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    let seconds = left as f64 / per_second;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// `12s`, `1m 20s`, `3h 05m`, `4d 07h`
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// How fast calls end.
#[derive(Debug, Default)]
struct Rate {
    /// When so many had ended, oldest first.
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn note(&mut self, now: Instant, ended: u64) {
        self.samples.push_back((now, ended));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now.since(*at) > RATE_WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Nothing before it can be told.
    fn per_second(&self) -> Option<f64> {
        let ((first_at, first), (last_at, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = last_at.since(*first_at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = last.saturating_sub(*first) as f64;
        (seconds >= 0.5 && count > 0.0).then(|| count / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), None);
        for (millis, ended) in [(0, 0), (1_000, 100), (11_000, 120), (21_000, 140)] {
            rate.note(at(millis), ended);
        }
        assert_eq!(rate.per_second(), Some(2.0));
    }

    #[test]
    fn durations_are_said_as_people_say_them() {
        let said = [0, 59, 80, 3_900, 90_000].map(|seconds| spoken(Duration::from_secs(seconds)));
        assert_eq!(said, ["0s", "59s", "1m 20s", "1h 05m", "1d 01h"]);
        assert_eq!(estimate(10, f64::MIN_POSITIVE), Duration::MAX);
    }

    #[test]
    fn what_waits_is_told_with_its_reasons() {
        let overview = Overview {
            waiting: vec![(WaitReason::Backoff, 7), (WaitReason::RateLimit, 3)],
            next_at: Some(farcall_core::time::Timestamp::from_micros(90_000_000)),
            ..Overview::default()
        };
        let snapshot = Snapshot { in_flight: 2, ..Snapshot::default() };
        let now = Now { instant: at(0), timestamp: farcall_core::time::Timestamp::from_micros(0) };
        let line = waiting_line(&overview, &snapshot, now);
        assert_eq!(line, "2 running, 10 wait: backoff 7, rate_limit 3, next in 1m 30s");
    }
}
