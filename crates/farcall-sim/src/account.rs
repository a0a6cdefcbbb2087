//! An upstream that counts what comes in windows of its own, turns away what is too much, and tells how much remains. It
//! has other clients too, of whom nobody here knows.
//!
//! What it tells may be true, out of date, or anything at all.

use std::time::Duration;

use farcall_core::remaining::{Bound, Remaining};
use farcall_core::time::Instant;

use crate::dice::Dice;

/// How one server counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    count: u32,
    window: Duration,
    /// Requests of others that come between two of ours, at most.
    others_max: u32,
    tells: Tells,
    /// Answers that say nothing, in a hundred.
    silent_percent: u32,
    /// In the window that is open.
    used: u32,
    reset_at: Instant,
    /// What it said last.
    before: Option<(u32, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    Truth,
    /// What was true when the request before came.
    Stale,
    Anything,
}

/// What it makes of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// It came when the quota was used up.
    pub(crate) is_turned_away: bool,
    /// How much more it takes, and until when; nothing when it does not tell.
    pub(crate) said: Option<(u32, Instant)>,
    /// What it said is what it does.
    pub(crate) is_true: bool,
}

impl Account {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        Self {
            count: dice.spread_count(1, 60),
            window: dice.spread(Duration::from_millis(200), Duration::from_secs(7_200)),
            others_max: dice.count(0, 3),
            tells: *dice.pick(&[Tells::Truth, Tells::Truth, Tells::Truth, Tells::Stale, Tells::Anything]),
            silent_percent: *dice.pick(&[0, 0, 30]),
            used: 0,
            reset_at: Instant::MIN,
            before: None,
        }
    }

    /// Counts a request that comes now.
    pub(crate) fn count(&mut self, dice: &mut Dice, now: Instant, cost: u32) -> Counted {
        if self.reset_at <= now {
            (self.used, self.reset_at) = (0, now + self.window);
        }
        self.used = self.used.saturating_add(dice.count(0, self.others_max));
        let is_turned_away = self.used >= self.count;
        self.used = self.used.saturating_add(cost);
        let truth = (self.count.saturating_sub(self.used), self.reset_at);
        let before = self.before.replace(truth);
        let said = match self.tells {
            Tells::Truth => Some(truth),
            Tells::Stale => before,
            Tells::Anything => {
                let reset = dice.spread(Duration::from_millis(1), Duration::from_secs(3_000_000));
                Some((dice.count(0, 20), now + reset))
            }
        };
        let said = said.filter(|_| !dice.percent(self.silent_percent));
        Counted { is_turned_away, said, is_true: self.tells == Tells::Truth }
    }
}

impl Counted {
    /// How that reads at the moment at which the answer is there.
    pub(crate) fn read(&self, now: Instant) -> Option<Remaining> {
        let (remaining, reset_at) = self.said?;
        Remaining::of([Bound::new(u64::from(remaining), reset_at.since(now))])
    }
}
