//! Attempts that are out: what the executor sees of them, and what their upstream does.
//!
//! What they mean is for the dispatcher to say.

use std::time::Duration;

use farcall_core::attempt::{AttemptKind, AttemptResult, BytesSent};
use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Event;
use farcall_core::id::AttemptId;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::time::Instant;

use crate::account::Counted;
use crate::checker::{Check, cost_of, ensure, quota_of, terms, violation, wins};
use crate::engine::Process;
use crate::facts::{Arrival, Cut, Launch, Statement};
use crate::log::Line;
use crate::upstream::Course;
use crate::world::{Happening, World};

/// One attempt, from its launch until nothing of it can happen any more.
#[derive(Debug)]
pub(crate) struct Flight {
    upstream: UpstreamId,
    boot: usize,
    started_at: Instant,
    course: Course,
    /// Its executor reports nothing more by itself: it was cut off, or is over.
    is_closed: bool,
    pub(crate) cut: Option<Cut>,
    /// Somebody wanted it cut off, whether or not its own end comes first.
    is_aborted: bool,
    wrote: BytesSent,
    /// What its upstream made of it, and when.
    counted: Option<(Instant, Counted)>,
}

impl Flight {
    /// It is out in this start, and nobody wants it cut off.
    pub(crate) fn is_out(&self, boot: usize) -> bool {
        self.boot == boot && !self.is_closed && !self.is_aborted
    }
}

impl World {
    /// Makes an attempt; checks first that it may be made at all.
    pub(crate) fn launch(&mut self, attempt: AttemptId, upstream: UpstreamId) -> Check {
        self.note(Line::Launch { attempt, upstream: upstream.0 });
        let started_at = self.check_launch(attempt, upstream)?;
        let Some(process) = &mut self.process else { return Ok(()) };
        process.out.insert(attempt, upstream);
        let boot = process.boot;
        let method = self.ledger.method_of(attempt.call).unwrap_or_default();
        let place = upstream.0 as usize;
        self.facts.launches.insert(attempt, Launch { place, method, at: self.now, boot });
        self.look_at(Event::Launched { attempt });
        self.check_concurrency(attempt, upstream)?;
        let server = u32::try_from(self.plan.quota(upstream.0 as usize)).expect("plans are small");
        let is_out = !self.healed && self.plan.faults.is_out(server, self.now.since(self.plan.start));
        let course = self.networks[upstream.0 as usize].course(&mut self.dice, self.now, method, is_out);
        self.schedule_course(attempt, &course);
        if self.dice.between(0, 999) < self.plan.faults.launch_crash_permille {
            let soon = self.dice.up_to(course.arrives_at.map_or(Duration::ZERO, |at| at.since(self.now)));
            self.schedule(self.now + soon, Happening::Crash { boot: Some(boot) });
        }
        let flight = Flight {
            upstream,
            boot,
            started_at,
            course,
            is_closed: false,
            cut: None,
            is_aborted: false,
            wrote: BytesSent::No,
            counted: None,
        };
        self.flights.insert(attempt, flight);
        self.earn_hedges(attempt, method);
        Ok(())
    }

    /// First attempts earn their upstream's hedges.
    fn earn_hedges(&mut self, attempt: AttemptId, method: &str) {
        let is_first = self.ledger.running(attempt).is_some_and(|stored| stored.kind == AttemptKind::First);
        let terms = terms(&self.plan, &self.facts, attempt.call);
        let share = terms.hedge(method).and_then(|hedge| hedge.budget).map(|budget| budget.parts());
        let home = terms.upstream;
        if let Some(process) = self.process.as_mut().filter(|_| is_first) {
            process.hedges.earn(home, share);
        }
    }

    /// Cuts an attempt off; its report comes a little later, and its own end may come first.
    pub(crate) fn abort(&mut self, attempt: AttemptId) -> Check {
        let now = self.now;
        let Some(flight) = self.flights.get(&attempt) else { return Ok(()) };
        if flight.is_closed {
            return Ok(());
        }
        let cut = self.reason_to_cut(attempt)?;
        if let Some(flight) = self.flights.get_mut(&attempt) {
            flight.is_aborted = true;
        }
        let Some(flight) = self.flights.get(&attempt) else { return Ok(()) };
        let network = &self.networks[flight.upstream.0 as usize];
        let reported_at = now + self.dice.up_to(network.abort_max);
        let ends_first = flight.course.finish.is_some_and(|(at, _)| at <= reported_at);
        if ends_first && self.dice.percent(50) {
            return Ok(());
        }
        let Some(flight) = self.flights.get_mut(&attempt) else { return Ok(()) };
        flight.cut = Some(cut);
        flight.wrote = if flight.course.has_written(now) { BytesSent::Maybe } else { BytesSent::No };
        self.close(attempt, now);
        self.schedule(reported_at, Happening::AbortDone { attempt });
        Ok(())
    }

    /// The process died; what it had sent may still arrive, until a little after it has started again.
    pub(crate) fn close_flights(&mut self, restarts_at: Instant) {
        let open = self.flights.iter().filter(|(_, flight)| !flight.is_closed);
        for attempt in open.map(|(&attempt, _)| attempt).collect::<Vec<_>>() {
            self.close(attempt, restarts_at);
        }
    }

    pub(crate) fn sent(&mut self, attempt: AttemptId) {
        if self.is_open(attempt) {
            self.note(Line::Sent { attempt });
            self.tell(Event::Sent { attempt, at: self.now });
        }
    }

    pub(crate) fn arrive(&mut self, attempt: AttemptId) {
        let Some(flight) = self.flights.get(&attempt) else { return };
        if flight.course.arrives_at != Some(self.now) {
            return;
        }
        let upstream = flight.upstream.0;
        let Some(era) = self.facts.decided.get(&attempt).map(|decided| decided.era) else { return };
        let quota = self.plan.quota(upstream as usize);
        let policy = &self.facts.eras[era].policies[quota];
        let cost = cost_of(&self.plan, &self.facts, policy, attempt.call);
        self.facts.arrivals[quota].push(Arrival { at: self.now, attempt, cost, era });
        if let Some(account) = self.accounts[quota].as_mut().filter(|_| !self.healed)
            && let Some(flight) = self.flights.get_mut(&attempt)
        {
            flight.counted = Some((self.now, account.count(&mut self.dice, self.now, cost)));
        }
        self.note(Line::Arrived { attempt, upstream, cost });
    }

    pub(crate) fn first_byte(&mut self, attempt: AttemptId) {
        if self.is_open(attempt) {
            self.note(Line::FirstByte { attempt });
            self.tell(Event::FirstByte { attempt, at: self.now });
        }
    }

    pub(crate) fn finish(&mut self, attempt: AttemptId) {
        if !self.is_open(attempt) {
            return;
        }
        let Some(flight) = self.flights.get_mut(&attempt) else { return };
        let Some((_, mut result)) = flight.course.finish else { return };
        result.latency = self.now.since(flight.started_at);
        if let Some((_, counted)) = flight.counted.filter(|_| result.status.is_some() && !self.healed) {
            result.quota = counted.read(self.now);
            if counted.is_turned_away {
                let retry_after = result.retry_after;
                (result.status, result.redirect, result.content_ok) = (Some(429), None, true);
                result.retry_after = retry_after.filter(|_| self.dice.percent(50));
            }
        }
        self.close(attempt, self.now);
        let (status, error, retry_after) = (result.status, result.error, result.retry_after);
        self.note(Line::Finished { attempt, status, error, retry_after });
        self.tell(Event::Finished { attempt, result });
        if self.dice.percent(self.plan.faults.echo_percent) {
            let later = self.now + self.dice.up_to(Duration::from_secs(5));
            self.schedule(later, Happening::Echo { attempt });
        }
    }

    /// What the answer told of its upstream's quota, when the engine hears it.
    pub(crate) fn note_statement(&mut self, attempt: AttemptId, result: &AttemptResult) {
        let Some(said) = result.quota else { return };
        let (Some(flight), Some(process)) = (self.flights.get(&attempt), &self.process) else { return };
        let (Some((counted_at, counted)), Some(launch)) = (flight.counted, self.facts.launches.get(&attempt)) else {
            return;
        };
        let longest = terms(&self.plan, &self.facts, attempt.call).retry.retry_after_max;
        let told_to_wait = result.retry_after.filter(|_| matches!(result.status, Some(429 | 503)));
        let longest = told_to_wait.map_or(longest, |wait| wait.min(longest));
        let statements = said.bounds().iter().map(|bound| Statement {
            quota: quota_of(&self.plan, &self.facts, attempt),
            boot: process.boot,
            sent_at: launch.at,
            counted_at,
            heard_at: self.now,
            remaining: bound.remaining(),
            until: self.now + bound.resets_in().min(longest),
            is_true: counted.is_true,
        });
        let statements: Vec<Statement> = statements.collect();
        self.facts.statements.extend(statements);
    }

    /// An executor that talks nonsense: the end of an attempt once more, and another one.
    pub(crate) fn echo(&mut self, attempt: AttemptId) {
        let result = self.networks[0].nonsense(&mut self.dice);
        let now = self.clocks.now(self.now);
        let stalls = |process: &&mut Process| process.stalled_until.is_none();
        if let Some(process) = self.process.as_mut().filter(stalls) {
            process.dispatcher.handle(now, Event::Finished { attempt, result });
            process.is_dirty = true;
        }
    }

    pub(crate) fn abort_done(&mut self, attempt: AttemptId) {
        let boot = self.process.as_ref().map(|process| process.boot);
        let Some(flight) = self.flights.get(&attempt).filter(|flight| Some(flight.boot) == boot) else { return };
        let wrote = flight.wrote;
        self.note(Line::aborted(attempt, wrote));
        self.tell(Event::Aborted { attempt, wrote });
    }

    fn schedule_course(&mut self, attempt: AttemptId, course: &Course) {
        let reports_sent = self.dice.percent(85);
        if reports_sent && course.finish.is_none_or(|(end, _)| course.sent_at < end) {
            self.schedule(course.sent_at, Happening::Sent { attempt });
        }
        if let Some(at) = course.arrives_at {
            self.schedule(at, Happening::Arrive { attempt });
        }
        if let Some(at) = course.first_byte_at {
            self.schedule(at, Happening::FirstByte { attempt });
        }
        if let Some((at, _)) = course.finish {
            self.schedule(at, Happening::Finish { attempt });
        }
    }

    /// The connection is gone. What is under way may arrive until a little after `from`.
    fn close(&mut self, attempt: AttemptId, from: Instant) {
        let Some(flight) = self.flights.get_mut(&attempt) else { return };
        flight.is_closed = true;
        let network = &self.networks[flight.upstream.0 as usize];
        let last = network.late_max.map(|late| from + late);
        let was_due_at = flight.course.arrives_at;
        network.close(&mut flight.course, &mut self.dice, self.now, last);
        if let Some(at) = flight.course.arrives_at.filter(|_| flight.course.arrives_at != was_due_at) {
            self.schedule(at, Happening::Arrive { attempt });
        }
    }

    fn is_open(&self, attempt: AttemptId) -> bool {
        let boot = self.process.as_ref().map(|process| process.boot);
        self.flights.get(&attempt).is_some_and(|flight| !flight.is_closed && Some(flight.boot) == boot)
    }

    fn check_launch(&self, attempt: AttemptId, upstream: UpstreamId) -> Result<Instant, crate::checker::Violation> {
        let Some(stored) = self.ledger.running(attempt) else {
            return Err(violation(format!("{attempt:?} is launched without a stored attempt that runs")));
        };
        let is_first = !self.facts.launches.contains_key(&attempt);
        ensure(is_first, || format!("{attempt:?} is launched twice"))?;
        let deadline = self.ledger.deadline(attempt.call).map(|at| self.clocks.instant(at));
        ensure(deadline.is_none_or(|at| self.now < at), || format!("{attempt:?} is launched after its deadline"))?;
        self.check_place(attempt, upstream)?;
        let started_at = self.clocks.instant(stored.granted_at);
        let drained = self.process.as_ref().and_then(|process| process.draining);
        ensure(drained.is_none_or(|drain| started_at <= drain.from), || {
            format!("{attempt:?} at {upstream:?} is started while we drain")
        })?;
        Ok(started_at)
    }

    /// It goes where the store says, and is charged there.
    fn check_place(&self, attempt: AttemptId, upstream: UpstreamId) -> Check {
        let stored = self.ledger.hop_key(attempt.call).map(|key| self.plan.place_of(key));
        let own = terms(&self.plan, &self.facts, attempt.call).upstream;
        let place = stored.unwrap_or(Some(own));
        let charged = self.facts.decided.get(&attempt).map(|decided| decided.place);
        let went = upstream.0 as usize;
        ensure(place == Some(went) && charged == Some(went), || {
            format!("{attempt:?} goes to {went}, and should to {place:?}; it is charged to {charged:?}")
        })
    }

    /// No more attempts out, as seen from here, than the policy allows.
    fn check_concurrency(&self, attempt: AttemptId, upstream: UpstreamId) -> Check {
        let Some(process) = &self.process else { return Ok(()) };
        // Decided while others held: those that are out already stay out.
        if self.facts.decided.get(&attempt).map(|decided| decided.era + 1) != Some(self.facts.eras.len()) {
            return Ok(());
        }
        let policy = &self.policies[upstream.0 as usize];
        let most = policy.concurrency.map_or(UpstreamPolicy::DURABLE_CONCURRENCY, u32::from) as usize;
        let out = process.out.values().filter(|&&of| of == upstream).count();
        ensure(out <= most, || format!("{out} attempts are out at {upstream:?}, {most} are allowed"))?;
        let quota = self.plan.quota(upstream.0 as usize);
        let Some(most) = self.policies[quota].concurrency.map(|most| most.get() as usize) else { return Ok(()) };
        let out = process.out.values().filter(|of| self.plan.quota(of.0 as usize) == quota).count();
        ensure(out <= most, || format!("{out} attempts are out in all at {upstream:?}, {most} are allowed"))
    }

    /// Whether another attempt of the same try has brought an answer that decides.
    fn has_lost(&self, attempt: AttemptId) -> bool {
        let others = AttemptId { call: attempt.call, number: 0 }..=AttemptId { call: attempt.call, number: u32::MAX };
        // Whatever loses is told so in the same turn.
        let mut reports = self.flights.range(others).filter_map(|(id, _)| self.facts.reports.get(id));
        reports.any(|report| report.at.instant == self.now && wins(&self.plan, &self.facts, attempt.call, report.what))
    }

    /// Whatever is due to cut it off: another attempt that won, or by the clock its timeout, counted from its launch, its deadline, or a drain.
    pub(crate) fn reason_to_cut(&self, attempt: AttemptId) -> Result<Cut, crate::checker::Violation> {
        if self.has_lost(attempt) {
            return Ok(Cut::Lost);
        }
        let timeout: Duration = terms(&self.plan, &self.facts, attempt.call).timeout;
        let launch = self.facts.launches.get(&attempt).map(|launch| (launch.at + timeout, Cut::Timeout));
        let deadline = self.ledger.deadline(attempt.call).map(|at| (self.clocks.instant(at), Cut::Deadline));
        let drain = self.process.as_ref().and_then(|process| process.draining).map(|drain| (drain.until, Cut::Drain));
        let reasons = [launch, deadline, drain];
        let first = reasons.into_iter().flatten().min_by_key(|&(at, _)| at).filter(|&(at, _)| at <= self.now);
        first.map(|(_, cut)| cut).ok_or_else(|| violation(format!("{attempt:?} is cut off for no reason")))
    }
}
