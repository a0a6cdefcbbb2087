//! The engine's loop, as the real one runs it: gather events, take a turn, commit its writes, let its effects happen.
//!
//! One commit is in flight at most, and no turn is taken meanwhile.

use std::collections::BTreeMap;

use farcall_core::attempt::BytesSent;
use farcall_core::call::{CallSpec, Method, Priority, TenantId, UpstreamId};
use farcall_core::dispatcher::{Dispatcher, Effect, Event, Seq};
use farcall_core::gate::Gate;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::Instant;
use farcall_store::port::{Store, Write};

use crate::checker::{self, Check, ensure, violation};
use crate::facts::{Cut, Origin, Report, Reported, Times};
use crate::journal;
use crate::log::Line;
use crate::recovery;
use crate::world::{Happening, World};

/// Turns at one moment before we say that the engine spins.
const TURNS_AT_ONCE_MAX: u32 = 1_000;

/// One life of the process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its place among the starts.
    pub(crate) boot: usize,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) gate: Gate,
    /// The commit in flight.
    pub(crate) batch: Option<Batch>,
    /// What happened and was not looked at yet.
    inbox: Vec<Event>,
    /// Something was looked at since the last turn.
    is_dirty: bool,
    /// Calls offered and not acknowledged yet, with their places in the plan.
    pub(crate) offered: BTreeMap<CallId, usize>,
    /// Attempts that are out, with their upstreams.
    pub(crate) out: BTreeMap<AttemptId, UpstreamId>,
    /// Attempts cut off before they were launched.
    unlaunched: BTreeMap<AttemptId, Cut>,
    pub(crate) draining: Option<Drain>,
}

#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) seq: Seq,
    pub(crate) writes: Vec<Write>,
}

/// When the process was asked to stop, and until when its attempts may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Process {
    pub(crate) fn new(boot: usize, dispatcher: Dispatcher) -> Self {
        Self {
            boot,
            dispatcher,
            gate: Gate::default(),
            batch: None,
            inbox: Vec::new(),
            is_dirty: true,
            offered: BTreeMap::new(),
            out: BTreeMap::new(),
            unlaunched: BTreeMap::new(),
            draining: None,
        }
    }

    /// When it takes its next turn unasked.
    pub(crate) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.batch.is_some() { None } else { self.dispatcher.next_wakeup(now) }
    }

    /// Whatever was decided is on its way to the disk or there.
    pub(crate) fn is_settled(&self) -> bool {
        self.batch.is_none() && self.dispatcher.is_settled()
    }

    /// Nothing is on its way to the disk or waits to be looked at.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.is_none() && self.inbox.is_empty() && self.gate.is_empty() && self.dispatcher.is_settled()
    }
}

impl World {
    /// All turns that are due now.
    pub(crate) fn take_turns(&mut self) -> Check {
        for _ in 0..TURNS_AT_ONCE_MAX {
            let Some(process) = &self.process else { return Ok(()) };
            let is_due = process.is_dirty || process.wakes_at(self.now).is_some_and(|at| at <= self.now);
            if process.batch.is_some() || !is_due {
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
        self.facts.origins.insert(call, Origin::Planned { place, accepted_at: now.timestamp, times });
        self.note(Line::Offer { call, upstream: spec.upstream.0 });
        self.tell(Event::Offered(Box::new(spec)));
    }

    /// Something happened; the process looks at it now or with its next turn.
    pub(crate) fn tell(&mut self, event: Event) {
        let Some(process) = &mut self.process else { return };
        if self.plan.faults.gathers_events && process.batch.is_some() {
            process.inbox.push(event);
        } else {
            self.look_at(event);
        }
    }

    /// The commit in flight is durable, if its process still lives.
    pub(crate) fn committed(&mut self, boot: usize, seq: u64) -> Check {
        let Some(process) = self.process.as_mut().filter(|process| process.boot == boot) else { return Ok(()) };
        let Some(batch) = process.batch.take() else { return Ok(()) };
        process.is_dirty |= !process.inbox.is_empty();
        self.note(Line::Committed { seq });
        self.make_durable(&batch.writes)?;
        self.release(batch.seq)
    }

    /// The store takes a batch, and the checkers see what it made of it.
    pub(crate) fn make_durable(&mut self, writes: &[Write]) -> Check {
        self.store.commit(writes).map_err(|error| violation(format!("the store refuses what was decided: {error}")))?;
        self.observe(writes)
    }

    fn turn(&mut self) -> Check {
        let now = self.clocks.now(self.now);
        let Some(process) = &mut self.process else { return Ok(()) };
        for event in std::mem::take(&mut process.inbox) {
            self.look_at(event);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        process.is_dirty = false;
        let mut turn = process.dispatcher.turn(now);
        let effects = process.gate.hold(&mut turn);
        let is_idle = effects.is_empty() && turn.writes.is_empty() && process.gate.is_empty();
        let boot = process.boot;
        ensure(!is_idle || process.wakes_at(self.now).is_none_or(|at| at > self.now), || {
            "the engine is woken for nothing, again and again".to_owned()
        })?;
        if !is_idle {
            self.note(Line::Turn { seq: turn.seq.0, writes: turn.writes.len() });
        }
        self.carry_out(&effects)?;
        if turn.writes.is_empty() {
            return self.release(turn.seq);
        }
        let clock = journal::Clock { now, steady: self.clocks.process() };
        let writes = journal::translate(&self.plan, &mut self.facts, clock, &turn.writes);
        let latency = self.plan.faults.commit_latency(&mut self.dice, self.healed);
        self.schedule(self.now + latency, Happening::Committed { boot, seq: turn.seq.0 });
        if let Some(process) = &mut self.process {
            process.batch = Some(Batch { seq: turn.seq, writes });
        }
        Ok(())
    }

    /// The dispatcher takes in what happened.
    pub(crate) fn look_at(&mut self, event: Event) {
        let now = self.clocks.now(self.now);
        let Some(process) = &mut self.process else { return };
        let reported = match &event {
            Event::Finished { attempt, result } => Some((*attempt, Reported::Finished(*result))),
            Event::Aborted { attempt, wrote } => {
                let flown = self.flights.get(attempt).and_then(|flight| flight.cut);
                let cut = flown.or_else(|| process.unlaunched.get(attempt).copied());
                cut.map(|cut| (*attempt, Reported::Aborted { wrote: *wrote, cut }))
            }
            Event::Offered(_)
            | Event::Launched { .. }
            | Event::Sent { .. }
            | Event::FirstByte { .. }
            | Event::Filed { .. }
            | Event::Loaded(_)
            | Event::LoadFailed
            | Event::Drain { .. } => None,
        };
        if let Some((attempt, what)) = reported {
            let steady = self.clocks.steady(now.instant);
            self.facts.reports.insert(attempt, Report { at: now, steady, what });
            let closing = checker::closing(&self.plan, &self.facts, attempt, what);
            self.facts.closings.extend(closing);
            process.out.remove(&attempt);
        }
        process.dispatcher.handle(now, event);
        process.is_dirty = true;
    }

    fn release(&mut self, seq: Seq) -> Check {
        let Some(process) = &mut self.process else { return Ok(()) };
        let effects = process.gate.committed(seq);
        self.carry_out(&effects)
    }

    fn carry_out(&mut self, effects: &[Effect]) -> Check {
        for &effect in effects {
            match effect {
                Effect::Acknowledge { call } => self.acknowledge(call)?,
                Effect::Launch { attempt, upstream, not_after } => {
                    self.launch_unless_late(attempt, upstream, not_after)?;
                }
                Effect::Abort { attempt } => self.abort_any(attempt)?,
                Effect::Load => self.read_soon(),
                Effect::Ended { call, has_file } => self.ended(call, has_file)?,
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, call: CallId) -> Check {
        self.note(Line::Acknowledged { call });
        let is_offered = self.process.as_mut().is_some_and(|process| process.offered.remove(&call).is_some());
        ensure(is_offered, || format!("{call} is acknowledged to nobody, or twice"))?;
        ensure(self.ledger.knows(call), || format!("{call} is acknowledged before it is stored"))?;
        self.facts.acknowledged.insert(call);
        Ok(())
    }

    fn launch_unless_late(&mut self, attempt: AttemptId, upstream: UpstreamId, not_after: Option<Instant>) -> Check {
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.unlaunched.contains_key(&attempt) {
            return Ok(());
        }
        if not_after.is_none_or(|at| self.now < at) {
            return self.launch(attempt, upstream);
        }
        process.unlaunched.insert(attempt, Cut::Deadline);
        self.note(Line::aborted(attempt, BytesSent::No));
        self.tell(Event::Aborted { attempt, wrote: BytesSent::No });
        Ok(())
    }

    fn abort_any(&mut self, attempt: AttemptId) -> Check {
        self.note(Line::Abort { attempt });
        if self.flights.contains_key(&attempt) {
            return self.abort(attempt);
        }
        let cut = self.reason_to_cut(attempt)?;
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.unlaunched.insert(attempt, cut).is_none() {
            self.tell(Event::Aborted { attempt, wrote: BytesSent::No });
        }
        Ok(())
    }

    fn ended(&mut self, call: CallId, has_file: bool) -> Check {
        ensure(self.ledger.has_ended(call), || format!("{call} is said to have ended before that is stored"))?;
        if has_file {
            self.file_soon(call);
        }
        Ok(())
    }

    /// The store is read after a while, and what was read comes a while later still.
    fn read_soon(&mut self) {
        let Some(boot) = self.process.as_ref().map(|process| process.boot) else { return };
        let delay = self.plan.faults.commit_latency(&mut self.dice, self.healed);
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
        let delay = self.plan.faults.commit_latency(&mut self.dice, self.healed);
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
