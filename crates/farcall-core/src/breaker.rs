//! The breaker of one upstream: too much of what it was lately sent failed, so it is left alone for a while.
//!
//! Closed it counts what becomes of attempts; once at least `calls` of the last `window` are known and the share of
//! failures among them is reached, it opens. Open it lets nothing through for `open`, then one attempt alone, the probe:
//! when that works the breaker closes, when it fails it is open anew. What an attempt says of its upstream is
//! [`evidence`]. Why it works so, and what a restart makes of it: `docs/design/0041`.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::call::{ErrorKind, words};
use crate::classify::Verdict;
use crate::share::Share;
use crate::time::Instant;

/// Moments that the window tells apart: an outcome counts for all of the window, or up to a tenth less.
const SLICES: i64 = 10;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// The share of failures at which it opens.
    pub failures: Share,
    /// Fewer outcomes than this say nothing.
    pub calls: NonZeroU32,
    /// How long an outcome counts.
    pub window: Duration,
    /// How long nothing is sent, and how far apart probes are at least.
    pub open: Duration,
}

impl Default for BreakerPolicy {
    /// 50 % of at least 10 calls within 30 s, open for 30 s.
    fn default() -> Self {
        Self {
            failures: Share::from_percent(50.0).expect("a share"),
            calls: NonZeroU32::new(10).expect("not zero"),
            window: Duration::from_secs(30),
            open: Duration::from_secs(30),
        }
    }
}

words! {
    /// How a breaker stands.
    BreakerState {
        /// Everything may start.
        Closed = "closed",
        /// One attempt may start, or is out.
        HalfOpen = "half_open",
        /// Nothing starts.
        Open = "open",
    }
}

/// What one attempt says of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It answered, below 500 or as the policy wants it.
    Works,
    /// It answered with 500 or above, not in time, not whole, or not at all.
    Fails,
    /// Nothing: it ended for reasons of ours, or was cut off.
    Nothing,
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Free,
    /// As the probe.
    Probe,
    /// Not before then.
    NotBefore(Instant),
    /// Not before the probe has ended.
    AfterProbe,
}

/// What an attempt took along when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// How often the breaker had opened, or was closed by hand. Attempts from before that say nothing any more.
    turn: u32,
    is_probe: bool,
}

/// The breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    phase: Phase,
    turn: u32,
    outcomes: Outcomes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Since then: a probe may start `open` later.
    Open {
        since: Instant,
    },
    /// A probe is out since then. It was open since before.
    Probing {
        since: Instant,
        open_since: Instant,
    },
}

/// Outcomes of a while, counted by slices of it: memory is bounded however many there are.
#[derive(Debug, Clone, Default)]
struct Outcomes {
    slices: VecDeque<Slice>,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    number: i64,
    failures: u64,
    all: u64,
}

/// What a finished attempt says: an answer speaks by its status, whatever else was wrong with it.
pub const fn evidence(verdict: Verdict, status: Option<u16>) -> Evidence {
    match verdict {
        Verdict::Success | Verdict::Redirected { .. } => Evidence::Works,
        Verdict::Throttled { .. } => by_status(status),
        Verdict::Retryable(kind) | Verdict::Unknown(kind) | Verdict::Failure(kind) => match kind {
            ErrorKind::HttpStatus | ErrorKind::TooLarge | ErrorKind::Decode => by_status(status),
            // It answered with a redirect that is not followed.
            ErrorKind::BlockedAddress if status.is_some() => by_status(status),
            ErrorKind::Connect
            | ErrorKind::Tls
            | ErrorKind::Dns
            | ErrorKind::Timeout
            | ErrorKind::Reset
            | ErrorKind::Truncated
            | ErrorKind::Protocol => Evidence::Fails,
            ErrorKind::Deadline
            | ErrorKind::RetryAfterTooLong
            | ErrorKind::BlockedAddress
            | ErrorKind::Secret
            | ErrorKind::Invalid
            | ErrorKind::Internal
            | ErrorKind::ProcessExit
            | ErrorKind::ProcessSignal
            | ErrorKind::ProcessMemory
            | ErrorKind::Unknown => Evidence::Nothing,
        },
    }
}

const fn by_status(status: Option<u16>) -> Evidence {
    match status {
        Some(500..) => Evidence::Fails,
        Some(_) | None => Evidence::Works,
    }
}

impl Breaker {
    /// Closed, with nothing known.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, phase: Phase::Closed, turn: 0, outcomes: Outcomes::default() }
    }

    /// From now on this policy holds: for how long it is open too, if it is. What was counted in another window says
    /// nothing in this one.
    pub fn change(&mut self, policy: BreakerPolicy) {
        if policy.window != self.policy.window {
            self.outcomes = Outcomes::default();
        }
        self.policy = policy;
    }

    /// How it stands.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.passage(now) {
            Passage::Free => BreakerState::Closed,
            Passage::Probe | Passage::AfterProbe => BreakerState::HalfOpen,
            Passage::NotBefore(_) => BreakerState::Open,
        }
    }

    /// Until when nothing starts, while it is open.
    pub fn open_until(&self, now: Instant) -> Option<Instant> {
        match self.passage(now) {
            Passage::NotBefore(at) => Some(at),
            Passage::Free | Passage::Probe | Passage::AfterProbe => None,
        }
    }

    /// Since when a probe is out, if one is.
    pub const fn probing_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Probing { since, .. } => Some(since),
            Phase::Closed | Phase::Open { .. } => None,
        }
    }

    /// Whether an attempt may start now.
    pub fn passage(&self, now: Instant) -> Passage {
        match self.phase {
            Phase::Closed => Passage::Free,
            Phase::Open { since } if since + self.policy.open <= now => Passage::Probe,
            Phase::Open { since } => Passage::NotBefore(since + self.policy.open),
            Phase::Probing { .. } => Passage::AfterProbe,
        }
    }

    /// An attempt starts that was let through.
    pub fn enter(&mut self, now: Instant) -> Pass {
        let is_probe = self.passage(now) == Passage::Probe;
        if let (true, Phase::Open { since: open_since }) = (is_probe, self.phase) {
            self.phase = Phase::Probing { since: now, open_since };
        }
        Pass { turn: self.turn, is_probe }
    }

    /// An attempt that entered was never made.
    pub const fn undo(&mut self, pass: Pass) {
        if let (true, Phase::Probing { open_since, .. }) = (self.is_probe_out(pass), self.phase) {
            self.phase = Phase::Open { since: open_since };
        }
    }

    /// An attempt has ended; `sent` says whether anything of it can have left. Gives how the breaker stands when that
    /// has changed.
    pub fn leave(&mut self, now: Instant, pass: Pass, evidence: Evidence, sent: Sent) -> Option<BreakerState> {
        if self.is_probe_out(pass) {
            return self.probed(now, evidence, sent);
        }
        if pass.turn != self.turn || self.phase != Phase::Closed {
            return None;
        }
        let fails = match evidence {
            Evidence::Works => false,
            Evidence::Fails => true,
            Evidence::Nothing => return None,
        };
        self.outcomes.count(self.policy.window, now, fails);
        let (failures, all) = self.outcomes.sums(self.policy.window, now);
        let is_enough = all >= u64::from(self.policy.calls.get());
        (fails && is_enough && self.policy.failures.is_reached(failures, all)).then(|| self.open(now))
    }

    /// Somebody says that it works: nothing counts any more that started before. False when it was closed already.
    pub fn close(&mut self) -> bool {
        let was_shut = self.phase != Phase::Closed;
        self.turn = self.turn.wrapping_add(1);
        (self.phase, self.outcomes) = (Phase::Closed, Outcomes::default());
        was_shut
    }

    fn probed(&mut self, now: Instant, evidence: Evidence, sent: Sent) -> Option<BreakerState> {
        let Phase::Probing { since, open_since } = self.phase else { return None };
        match (evidence, sent) {
            (Evidence::Works, _) => {
                (self.phase, self.outcomes) = (Phase::Closed, Outcomes::default());
                return Some(BreakerState::Closed);
            }
            (Evidence::Fails, _) => return Some(self.open(now)),
            // It is as if there had been none.
            (Evidence::Nothing, Sent::Nothing) => self.phase = Phase::Open { since: open_since },
            // The upstream had its probe; the next one comes as long after it as any would.
            (Evidence::Nothing, Sent::Maybe) => self.phase = Phase::Open { since },
        }
        None
    }

    fn open(&mut self, now: Instant) -> BreakerState {
        self.turn = self.turn.wrapping_add(1);
        (self.phase, self.outcomes) = (Phase::Open { since: now }, Outcomes::default());
        BreakerState::Open
    }

    const fn is_probe_out(&self, pass: Pass) -> bool {
        pass.is_probe && pass.turn == self.turn && matches!(self.phase, Phase::Probing { .. })
    }
}

/// Whether anything of an attempt can have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Maybe,
}

impl Pass {
    /// The attempt is the probe.
    pub const fn is_probe(self) -> bool {
        self.is_probe
    }
}

impl Outcomes {
    fn count(&mut self, window: Duration, now: Instant, fails: bool) {
        let number = slice(window, now);
        match self.slices.back_mut() {
            // A clock that stands still, or went back a little, counts in the last one.
            Some(last) if last.number >= number => last.add(fails),
            _ => {
                let mut slice = Slice { number, failures: 0, all: 0 };
                slice.add(fails);
                self.slices.push_back(slice);
            }
        }
        self.forget(number);
    }

    /// Failures, and all.
    fn sums(&mut self, window: Duration, now: Instant) -> (u64, u64) {
        self.forget(slice(window, now));
        self.slices.iter().fold((0, 0), |(failures, all), slice| (failures + slice.failures, all + slice.all))
    }

    fn forget(&mut self, number: i64) {
        while self.slices.pop_front_if(|first| first.number <= number.saturating_sub(SLICES)).is_some() {}
    }
}

impl Slice {
    const fn add(&mut self, fails: bool) {
        self.all += 1;
        self.failures += fails as u64;
    }
}

fn slice(window: Duration, now: Instant) -> i64 {
    let length = i64::try_from(window.as_micros()).unwrap_or(i64::MAX) / SLICES;
    now.as_micros().div_euclid(length.max(1))
}

#[cfg(test)]
mod tests;
