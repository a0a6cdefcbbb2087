//! The engine's loop, as the real one runs it: look at what happened, take a turn, hand its writes over, let its effects
//! happen.
//!
//! Several turns may be on their way to the disk; what becomes of them there is in `disk`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farcall_core::call::{CallSpec, Durability, Method, Priority, TenantId, UpstreamId};
use farcall_core::dispatcher::{self, Dispatcher, Effect, Event};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::{Instant, Now};
use farcall_store::port::{Store, Write};

use crate::checker::{self, Check, Hedges, Order, Timings, check_losers, ensure, violation};
use crate::disk::{Batch, Journal};
use crate::facts::{Drain, Origin, Report, Reported, Times};
use crate::journal;
use crate::log::Line;
use crate::recovery;
use crate::world::{Happening, World};

/// Turns at one moment before we say that the engine spins.
const TURNS_AT_ONCE_MAX: u32 = 1_000;
/// How long a submitter who was refused waits.
const OFFER_AGAIN_MIN: Duration = Duration::from_millis(1);
const OFFER_AGAIN_MAX: Duration = Duration::from_secs(2);

/// One life of the process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its place among the starts.
    pub(crate) boot: usize,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) journal: Journal,
    /// It looks at nothing until then.
    pub(crate) stalled_until: Option<Instant>,
    /// For how long it has looked at nothing, all in all.
    pub(crate) stalled_for: Duration,
    /// What happened and was not looked at yet.
    inbox: Vec<Event>,
    /// Something was looked at since the last turn.
    pub(crate) is_dirty: bool,
    /// Calls offered and not acknowledged yet, with their places in the plan.
    pub(crate) offered: BTreeMap<CallId, usize>,
    /// Attempts that are out, with their upstreams.
    pub(crate) out: BTreeMap<AttemptId, UpstreamId>,
    pub(crate) draining: Option<Drain>,
    /// What was found of calls that ended long ago, before it hears of it.
    pub(crate) stale: Option<Event>,
    /// Windows that came while it ran.
    pub(crate) added: Vec<Added>,
    /// Quotas at which nothing is to start.
    pub(crate) paused: BTreeSet<usize>,
    /// Calls that somebody wanted to end.
    pub(crate) cancelled: BTreeSet<CallId>,
    /// Those of them of whom nobody was told what came of it.
    pub(crate) unanswered: BTreeSet<CallId>,
    pub(crate) order: Order,
    pub(crate) timings: Timings,
    pub(crate) hedges: Hedges,
}

/// A window that began to count while the process ran. What had just ended and was not stored yet counts longer in it
/// than it need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    pub(crate) place: usize,
    pub(crate) window: Duration,
    pub(crate) at: Instant,
}

impl Process {
    pub(crate) fn new(boot: usize, dispatcher: Dispatcher) -> Self {
        Self {
            boot,
            dispatcher,
            journal: Journal::default(),
            stalled_until: None,
            stalled_for: Duration::ZERO,
            inbox: Vec::new(),
            is_dirty: true,
            offered: BTreeMap::new(),
            out: BTreeMap::new(),
            draining: None,
            stale: None,
            added: Vec::new(),
            paused: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            order: Order::default(),
            timings: Timings::default(),
            hedges: Hedges::default(),
        }
    }

    /// The dispatcher as it died, told of every commit that had failed: it may not have come to look at them.
    pub(crate) fn informed(&self, now: Now) -> Dispatcher {
        let mut dispatcher = self.dispatcher.clone();
        for event in self.inbox.iter().filter(|event| matches!(event, Event::CommitFailed { .. })) {
            dispatcher.handle(now, event.clone());
        }
        dispatcher
    }

    /// Something changed that its next turn is to look at.
    pub(crate) fn touch(&mut self) {
        self.is_dirty = true;
    }

    /// Whether a window of an upstream may still count what it need not.
    pub(crate) fn is_unsure(&self, place: usize, window: Duration, slack: Duration, now: Instant) -> bool {
        let is_it = |added: &Added| added.place == place && added.window == window;
        self.added.iter().any(|added| is_it(added) && added.at + window + window / 1_000 + slack > now)
    }

    /// When it takes its next turn unasked.
    pub(crate) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.stalled_until.is_some() { None } else { self.dispatcher.next_wakeup(now) }
    }

    /// Whatever was decided is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.journal.is_empty() && self.dispatcher.is_settled()
    }

    /// Nothing is on its way to the disk or waits to be looked at.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_settled() && self.inbox.is_empty() && self.stalled_until.is_none()
    }
}

impl World {
    /// All turns that are due now.
    pub(crate) fn take_turns(&mut self) -> Check {
        for _ in 0..TURNS_AT_ONCE_MAX {
            let Some(process) = &self.process else { return Ok(()) };
            let is_due = process.is_dirty || process.wakes_at(self.now).is_some_and(|at| at <= self.now);
            if process.stalled_until.is_some() || !is_due {
                return Ok(());
            }
            self.turn()?;
        }
        ensure(false, || "the engine takes turn after turn at one moment".to_owned())
    }

    /// Offers the call at a place of the plan, if somebody is there to take it.
    pub(crate) fn offer(&mut self, place: usize) {
        let now = self.clocks.now(self.now);
        let takes = self.process.as_mut().filter(|process| process.draining.is_none());
        let Some(process) = takes else { return self.parked.push(place) };
        if process.journal.is_broken {
            return self.offer_again(place);
        }
        let wish = &self.plan.calls[place];
        let call = CallId::new(now.timestamp, self.dice.bits());
        let not_before = wish.delay.map(|delay| now.instant + delay);
        let deadline = wish.deadline.map(|deadline| now.instant + deadline);
        let steady = |at| self.clocks.steady(at);
        let times = Times { not_before: not_before.map(steady), deadline: deadline.map(steady) };
        let spec = CallSpec {
            id: call,
            upstream: UpstreamId(wish.upstream),
            source: wish.source,
            durability: Durability::Durable,
            method: Method::of(wish.method),
            priority: Priority::new(wish.priority).expect("drawn from 1 to 5"),
            tenant: TenantId(wish.tenant),
            cost: wish.cost,
            accepted_at: now.timestamp,
            not_before,
            deadline,
            overrides: wish.overrides.clone().map(Box::new),
            has_file: wish.has_file(),
            callback: wish.callback.map(UpstreamId),
            callback_of: None,
        };
        process.offered.insert(call, place);
        self.facts.places.insert(place, call);
        if let Some(after) = self.plan.calls[place].cancel_after {
            self.schedule(self.now + after, Happening::Cancel { place });
        }
        self.facts.origins.insert(call, Origin::Planned { place, accepted_at: now.timestamp, times });
        self.note(Line::Offer { call, upstream: spec.upstream.0 });
        self.tell(Event::Offered(Box::new(spec)));
    }

    /// Something happened; the process looks at it now, or when it goes on.
    pub(crate) fn tell(&mut self, event: Event) {
        let Some(process) = &mut self.process else { return };
        if process.stalled_until.is_some() {
            process.inbox.push(event);
        } else {
            self.look_at(event);
        }
    }

    /// The process does nothing for a while: it was suspended, or its loop is busy.
    pub(crate) fn stall(&mut self, place: usize) {
        let (_, length) = self.plan.faults.stalls_after[place];
        let until = self.now + length;
        let Some(process) = self.process.as_mut().filter(|process| process.stalled_until.is_none()) else { return };
        if self.healed {
            return;
        }
        process.stalled_until = Some(until);
        process.stalled_for += length;
        let boot = process.boot;
        self.facts.stalls += 1;
        self.note(Line::Stalled);
        self.schedule(until, Happening::GoesOn { boot });
    }

    /// It looks at everything that happened meanwhile, in order.
    pub(crate) fn go_on(&mut self, boot: usize) {
        let Some(process) = self.process.as_mut().filter(|process| process.boot == boot) else { return };
        process.stalled_until = None;
        process.is_dirty = true;
        for event in std::mem::take(&mut process.inbox) {
            self.look_at(event);
        }
    }

    fn turn(&mut self) -> Check {
        let now = self.clocks.now(self.now);
        let Some(process) = &mut self.process else { return Ok(()) };
        process.is_dirty = false;
        let turn = process.dispatcher.turn(now);
        let is_idle = turn.effects.is_empty() && turn.writes.is_empty();
        ensure(!is_idle || process.wakes_at(self.now).is_none_or(|at| at > self.now), || {
            "the engine is woken for nothing, again and again".to_owned()
        })?;
        if !is_idle {
            self.note(Line::Turn { seq: turn.seq.0, writes: turn.writes.len() });
        }
        if !turn.writes.is_empty() {
            self.follow_timings(&turn.writes)?;
            self.follow_hedges(&turn.writes)?;
            let clock = journal::Clock { now, steady: self.clocks.process() };
            let Some(process) = &mut self.process else { return Ok(()) };
            let mut translate = |write| match process.journal.take_kept(write) {
                Some(kept) => kept,
                None => journal::translate(&self.plan, &mut self.facts, clock, write),
            };
            let writes: Vec<Write> = turn.writes.iter().map(&mut translate).collect();
            self.follow_order(&writes)?;
            self.hand_over(Batch { seq: turn.seq, writes });
        }
        self.carry_out(&turn.effects)?;
        check_losers(self, &turn.writes)
    }

    fn follow_hedges(&mut self, writes: &[dispatcher::Write]) -> Check {
        let Some(process) = &mut self.process else { return Ok(()) };
        let mut hedges = std::mem::take(&mut process.hedges);
        let checked = hedges.follow(self, writes);
        if let Some(process) = &mut self.process {
            process.hedges = hedges;
        }
        checked
    }

    fn follow_timings(&mut self, writes: &[dispatcher::Write]) -> Check {
        let Some(process) = &mut self.process else { return Ok(()) };
        let mut timings = std::mem::take(&mut process.timings);
        let checked = timings.follow(self, writes);
        if let Some(process) = &mut self.process {
            process.timings = timings;
        }
        checked
    }

    fn follow_order(&mut self, writes: &[Write]) -> Check {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let mut order = std::mem::take(&mut process.order);
        let checked = order.follow(self, writes, |call| process.dispatcher.is_loaded(call));
        process.order = order;
        self.process = Some(process);
        checked
    }

    /// The dispatcher takes in what happened.
    pub(crate) fn look_at(&mut self, event: Event) {
        let now = self.clocks.now(self.now);
        if let Event::Finished { attempt, result } = &event {
            self.note_statement(*attempt, result);
        }
        let Some(process) = &mut self.process else { return };
        let reported = match &event {
            Event::Finished { attempt, result } => Some((*attempt, Reported::Finished(*result))),
            Event::Aborted { attempt, wrote } => {
                let cut = self.flights.get(attempt).and_then(|flight| flight.cut);
                cut.map(|cut| (*attempt, Reported::Aborted { wrote: *wrote, cut }))
            }
            Event::Offered(_)
            | Event::Launched { .. }
            | Event::Sent { .. }
            | Event::FirstByte { .. }
            | Event::Committed { .. }
            | Event::CommitFailed { .. }
            | Event::Cancel { .. }
            | Event::Abandoned { .. }
            | Event::Answered { .. }
            | Event::Filed { .. }
            | Event::Loaded(_)
            | Event::LoadFailed
            | Event::Stored { .. }
            | Event::StaleFound { .. }
            | Event::StaleUnread
            | Event::Drain { .. } => None,
        };
        if let Some((attempt, what)) = reported {
            let steady = self.clocks.steady(now.instant);
            self.facts.ends += 1;
            let nth_end = self.facts.ends;
            self.facts.reports.insert(attempt, Report { at: now, steady, what, nth_end });
            let closing = checker::closing(&self.plan, &self.facts, attempt, what);
            self.facts.closings.extend(closing);
            process.out.remove(&attempt);
        }
        process.dispatcher.handle(now, event);
        process.is_dirty = true;
    }

    fn carry_out(&mut self, effects: &[Effect]) -> Check {
        for &effect in effects {
            match effect {
                Effect::Acknowledge { call } => self.acknowledge(call)?,
                Effect::Refuse { call } => self.refuse(call)?,
                Effect::Launch { attempt, upstream, hop, .. } => self.launch(attempt, hop.unwrap_or(upstream))?,
                Effect::Relay { .. } | Effect::Withhold { .. } => {}
                Effect::Abort { attempt } => self.abort_any(attempt)?,
                Effect::Load => self.read_soon(),
                Effect::FindStale => self.look_for_stale(),
                Effect::CancelNoted { call } => self.cancel_noted(call)?,
                Effect::CancelMissed { call } => self.cancel_missed(call)?,
                Effect::UpstreamStored { ticket } => self.upstream_stored(ticket),
                Effect::Ended { call, has_file } => self.ended(call, has_file)?,
                Effect::Refused { call, .. } => {
                    return Err(violation(format!("{call} is refused, and nobody waits for it")));
                }
                Effect::BreakerTurned { upstream, state } => self.breaker_turned(upstream, state),
            }
        }
        Ok(())
    }

    fn cancel_noted(&mut self, call: CallId) -> Check {
        let is_stored = self.ledger.call(call).is_some_and(|row| row.cancel_requested || row.progress.state.is_end());
        ensure(is_stored, || format!("{call} is said to be cancelled later, and nothing of that is stored"))?;
        self.answer_cancel(call);
        Ok(())
    }

    fn cancel_missed(&mut self, call: CallId) -> Check {
        let lives = self.ledger.knows(call) && !self.ledger.has_ended(call);
        ensure(!lives, || format!("{call} has not ended, and cancelling it is said to have missed"))?;
        self.answer_cancel(call);
        Ok(())
    }

    fn answer_cancel(&mut self, call: CallId) {
        if let Some(process) = &mut self.process {
            process.unanswered.remove(&call);
        }
    }

    fn acknowledge(&mut self, call: CallId) -> Check {
        self.note(Line::Acknowledged { call });
        let is_offered = self.process.as_mut().is_some_and(|process| process.offered.remove(&call).is_some());
        ensure(is_offered, || format!("{call} is acknowledged to nobody, or twice"))?;
        ensure(self.ledger.knows(call), || format!("{call} is acknowledged before it is stored"))?;
        self.facts.acknowledged.insert(call);
        Ok(())
    }

    fn refuse(&mut self, call: CallId) -> Check {
        self.note(Line::Refused { call });
        ensure(!self.ledger.knows(call), || format!("{call} is refused and stored"))?;
        self.answer_cancel(call);
        let place = self.process.as_mut().and_then(|process| {
            process.cancelled.remove(&call);
            process.offered.remove(&call)
        });
        let Some(place) = place else { return Err(violation(format!("{call} is refused to nobody, or twice"))) };
        self.facts.origins.remove(&call);
        self.offer_again(place);
        Ok(())
    }

    /// Its submitter tries again after a while.
    fn offer_again(&mut self, place: usize) {
        let later = self.now + OFFER_AGAIN_MIN + self.dice.up_to(OFFER_AGAIN_MAX);
        self.schedule(later, Happening::Offer { place });
    }

    fn abort_any(&mut self, attempt: AttemptId) -> Check {
        self.note(Line::Abort { attempt });
        let is_launched = self.facts.launches.contains_key(&attempt);
        ensure(is_launched, || format!("{attempt:?} is cut off and was never launched"))?;
        self.abort(attempt)
    }

    fn ended(&mut self, call: CallId, has_file: bool) -> Check {
        ensure(self.ledger.has_ended(call), || format!("{call} is said to have ended before that is stored"))?;
        self.answer_cancel(call);
        if has_file {
            self.file_soon(call);
        }
        Ok(())
    }

    /// The store is read after a while, and what was read comes a while later still.
    fn read_soon(&mut self) {
        let Some(boot) = self.process.as_ref().map(|process| process.boot) else { return };
        let delay = self.plan.faults.read_latency(&mut self.dice, self.healed);
        self.schedule(self.now + delay, Happening::Read { boot });
    }

    pub(crate) fn read(&mut self, boot: usize) -> Check {
        let Some(process) = self.process.as_ref().filter(|process| process.boot == boot) else { return Ok(()) };
        let fails = !self.healed && self.dice.percent(self.plan.faults.read_failure_percent);
        let wanted = process.dispatcher.wanted().ok_or_else(|| violation("a load of nothing".to_owned()))?;
        self.loading = if fails {
            None
        } else {
            let unreadable = |error| violation(format!("waiting calls cannot be read: {error}"));
            let mut reader = self.store.reader().map_err(unreadable)?;
            Some(recovery::load(&mut *reader, self, wanted).map_err(unreadable)?)
        };
        let delay = self.plan.faults.read_latency(&mut self.dice, self.healed);
        self.schedule(self.now + delay, Happening::Loaded { boot });
        Ok(())
    }

    pub(crate) fn loaded(&mut self, boot: usize) {
        if self.process.as_ref().is_none_or(|process| process.boot != boot) {
            return;
        }
        let loaded = self.loading.take();
        let count = loaded.as_ref().map_or(0, |loaded| loaded.lanes.iter().map(Vec::len).sum());
        self.note(Line::Loaded { calls: count });
        self.tell(loaded.map_or(Event::LoadFailed, |loaded| Event::Loaded(Box::new(loaded))));
    }

    /// The part that writes response files gets to this call after a while.
    pub(crate) fn file_soon(&mut self, call: CallId) {
        let Some(boot) = self.process.as_ref().map(|process| process.boot) else { return };
        let delay = self.dice.up_to(self.plan.faults.file_delay_max);
        self.schedule(self.now + delay, Happening::Filed { boot, call });
    }

    pub(crate) fn filed(&mut self, boot: usize, call: CallId) {
        if self.process.as_ref().is_some_and(|process| process.boot == boot) {
            self.note(Line::Filed { call });
            self.tell(Event::Filed { call });
        }
    }
}
