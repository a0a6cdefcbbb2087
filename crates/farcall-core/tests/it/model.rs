//! A reference for limits: a network, an upstream that keeps its own log of arrivals, and crashes, on a virtual clock.
//!
//! It knows nothing of slots. The network keeps to the contract's conditions and is otherwise as nasty as it can be.

use std::collections::BTreeMap;
use std::time::Duration;

use farcall_core::id::{AttemptId, CallId};
use farcall_core::limit::{Admission, Ask, Grant, Limits, Past, PastGrant};
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use farcall_core::time::Instant;

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Answered this long after it arrived.
    Answered { after: Duration },
    /// No answer; given up this long after it was sent.
    Silent { until: Duration },
    /// Nothing was written.
    Unsent,
}

/// One attempt to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) cost: u32,
    /// From 0, as fast as the network ever is, to 1, as slow.
    pub(crate) slowness: f64,
    pub(crate) fate: Fate,
    /// Whether its being sent is reported.
    pub(crate) reports_sent: bool,
}

/// The network before one upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) base: Duration,
    /// How much the delay varies, in percent of `jitter` where that bounds it.
    pub(crate) spread: Duration,
    /// What is under way when its connection closes comes as soon as ever, or not at all.
    pub(crate) is_steady: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Sent,
    Arrives,
    Answers,
    Ends,
    GivesBack,
}

#[derive(Debug)]
struct Attempt {
    grant: Option<Grant>,
    cost: u32,
    era: usize,
    sent_at: Instant,
    arrives_at: Option<Instant>,
    proved_at: Option<Instant>,
    ended_at: Option<Instant>,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) policies: Vec<UpstreamPolicy>,
    pub(crate) limits: Limits,
    pub(crate) now: Instant,
    network: Network,
    attempts: Vec<Attempt>,
    due: BTreeMap<(Instant, Step, usize), ()>,
    /// What the upstream saw: when, how much, and under which policy it was sent.
    arrivals: Vec<(Instant, u32, usize)>,
    /// With `smooth`: nothing is sent before.
    spaced_until: Instant,
}

impl Bench {
    pub(crate) fn new(policy: UpstreamPolicy, network: Network) -> Self {
        let limits = Limits::new(&policy);
        let now = Instant::from_micros(1_000_000_000);
        Self {
            policies: vec![policy],
            limits,
            now,
            network,
            attempts: Vec::new(),
            due: BTreeMap::new(),
            arrivals: Vec::new(),
            spaced_until: now,
        }
    }

    /// Sends if that is allowed. A promise of `NotBefore` is held to: nothing earlier, and then at once.
    pub(crate) fn send(&mut self, wish: Wish) -> Admission {
        let cost = self.capped(wish.cost);
        let admission = self.limits.admit(self.now, cost);
        match admission {
            Admission::Ready => self.launch(wish, cost),
            Admission::NotBefore(at) => {
                assert!(at > self.now, "{at:?} is not in the future");
                assert_eq!(self.limits.clone().admit(at, cost), Admission::Ready, "what was promised for {at:?}");
            }
            Admission::Full => {
                let out = self.attempts.iter().filter(|attempt| attempt.grant.is_some());
                assert!(out.count() > 0, "full though nothing is out");
            }
        }
        admission
    }

    /// Lets this much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= end) {
            let (at, step, index) = *entry.key();
            entry.remove();
            self.now = at;
            self.happen(step, index);
        }
        self.now = end;
    }

    /// The process dies and starts again with these counts.
    pub(crate) fn crash(&mut self, counts: &[u32], downtime: Duration) {
        let (died_at, restarted_at) = (self.now, self.now + downtime);
        let mut policy = self.policies.last().expect("there is one from the start").clone();
        for (limit, count) in policy.limits.iter_mut().zip(counts) {
            limit.count = (*count).try_into().expect("no zero is drawn");
        }
        self.due.retain(|(_, step, _), ()| *step == Step::Arrives);
        for index in 0..self.attempts.len() {
            if self.attempts[index].grant.is_some() {
                let sent = self.attempts[index].sent_at <= died_at;
                self.cut(index, sent, restarted_at + policy.jitter);
            }
        }
        self.pass(downtime);
        let past = self.past(Limits::asks(&policy, Instant::MIN, self.now), restarted_at);
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.grant.is_some()) {
            attempt.grant = None;
            attempt.proved_at = Some(restarted_at + policy.jitter);
            attempt.ended_at = Some(restarted_at);
        }
        self.spaced_until = self.now;
        self.limits = Limits::restore(&policy, &past, self.now);
        self.policies.push(policy);
    }

    /// The policy changes while everything goes on. What ended less than `lag` ago the store still takes to be out.
    pub(crate) fn change(&mut self, limits: Vec<LimitSpec>, lag: Duration) {
        let mut policy = self.policies.last().expect("there is one from the start").clone();
        policy.limits = limits;
        let asks = self.limits.asks_of_change(&policy, Instant::MIN, self.now);
        let mut past = self.past(asks, self.now - lag);
        let is_out = |attempts: &[Attempt], id: AttemptId| attempts[id.number as usize].grant.is_some();
        for (_, grants) in &mut past.windows {
            grants.retain(|grant| grant.open.is_none_or(|id| !is_out(&self.attempts, id)));
        }
        let live = self.attempts.iter_mut().filter_map(|attempt| attempt.grant.as_mut());
        self.limits.change(&policy, &past, live, self.now);
        self.spaced_until = self.now;
        self.policies.push(policy);
    }

    /// What a store answers; it knows of no end after `known_until`.
    fn past(&self, asks: Vec<Ask>, known_until: Instant) -> Past {
        let grants =
            || (0..).zip(&self.attempts).filter_map(move |(number, attempt)| attempt.past(number, known_until));
        let open = || grants().filter(|grant| grant.open.is_some());
        let ended = |since| {
            let mut ended: Vec<_> = grants().filter(|grant| grant.proved_at.is_some_and(|at| at >= since)).collect();
            ended.sort_unstable_by_key(|grant| std::cmp::Reverse(grant.proved_at));
            ended
        };
        let answer = |ask| match ask {
            Ask::Nothing => Vec::new(),
            Ask::Latest { since, count } => open().chain(ended(since).into_iter().take(count as usize)).collect(),
            Ask::Sums { since, step } => open().chain(summed(ended(since), step)).collect(),
        };
        Past { certain_since: Instant::MIN, windows: asks.into_iter().map(|ask| (ask, answer(ask))).collect() }
    }

    /// The most that arrived beyond what any window of any policy allows; nothing when all is well.
    pub(crate) fn excess(&self) -> Option<String> {
        let mut arrivals = self.arrivals.clone();
        arrivals.sort_unstable();
        let mut limits =
            self.policies.iter().enumerate().flat_map(|(era, policy)| policy.limits.iter().map(move |l| (era, l)));
        limits.find_map(|(era, limit)| over(&arrivals, era, limit))
    }

    pub(crate) fn arrived(&self) -> u32 {
        self.arrivals.iter().map(|&(_, cost, _)| cost).sum()
    }

    pub(crate) fn capped(&self, cost: u32) -> u32 {
        let policy = self.policies.last().expect("there is one from the start");
        policy.limits.iter().map(|limit| limit.count.get()).fold(cost, u32::min)
    }

    fn launch(&mut self, wish: Wish, cost: u32) {
        self.space(cost);
        let index = self.attempts.len();
        let grant = self.limits.grant(self.now, cost);
        let sent_at = self.now;
        let arrives_at = sent_at + self.network.base + self.network.spread.mul_f64(wish.slowness);
        let ends = match wish.fate {
            Fate::Answered { after } => (arrives_at + after, Step::Answers),
            Fate::Silent { until } => (sent_at + until, Step::Ends),
            Fate::Unsent => (sent_at + Duration::from_micros(1), Step::GivesBack),
        };
        self.due.insert((ends.0, ends.1, index), ());
        let is_sent = !matches!(wish.fate, Fate::Unsent);
        if is_sent && wish.reports_sent {
            self.due.insert((sent_at, Step::Sent, index), ());
        }
        if is_sent {
            self.due.insert((arrives_at, Step::Arrives, index), ());
        }
        let era = self.policies.len() - 1;
        let arrives_at = is_sent.then_some(arrives_at);
        self.attempts.push(Attempt {
            grant: Some(grant),
            cost,
            era,
            sent_at,
            arrives_at,
            proved_at: None,
            ended_at: None,
        });
    }

    /// Smoothed grants keep the largest W/N apart for each slot they take.
    fn space(&mut self, cost: u32) {
        let policy = self.policies.last().expect("there is one from the start");
        if policy.smooth {
            assert!(self.now >= self.spaced_until, "sent before {:?}", self.spaced_until);
            let interval = policy.limits.iter().map(|limit| limit.window / limit.count.get()).max();
            self.spaced_until = self.now + interval.unwrap_or_default() * cost;
        }
    }

    fn happen(&mut self, step: Step, index: usize) {
        let now = self.now;
        let attempt = &mut self.attempts[index];
        if step == Step::Arrives {
            if attempt.arrives_at == Some(now) {
                self.arrivals.push((now, attempt.cost, attempt.era));
            }
            return;
        }
        let Some(grant) = &mut attempt.grant else { return };
        match step {
            Step::Sent => return self.limits.sent(grant, now),
            Step::Answers => self.limits.answered(grant, now),
            Step::Ends => self.limits.ended(grant, now),
            Step::GivesBack => self.limits.give_back(grant),
            Step::Arrives => {}
        }
        attempt.proved_at = grant.proved_at();
        attempt.ended_at = Some(now);
        attempt.grant = None;
        if step == Step::Ends {
            let jitter = self.policies.last().expect("there is one from the start").jitter;
            self.cut(index, true, now + jitter);
        }
    }

    /// The connection is gone: what is still under way comes before `last` or never.
    fn cut(&mut self, index: usize, sent: bool, last: Instant) {
        let is_steady = self.network.is_steady;
        let attempt = &mut self.attempts[index];
        let Some(at) = attempt.arrives_at.filter(|&at| at > self.now) else { return };
        attempt.arrives_at = match (sent, is_steady) {
            (true, false) => Some(last - Duration::from_micros(1)),
            (true, true) if at < last => Some(at),
            (true, true) | (false, _) => None,
        };
        if let Some(at) = attempt.arrives_at {
            self.due.insert((at, Step::Arrives, index), ());
        }
    }
}

impl Attempt {
    /// As a store would have kept it; one that gave its slots back is not there.
    fn past(&self, number: u32, known_until: Instant) -> Option<PastGrant> {
        let (cost, id) = (self.cost, AttemptId { call: CallId::from_bits(0), number });
        if self.grant.is_some() || self.ended_at.is_some_and(|at| at > known_until) {
            return Some(PastGrant { cost, proved_at: None, open: Some(id) });
        }
        self.proved_at.map(|at| PastGrant { cost, proved_at: Some(at), open: None })
    }
}

/// Grants summed over times of this length, each sum at the end of its time.
fn summed(grants: Vec<PastGrant>, step: Duration) -> Vec<PastGrant> {
    let step = i64::try_from(step.as_micros()).expect("windows are short");
    let mut sums: BTreeMap<i64, u32> = BTreeMap::new();
    for grant in grants {
        let at = grant.proved_at.expect("ended").as_micros();
        *sums.entry(at / step * step + step - 1).or_default() += grant.cost;
    }
    let sum = |(at, cost)| PastGrant { cost, proved_at: Some(Instant::from_micros(at)), open: None };
    sums.into_iter().map(sum).collect()
}

/// Windows whose slots may cool from sending.
pub(crate) fn is_short(limit: &LimitSpec) -> bool {
    limit.window <= Duration::from_secs(60)
}

/// A window over the limit whose latest era is this one.
fn over(arrivals: &[(Instant, u32, usize)], era: usize, limit: &LimitSpec) -> Option<String> {
    let begins = arrivals.iter().map(|&(at, _, _)| at);
    // Also the windows that end with an arrival: they begin just after one window length before it.
    let ends = arrivals.iter().map(|&(at, _, _)| at + Duration::from_micros(1) - limit.window);
    begins.chain(ends).find_map(|begin| {
        let inside = || arrivals.iter().filter(|&&(at, _, _)| at >= begin && at < begin + limit.window);
        let sum: u32 = inside().map(|&(_, cost, _)| cost).sum();
        let is_its = inside().map(|&(_, _, of)| of).max() == Some(era);
        (is_its && sum > limit.count.get()).then(|| format!("{sum} within {limit:?} from {begin:?}: {arrivals:?}"))
    })
}
