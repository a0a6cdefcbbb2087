//! What goes wrong in a run, and when: each seed has a random subset. From `heal_after` on, nothing does.
//!
//! Only drawn here; each happens where it belongs.

use std::time::Duration;

use crate::dice::Dice;
use crate::disk::Outcome;

/// The longest time for which a disk is full: it is tried every second, and each time is the same.
const FULL_MAX: Duration = Duration::from_secs(600);

/// The faults of one run; times count from its start.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    /// The process is killed, if it runs.
    pub(crate) crashes_after: Vec<Duration>,
    /// The process is asked to stop, and is given this long.
    pub(crate) drains_after: Vec<(Duration, Duration)>,
    /// Percent of starts that are followed by a crash before they have settled down.
    pub(crate) crash_loop_percent: u32,
    /// Launches of which a crash soon follows, out of a thousand.
    pub(crate) launch_crash_permille: u64,
    pub(crate) downtime_max: Duration,
    /// The wall clock is put forward or back by so many microseconds.
    pub(crate) wall_jumps: Vec<(Duration, i64)>,
    /// Percent of starts for which the whole machine was started anew.
    pub(crate) reboot_percent: u32,
    /// The configuration is changed while the process runs, if limits change at all.
    pub(crate) reconfigured_after: Vec<Duration>,
    /// Upstreams that nothing needs are forgotten, and come back at once.
    pub(crate) forgets_after: Vec<Duration>,
    /// Limits are other ones after a start.
    pub(crate) changes_limits: bool,
    pub(crate) commit_max: Duration,
    /// A commit now and then takes this long.
    pub(crate) commit_slow_max: Duration,
    /// A read takes up to this long, and so long again before the engine hears of it.
    pub(crate) read_max: Duration,
    /// The process does nothing for so long.
    pub(crate) stalls_after: Vec<(Duration, Duration)>,
    /// Nothing is to start at an upstream from the one to the other.
    pub(crate) pauses: Vec<Outage>,
    /// Executors report the end of an attempt a second time, and otherwise, in so many of a hundred.
    pub(crate) echo_percent: u32,
    /// The disk is full from the one to the other.
    pub(crate) fulls: Vec<(Duration, Duration)>,
    /// Commits that fail so that nothing certain is known, out of a thousand.
    pub(crate) unknown_permille: u64,
    /// How long it may take to open the store again.
    pub(crate) reopen_max: Duration,
    pub(crate) file_delay_max: Duration,
    /// Percent of loads that fail.
    pub(crate) read_failure_percent: u32,
    pub(crate) outages: Vec<Outage>,
    pub(crate) heal_after: Duration,
}

/// A time in which an upstream accepts no connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) upstream: u32,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

impl Faults {
    /// `span` is the time over which calls come, `longest` that of the longest window.
    pub(crate) fn draw(dice: &mut Dice, upstreams: u32, span: Duration, longest: Duration) -> Self {
        let moment = Duration::from_millis(1);
        let over = dice.spread(span, span.max(longest) * 2);
        let crashes = if dice.percent(60) { dice.spread_count(1, 30) } else { 0 };
        let drains = if dice.percent(30) { dice.count(1, 3) } else { 0 };
        let outages = if dice.percent(30) { dice.count(1, 3) } else { 0 };
        let pauses = if dice.percent(30) { dice.count(1, 4) } else { 0 };
        let forgets = if dice.percent(50) { dice.spread_count(1, 40) } else { 0 };
        let slow = if dice.percent(30) { 4 } else { 1 };
        let commit_max = dice.spread(Duration::from_micros(50), Duration::from_millis(20));
        Self {
            crashes_after: (0..crashes).map(|_| dice.spread(moment, over)).collect(),
            drains_after: (0..drains)
                .map(|_| (dice.up_to(over), dice.spread(moment, Duration::from_secs(40))))
                .collect(),
            crash_loop_percent: if dice.percent(30) { 50 } else { 0 },
            launch_crash_permille: if dice.percent(20) { dice.between(1, 30) } else { 0 },
            downtime_max: dice.spread(moment, Duration::from_secs(600)),
            wall_jumps: if dice.percent(30) { wall_jumps(dice, over) } else { Vec::new() },
            reboot_percent: if dice.percent(40) { 50 } else { 0 },
            reconfigured_after: (0..dice.count(0, 5)).map(|_| dice.up_to(over)).collect(),
            forgets_after: (0..forgets).map(|_| dice.up_to(over)).collect(),
            changes_limits: dice.percent(40),
            commit_max,
            commit_slow_max: dice.spread(moment, Duration::from_secs(3)),
            read_max: if dice.percent(40) { dice.spread(moment, Duration::from_secs(30)) } else { commit_max },
            stalls_after: Self::draw_stalls(dice, over),
            pauses: (0..pauses).map(|_| Outage::draw(dice, upstreams, over)).collect(),
            echo_percent: if dice.percent(20) { 10 } else { 0 },
            fulls: Self::draw_fulls(dice, over),
            unknown_permille: if dice.percent(25) { dice.between(1, 100) } else { 0 },
            reopen_max: dice.spread(moment, Duration::from_secs(20)),
            read_failure_percent: if dice.percent(20) { dice.count(1, 40) } else { 0 },
            file_delay_max: dice.spread(moment, Duration::from_secs(5)),
            outages: (0..outages).map(|_| Outage::draw(dice, upstreams, over)).collect(),
            heal_after: over * slow,
        }
    }

    /// How wrong a wall clock is, in microseconds: back or, unless it `only_lags`, forward.
    pub(crate) fn clock_error(dice: &mut Dice, only_lags: bool) -> i64 {
        if dice.percent(30) {
            return 0;
        }
        let by = dice.spread(Duration::from_millis(1), Duration::from_secs(400 * 86_400));
        let by_us = i64::try_from(by.as_micros()).expect("little over a year");
        if only_lags || dice.percent(50) { -by_us } else { by_us }
    }

    pub(crate) fn commit_latency(&self, dice: &mut Dice, healed: bool) -> Duration {
        if healed || !dice.percent(3) { dice.up_to(self.commit_max) } else { dice.up_to(self.commit_slow_max) }
    }

    /// How long a read takes, or what was read until the engine hears of it.
    pub(crate) fn read_latency(&self, dice: &mut Dice, healed: bool) -> Duration {
        dice.up_to(if healed { self.commit_max } else { self.read_max })
    }

    /// What becomes of a commit that begins this long after the start of the run.
    pub(crate) fn outcome(&self, dice: &mut Dice, after: Duration) -> Outcome {
        if self.fulls.iter().any(|&(from, until)| (from..until).contains(&after)) {
            return Outcome::Full;
        }
        if dice.between(0, 999) < self.unknown_permille {
            return Outcome::Unknown { is_kept: dice.percent(50) };
        }
        Outcome::Durable
    }

    pub(crate) fn reopen_time(&self, dice: &mut Dice) -> Duration {
        dice.up_to(self.reopen_max)
    }

    /// The longest time in which nothing can be written, or the process does nothing.
    pub(crate) fn trouble_max(&self) -> Duration {
        let full = self.fulls.iter().map(|&(from, until)| until.saturating_sub(from)).sum::<Duration>();
        full + self.reopen_max * 4 + self.stall_max() * 2 + Duration::from_secs(3)
    }

    /// The longest time in which the process does nothing.
    pub(crate) fn stall_max(&self) -> Duration {
        self.stalls_after.iter().map(|&(_, length)| length).max().unwrap_or_default()
    }

    fn draw_stalls(dice: &mut Dice, over: Duration) -> Vec<(Duration, Duration)> {
        let count = if dice.percent(40) { dice.spread_count(1, 60) } else { 0 };
        let longest = dice.spread(Duration::from_millis(1), Duration::from_secs(60));
        (0..count).map(|_| (dice.up_to(over), dice.spread(Duration::from_micros(10), longest))).collect()
    }

    fn draw_fulls(dice: &mut Dice, over: Duration) -> Vec<(Duration, Duration)> {
        let count = if dice.percent(30) { dice.count(1, 6) } else { 0 };
        let full = |dice: &mut Dice| {
            let from = dice.up_to(over);
            (from, from + dice.spread(Duration::from_millis(1), over.min(FULL_MAX)))
        };
        (0..count).map(|_| full(dice)).collect()
    }

    pub(crate) fn is_out(&self, upstream: u32, after: Duration) -> bool {
        self.outages.iter().any(|outage| outage.upstream == upstream && (outage.from..outage.until).contains(&after))
    }
}

fn wall_jumps(dice: &mut Dice, over: Duration) -> Vec<(Duration, i64)> {
    (0..dice.count(1, 6)).map(|_| (dice.up_to(over), Faults::clock_error(dice, false))).collect()
}

impl Outage {
    fn draw(dice: &mut Dice, upstreams: u32, over: Duration) -> Self {
        let from = dice.up_to(over);
        Self { upstream: dice.count(0, upstreams), from, until: from + dice.spread(Duration::from_millis(10), over) }
    }
}
