//! Calls that somebody waits for, beside durable ones at the same upstreams, over commits that fail and kills: a small world
//! of its own, run with every seed.
//!
//! Real are the dispatcher and the memory store. Held to: no window over its limit at the upstream over all kills, nothing
//! stored of such calls but what they take of limits, and that before they are let go; none outlives its process, and once
//! nothing breaks any more all end.

mod rules;
mod stored;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{CallSpec, Durability, Method, Priority, Source, TenantId, UpstreamId};
use farcall_core::dispatcher::{Dispatcher, Effect, Event, OpenAttempt, Seq, Turn};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::limit::Limits;
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use farcall_core::retry::{Backoff, Jitter, RetryPolicy};
use farcall_core::steady::SteadyClock;
use farcall_core::time::{Instant, Now, Timestamp};
use farcall_store::memory::MemoryStore;
use farcall_store::port::{CallsAsk, Store, Write};

use crate::checker::{Check, ensure, violation};
use crate::dice::Dice;
use crate::recovery::past;
use rules::Rules;

/// How long things break, and how long everything may take to end then.
const UNREST: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_secs(3_600);
/// The clock begins here, so that nothing lies before its origin.
const BEGIN: Instant = Instant::from_micros(1_000_000_000);

/// What happens at a moment.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Offer { durability: Durability },
    Commit { boot: u32 },
    Sent { attempt: AttemptId, boot: u32 },
    Arrive { attempt: AttemptId },
    FirstByte { attempt: AttemptId, boot: u32 },
    Finish { attempt: AttemptId, boot: u32, result: AttemptResult },
    Aborted { attempt: AttemptId, boot: u32 },
    Abandon { call: CallId },
    Wake,
    Kill,
    Start,
}

/// An attempt on its way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    upstream: usize,
    is_sent: bool,
    is_cut: bool,
}

struct Small {
    dice: Dice,
    now: Instant,
    steady: SteadyClock,
    store: MemoryStore,
    policies: Vec<UpstreamPolicy>,
    dispatcher: Option<Dispatcher>,
    boot: u32,
    is_at_rest: bool,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    /// Turns on their way to the disk, and when the last of them is there.
    commits: VecDeque<(Seq, Vec<Write>)>,
    committed_at: Instant,
    flights: BTreeMap<AttemptId, Flight>,
    rules: Rules,
}

/// Runs the small world of this seed.
pub(crate) fn check(seed: u64) -> Check {
    let mut small = Small::new(seed);
    small.schedule_unrest();
    small.start()?;
    while let Some(((at, _), happening)) = small.queue.pop_first() {
        if at >= BEGIN + UNREST && !small.is_at_rest {
            small.rest()?;
        }
        small.now = at;
        small.happen(happening)?;
        small.turn()?;
        ensure(at < BEGIN + UNREST + REST, || "calls that somebody waits for do not come to an end".to_owned())?;
    }
    small.rules.check_windows(&small.policies)?;
    let idle = small.dispatcher.as_ref().is_some_and(|dispatcher| {
        dispatcher.ephemeral_census().sum() == 0 && dispatcher.is_drained() && dispatcher.is_settled()
    });
    ensure(idle, || "something of calls that somebody waits for is left".to_owned())
}

impl Small {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6775_6573_7473);
        let now = Now { instant: BEGIN, timestamp: Timestamp::from_micros(BEGIN.as_micros()) };
        let policies: Vec<UpstreamPolicy> = (0..dice.count(1, 3)).map(|_| policy(&mut dice)).collect();
        Self {
            now: BEGIN,
            steady: SteadyClock::go_on(None, None, Some("a boot"), now),
            store: MemoryStore::new(),
            rules: Rules::new(policies.len()),
            policies,
            dispatcher: None,
            boot: 0,
            is_at_rest: false,
            queue: BTreeMap::new(),
            queued: 0,
            commits: VecDeque::new(),
            committed_at: BEGIN,
            flights: BTreeMap::new(),
            dice,
        }
    }

    fn clock(&self) -> Now {
        Now { instant: self.now, timestamp: Timestamp::from_micros(self.now.as_micros()) }
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), happening);
    }

    fn schedule_unrest(&mut self) {
        for _ in 0..self.dice.count(20, 120) {
            let durability = if self.dice.percent(70) { Durability::Ephemeral } else { Durability::Durable };
            let after = self.dice.up_to(UNREST);
            self.schedule(after, Happening::Offer { durability });
        }
        for _ in 0..self.dice.count(0, 6) {
            let after = self.dice.up_to(UNREST);
            self.schedule(after, Happening::Kill);
        }
    }

    /// From now on nothing breaks.
    fn rest(&mut self) -> Check {
        self.is_at_rest = true;
        self.queue.retain(|_, happening| !matches!(happening, Happening::Kill));
        if self.dispatcher.is_none() { self.start() } else { Ok(()) }
    }

    fn happen(&mut self, happening: Happening) -> Check {
        let alive = self.dispatcher.as_ref().map(|_| self.boot);
        match happening {
            Happening::Offer { durability } if alive.is_some() => self.offer(durability),
            Happening::Commit { boot } if alive == Some(boot) => self.commit()?,
            Happening::Sent { attempt, boot } if alive == Some(boot) => self.sent(attempt),
            Happening::Arrive { attempt } => self.arrive(attempt),
            Happening::FirstByte { attempt, boot } if alive == Some(boot) && self.is_open(attempt) => {
                self.tell(Event::FirstByte { attempt, at: self.now });
            }
            Happening::Finish { attempt, boot, result } if alive == Some(boot) && self.is_open(attempt) => {
                self.tell(Event::Finished { attempt, result });
                self.flights.get_mut(&attempt).into_iter().for_each(|flight| flight.is_cut = true);
            }
            Happening::Aborted { attempt, boot } if alive == Some(boot) => self.aborted(attempt),
            Happening::Abandon { call } => {
                self.rules.abandoned(call);
                self.tell(Event::Abandoned { call });
            }
            Happening::Kill if alive.is_some() => self.kill()?,
            Happening::Start if alive.is_none() => self.start()?,
            _ => {}
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        let now = self.clock();
        if let Some(dispatcher) = &mut self.dispatcher {
            dispatcher.handle(now, event);
        }
    }

    fn offer(&mut self, durability: Durability) {
        let now = self.clock();
        let call = CallId::new(now.timestamp, self.dice.bits());
        let longest = Duration::from_secs(60);
        let deadline = self.dice.percent(30).then(|| self.dice.spread(Duration::from_millis(5), longest));
        let places = u32::try_from(self.policies.len()).expect("few");
        let spec = CallSpec {
            id: call,
            // Behind that of commands.
            upstream: UpstreamId(self.dice.count(1, places)),
            source: if durability == Durability::Durable { Source::Api } else { Source::Proxy },
            durability,
            method: *self.dice.pick(&[Method::Get, Method::Post]),
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: NonZeroU32::MIN,
            accepted_at: now.timestamp,
            not_before: None,
            deadline: deadline.map(|deadline| self.now + deadline),
            overrides: None,
            has_file: false,
            callback: None,
            callback_of: None,
        };
        if durability == Durability::Ephemeral && self.dice.percent(25) {
            let after = self.dice.spread(Duration::from_micros(10), longest);
            self.schedule(after, Happening::Abandon { call });
        }
        self.rules.offered(&spec, self.boot);
        self.tell(Event::Offered(Box::new(spec)));
    }

    fn turn(&mut self) -> Check {
        for _ in 0..1_000 {
            let now = self.clock();
            let Some(dispatcher) = &mut self.dispatcher else { return Ok(()) };
            let turn = dispatcher.turn(now);
            let next = dispatcher.next_wakeup(self.now);
            self.carry_out(turn)?;
            match next {
                Some(at) if at <= self.now => {}
                Some(at) => {
                    self.schedule(at.since(self.now), Happening::Wake);
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
        Err(violation("the dispatcher takes turn after turn at one moment".to_owned()))
    }

    fn carry_out(&mut self, turn: Turn) -> Check {
        self.rules.told(&turn.unstored)?;
        self.rules.wrote(&turn.writes)?;
        if !turn.writes.is_empty() {
            let translate = |write| stored::translate(&self.rules, self.clock(), self.steady, write);
            let writes = turn.writes.iter().map(translate).collect();
            self.commits.push_back((turn.seq, writes));
            let wait = self.dice.up_to(Duration::from_millis(200));
            self.committed_at = self.committed_at.max(self.now + wait);
            let (after, boot) = (self.committed_at.since(self.now), self.boot);
            self.schedule(after, Happening::Commit { boot });
        }
        for effect in turn.effects {
            match effect {
                Effect::Launch { attempt, upstream, .. } => self.launch(attempt, upstream)?,
                Effect::Abort { attempt } => {
                    let (after, boot) = (self.dice.up_to(Duration::from_millis(20)), self.boot);
                    self.flights.get_mut(&attempt).into_iter().for_each(|flight| flight.is_cut = true);
                    self.schedule(after, Happening::Aborted { attempt, boot });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn launch(&mut self, attempt: AttemptId, upstream: UpstreamId) -> Check {
        let place = upstream.0 as usize - 1;
        let policy = self.policies[place].clone();
        let is_counted = policy.limits.iter().any(|limit| limit.window > Duration::from_secs(1));
        self.rules.launched(attempt, self.boot, is_counted.then_some(&self.store), place)?;
        self.tell(Event::Launched { attempt });
        let boot = self.boot;
        let sent = self.dice.up_to(Duration::from_millis(20));
        // The network keeps to what proofs rest on.
        let arrives = sent + self.dice.up_to(policy.jitter - Duration::from_micros(1));
        let answers = arrives + self.dice.up_to(Duration::from_secs(2));
        let finishes = answers + self.dice.up_to(Duration::from_secs(2));
        let status = *self.dice.pick(&[200, 200, 200, 404, 500, 429]);
        let retry_after = (status == 429).then(|| Duration::from_secs(self.dice.between(1, 5)));
        let result = AttemptResult {
            status: Some(status),
            error: None,
            retry_after,
            quota: None,
            redirect: None,
            content_ok: true,
            bytes_sent: BytesSent::Maybe,
            latency: finishes,
            size: 0,
        };
        self.flights.insert(attempt, Flight { upstream: place, is_sent: false, is_cut: false });
        self.schedule(sent, Happening::Sent { attempt, boot });
        self.schedule(arrives, Happening::Arrive { attempt });
        self.schedule(answers, Happening::FirstByte { attempt, boot });
        self.schedule(finishes, Happening::Finish { attempt, boot, result });
        Ok(())
    }

    fn is_open(&self, attempt: AttemptId) -> bool {
        self.flights.get(&attempt).is_some_and(|flight| !flight.is_cut)
    }

    fn sent(&mut self, attempt: AttemptId) {
        if self.is_open(attempt) {
            self.flights.get_mut(&attempt).into_iter().for_each(|flight| flight.is_sent = true);
            self.tell(Event::Sent { attempt, at: self.now });
        }
    }

    /// What was sent arrives, whatever has become of whoever sent it.
    fn arrive(&mut self, attempt: AttemptId) {
        if let Some(flight) = self.flights.get(&attempt).filter(|flight| flight.is_sent) {
            self.rules.arrived(flight.upstream, self.now);
        }
    }

    fn aborted(&mut self, attempt: AttemptId) {
        let Some(flight) = self.flights.get(&attempt) else { return };
        let wrote = if flight.is_sent { BytesSent::Maybe } else { BytesSent::No };
        self.tell(Event::Aborted { attempt, wrote });
    }

    fn commit(&mut self) -> Check {
        let Some((seq, writes)) = self.commits.pop_front() else { return Ok(()) };
        if !self.is_at_rest && self.dice.percent(4) {
            self.commits.clear();
            self.tell(Event::CommitFailed { seq });
            return Ok(());
        }
        self.store.commit(&writes).map_err(|error| violation(format!("a commit is refused: {error}")))?;
        self.tell(Event::Committed { seq });
        Ok(())
    }

    /// The process is gone, and with it what was not committed, as far as it was not just being.
    fn kill(&mut self) -> Check {
        self.dispatcher = None;
        let durable = self.dice.between(0, self.commits.len() as u64);
        for (_, writes) in std::mem::take(&mut self.commits).into_iter().take(usize::try_from(durable).unwrap_or(0)) {
            self.store.commit(&writes).map_err(|error| violation(format!("a commit is refused: {error}")))?;
        }
        self.rules.killed();
        for flight in self.flights.values_mut() {
            flight.is_cut = true;
        }
        let after = self.dice.up_to(Duration::from_secs(3));
        self.schedule(after, Happening::Start);
        Ok(())
    }

    fn start(&mut self) -> Check {
        let unreadable = |error| violation(format!("the store cannot be read: {error}"));
        self.boot += 1;
        self.committed_at = self.now;
        let now = self.clock();
        let recovery = self.store.take_over().map_err(unreadable)?;
        let mut reader = self.store.reader().map_err(unreadable)?;
        let mut dispatcher = Dispatcher::new(UpstreamPolicy::default(), self.dice.seed());
        for (place, policy) in self.policies.iter().enumerate() {
            let asks = Limits::asks(policy, self.steady.certain_since(), self.now);
            let (past, closed_until) = past(&mut *reader, &rules::key(place), self.steady, asks).map_err(unreadable)?;
            let id = dispatcher.declare_restored(policy.clone(), &past, now);
            if let Some(until) = closed_until {
                dispatcher.restore_closing(id, self.steady.instant(until));
            }
        }
        if recovery.open_grants > 0 {
            dispatcher.restore_grants(now);
        }
        // Of durable calls only what they take of limits matters here: they end with their process.
        for (call, attempt) in &recovery.open_attempts {
            let found = reader.calls(CallsAsk::One(*call)).map_err(unreadable)?;
            let place = found.first().and_then(|call| rules::place(&call.limit_key)).unwrap_or_default();
            let upstream = UpstreamId(u32::try_from(place + 1).expect("few"));
            dispatcher.restore_loser(now, *call, upstream, OpenAttempt { number: attempt.number, kind: attempt.kind });
        }
        self.dispatcher = Some(dispatcher);
        Ok(())
    }
}

fn policy(dice: &mut Dice) -> UpstreamPolicy {
    let limit = |dice: &mut Dice| LimitSpec {
        count: NonZeroU32::new(dice.count(1, 6)).expect("drawn from one"),
        window: dice.spread(Duration::from_millis(200), Duration::from_secs(40)),
    };
    let backoff = Backoff::Constant(dice.up_to(Duration::from_secs(3)));
    let retry = RetryPolicy { max: dice.count(0, 3), backoff, jitter: Jitter::None, ..RetryPolicy::durable() };
    let mut limits: Vec<LimitSpec> = (0..dice.count(0, 2)).map(|_| limit(dice)).collect();
    limits.sort_by_key(|limit| limit.window);
    UpstreamPolicy {
        limits,
        jitter: dice.spread(Duration::from_millis(1), Duration::from_millis(300)),
        concurrency: if dice.percent(30) { NonZeroU32::new(dice.count(1, 4)) } else { None },
        timeout: dice.spread(Duration::from_millis(300), Duration::from_secs(10)),
        retry: retry.clone(),
        retry_ephemeral: retry,
        ..UpstreamPolicy::default()
    }
}
