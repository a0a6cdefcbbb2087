//! Every call's attempts, followed one by one: each next attempt must be allowed by what the one before came to, not
//! before its time, and the end must be the one that follows.

use std::time::Duration;

use farcall_core::attempt::{AttemptKind, AttemptOutcome, AttemptResult, BytesSent};
use farcall_core::call::{ErrorKind, Method, State};
use farcall_core::hop::Redirect;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::retry::{Backoff, Jitter, MethodSet, RetryPolicy};
use farcall_core::steady::Steady;
use farcall_store::record::{AttemptRecord, CallRecord};

use super::round::{self, Round};
use super::terms::{CallTerms, terms};
use super::{Check, Violation, breakers, ensure, expires, violation};
use crate::facts::{Cut, Facts, Reported};
use crate::plan::Plan;
use crate::workload::METHODS;
use crate::world::World;

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Success,
    /// Sent on to the upstream at this place, by a request of this method.
    Redirected(usize, &'static str),
    Failure,
    /// Told to wait this long.
    Throttled(Duration),
    /// Known not to have worked.
    Again,
    Unknown,
    /// We cut it off ourselves or died: free of charge, if it may be repeated at all.
    Interrupted,
    /// We cut it off, and nothing had been sent.
    HandedBack,
    OutOfTime,
    /// Another attempt of the same try had won.
    Lost,
}

/// What may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    End(State),
    /// Another attempt, not before then; or, when the deadline comes first, none.
    Attempt(Steady),
}

/// Counters of one call, counted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    retries: u32,
    requeues: u32,
    throttles: u32,
}

pub(super) fn check(world: &World) -> Check {
    for (call, attempts) in world.ledger.rows() {
        check_call(world, call, attempts).map_err(|found| {
            let listed: Vec<_> =
                attempts.iter().map(|attempt| (attempt, world.facts.reports.get(&id(call, attempt)))).collect();
            violation(format!("{found}; {call:?}; {listed:?}"))
        })?;
        check_silence(world, call, attempts)?;
    }
    Ok(())
}

fn check_call(world: &World, call: &CallRecord, attempts: &[AttemptRecord]) -> Check {
    // A hedge that was decided and is not stored may have left its call to be tried again.
    if has_lost_hedges(world, call, attempts) {
        return Ok(());
    }
    let terms = terms(&world.plan, &world.facts, call.id);
    let mut counts = Counts::default();
    let mut counts_before = counts;
    let mut deaths = Deaths::default();
    let mut last = None;
    let mut next = Next::Attempt(Steady::from_micros(i64::MIN));
    let mut trail = Trail::new(&terms);
    let mut rest = attempts;
    while let Some((round, later)) = round::split(rest) {
        rest = later;
        let (attempt, number) = (&round[0], round[round.len() - 1].number);
        trail.check(world, id(call, attempt), attempt, trail.kind())?;
        let is_allowed = matches!(next, Next::Attempt(earliest) if attempt.granted_at >= earliest);
        ensure(is_allowed, || format!("attempt {} of {} came when {next:?}", attempt.number, call.id))?;
        let judged = round::judge(world, call, round, (&terms, &trail))?;
        let Round { came, at, .. } = judged;
        counts_before = counts;
        next = counts.follow(came, at, (&terms, trail.method));
        if let (Came::Throttled(_), Next::Attempt(earliest)) = (came, next) {
            next = Next::Attempt(opened_between(world, at, earliest).unwrap_or(earliest));
        }
        trail.follow(came, &terms);
        deaths.count_round(world, call, round);
        let is_to_be_cancelled = call.cancel_requested && number == call.attempts;
        if deaths.is_certain() && matches!(next, Next::Attempt(_)) && !is_to_be_cancelled {
            next = Next::End(State::Poisoned);
        }
        last = Some((attempt.granted_at, judged));
    }
    let end = call.progress.state;
    let expires_rightly = end == State::Expired
        && call.deadline.is_some_and(|at| {
            world.facts.finishes.get(&call.id) >= Some(&at)
                || expires::is_hopeless(
                    world,
                    call,
                    at,
                    (&terms, counts.retries, last.map(|(_, judged)| (judged.at, judged.came))),
                )
        });
    let is_right = match next {
        Next::End(state) => end == state,
        Next::Attempt(_) => {
            let may_be_poisoned = end == State::Poisoned && deaths.is_possible();
            expires_rightly || may_be_poisoned || is_cancelled_rightly(world, call, last)
        }
    };
    ensure(is_right, || format!("{} ended {end}, and {next:?} was due", call.id))?;
    let stored =
        Counts { retries: call.progress.retries, requeues: call.progress.requeues, throttles: call.progress.throttles };
    // A retry that the deadline leaves no time for is not used up, nor one that is not to be made any more.
    let was_cut_short = end == State::Expired || end == State::Poisoned || world.facts.cancels.contains_key(&call.id);
    let is_counted = stored == counts || (was_cut_short && stored == counts_before);
    ensure(is_counted, || format!("{} has {stored:?}, not {counts:?}", call.id))
}

/// When somebody first opened an upstream between two moments: whoever was told to wait goes on then.
fn opened_between(world: &World, from: Steady, until: Steady) -> Option<Steady> {
    let openings = world.facts.openings.iter().map(|opening| opening.at);
    openings.filter(|&at| from <= at && at < until).min()
}

/// Whether a call that was not to be tried again ended as somebody's wish to cancel it allows: `cancelled` when nothing
/// of its last attempt can have been sent without an answer, else as that attempt did.
fn is_cancelled_rightly(world: &World, call: &CallRecord, last: Option<(Steady, Round)>) -> bool {
    let Some((granted_at, Round { came, at: ended_at, decider, left_unknown })) = last else {
        return call.progress.state == State::Cancelled && cancels(world, call).next().is_some();
    };
    // A reboot may set the clock that the wish was noted by back behind it; what was stored is certain.
    let was_out = call.cancel_requested || cancels(world, call).any(|at| granted_at <= at && at <= ended_at);
    let waited = cancels(world, call).any(|at| at >= ended_at);
    let sent_nothing = came == Came::HandedBack
        || world.facts.reports.get(&decider).is_some_and(|report| report.what.wrote() != BytesSent::Maybe);
    match call.progress.state {
        State::Cancelled => waited || (was_out && sent_nothing && !left_unknown),
        State::Failed => was_out && matches!(came, Came::Again | Came::Throttled(_) | Came::Redirected(..)),
        State::Unknown => was_out && (left_unknown || matches!(came, Came::Unknown | Came::Interrupted)),
        _ => false,
    }
}

fn cancels<'a>(world: &'a World, call: &CallRecord) -> impl Iterator<Item = Steady> + use<'a> {
    world.facts.cancels.get(&call.id).into_iter().flatten().copied()
}

/// Whether hedges of a call were decided that the store does not have.
fn has_lost_hedges(world: &World, call: &CallRecord, attempts: &[AttemptRecord]) -> bool {
    let stored = attempts.iter().filter(|attempt| attempt.kind == AttemptKind::Hedge).count();
    world.facts.hedges.get(&call.id).is_some_and(|&decided| decided as usize > stored)
}

/// Attempts that died under our hands, and deaths of the process with an attempt out.
#[derive(Debug, Default)]
struct Deaths {
    count: u32,
    /// Deaths of the process in a row, those for sure and those at most: when the attempt was out for long, it may be
    /// known that the process did not die of it.
    orphaned: (u32, u32),
}

impl Deaths {
    /// A process dies once, however many attempts of a try are out.
    fn count_round(&mut self, world: &World, call: &CallRecord, round: &[AttemptRecord]) {
        let died = round.iter().filter(|attempt| round::has_died(attempt));
        let ended = round.iter().filter(|attempt| !round::has_died(attempt));
        let (_, possible) = self.orphaned;
        ended.clone().for_each(|attempt| self.count(world, id(call, attempt), attempt));
        let Some(first) = died.into_iter().next() else { return };
        if ended.count() > 0 {
            // Whether its counter was stored with what ended before is not told.
            self.orphaned = (0, possible);
        }
        self.count(world, id(call, first), first);
    }

    fn count(&mut self, world: &World, id: AttemptId, attempt: &AttemptRecord) {
        let kind = attempt.error.as_ref().map(|error| error.kind);
        if kind != Some(ErrorKind::Unknown) {
            self.orphaned = (0, 0);
            self.count += u32::from(kind == Some(ErrorKind::Internal) && attempt.outcome == AttemptOutcome::Unknown);
            return;
        }
        let (least, most) = self.orphaned;
        self.orphaned = if was_out_for_long(world, id) { (1, most + 1) } else { (least + 1, most + 1) };
    }

    const fn is_certain(&self) -> bool {
        self.count >= 3 || self.orphaned.0 >= 3
    }

    const fn is_possible(&self) -> bool {
        self.count >= 3 || self.orphaned.1 >= 3
    }
}

/// Whether the process lived on for two seconds and more with this attempt out before it died.
fn was_out_for_long(world: &World, attempt: AttemptId) -> bool {
    let Some(launch) = world.facts.launches.get(&attempt) else { return false };
    let died_at = world.facts.crashes.iter().find(|&&at| at >= launch.at);
    died_at.is_some_and(|at| at.since(launch.at) >= Duration::from_secs(2))
}

/// Where a call goes next, worked out anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trail {
    place: usize,
    pub(super) method: &'static str,
    redirects: u32,
    /// No try has ended yet.
    is_first: bool,
}

impl Trail {
    fn new(terms: &CallTerms<'_>) -> Self {
        Self { place: terms.upstream, method: terms.method, redirects: 0, is_first: true }
    }

    const fn kind(&self) -> AttemptKind {
        if self.is_first { AttemptKind::First } else { AttemptKind::Retry }
    }

    pub(super) fn check(&self, world: &World, id: AttemptId, attempt: &AttemptRecord, kind: AttemptKind) -> Check {
        // That those before a hop were hedges may be forgotten.
        let is_forgotten = self.redirects > 0 && world.facts.hedges.contains_key(&id.call);
        let is_excused = is_forgotten && attempt.kind == AttemptKind::Retry;
        let granted_at = world.facts.decided.get(&id).map(|decided| decided.granted_at);
        let is_probe = attempt.kind == AttemptKind::Probe
            && granted_at.is_some_and(|granted_at| breakers::may_be_probe(world, id, granted_at));
        ensure(attempt.kind == kind || is_excused || is_probe, || {
            format!("{id:?} is called {}, and is a {kind}", attempt.kind)
        })?;
        let Some(launch) = world.facts.launches.get(&id) else { return Ok(()) };
        let is_right = (launch.place, launch.method) == (self.place, self.method);
        ensure(is_right, || format!("{id:?} went elsewhere than it should: {launch:?}, {self:?}"))
    }

    fn follow(&mut self, came: Came, terms: &CallTerms<'_>) {
        if let Came::Redirected(place, method) = came {
            (self.place, self.method, self.redirects) = (place, method, self.redirects + 1);
            return;
        }
        self.is_first = false;
        // A request that has become another was accepted, and is not made again; one that was handed back goes on.
        if came != Came::HandedBack && self.method == terms.method {
            *self = Self { is_first: false, ..Self::new(terms) };
        }
    }
}

impl Counts {
    fn follow(&mut self, came: Came, at: Steady, (terms, method): (&CallTerms<'_>, &str)) -> Next {
        match came {
            Came::Redirected(..) => Next::Attempt(at),
            Came::Success => Next::End(State::Succeeded),
            Came::Failure => Next::End(State::Failed),
            Came::OutOfTime => Next::End(State::Expired),
            Came::HandedBack | Came::Lost => Next::Attempt(at),
            Came::Unknown | Came::Interrupted if !terms.repeats_unknown(method) => Next::End(State::Unknown),
            Came::Interrupted => Next::Attempt(at),
            Came::Throttled(wait) => self.throttle(wait, at, terms.retry),
            Came::Again | Came::Unknown => self.retry(at, terms.retry),
        }
    }

    fn throttle(&mut self, wait: Duration, at: Steady, retry: &RetryPolicy) -> Next {
        let has_none = retry.max == 0 && retry.requeue == 0;
        if has_none || wait > retry.retry_after_max || self.throttles == retry.throttle_max {
            return Next::End(State::Failed);
        }
        self.throttles += 1;
        Next::Attempt(after(at, wait))
    }

    fn retry(&mut self, at: Steady, retry: &RetryPolicy) -> Next {
        if self.retries < retry.max {
            self.retries += 1;
            return Next::Attempt(after(at, least_delay(retry, self.retries)));
        }
        if self.requeues < retry.requeue {
            (self.requeues, self.retries) = (self.requeues + 1, 0);
            return Next::Attempt(at);
        }
        Next::End(State::Failed)
    }
}

/// The contract's table; with jitter any shorter wait is right too.
fn least_delay(retry: &RetryPolicy, n: u32) -> Duration {
    if retry.jitter == Jitter::Full { Duration::ZERO } else { full_delay(retry, n) }
}

/// Without jitter.
pub(super) fn full_delay(retry: &RetryPolicy, n: u32) -> Duration {
    let seconds = match retry.backoff {
        Backoff::Constant(wait) => wait.as_secs_f64(),
        Backoff::Geometric { base, factor } => (1..n).fold(base.as_secs_f64(), |wait, _| wait * factor),
        Backoff::Factor(factor) => (1..n).fold(factor / 2.0, |wait, _| wait * 2.0),
    };
    let exact = Duration::from_secs_f64(seconds).min(retry.max_delay);
    // Both sides count whole microseconds.
    exact.saturating_sub(Duration::from_micros(1))
}

/// What an attempt came to by itself, whatever others of its try did.
pub(super) fn what_came(
    world: &World,
    call: &CallRecord,
    attempt: &AttemptRecord,
    (terms, trail): (&CallTerms<'_>, &Trail),
) -> Result<(Came, Steady), Violation> {
    let id = id(call, attempt);
    let Some(decided) = world.facts.decided.get(&id).filter(|_| attempt.ended_at.is_some()) else {
        return Err(violation(format!("{id:?} has no end")));
    };
    let ended_at = decided.ended_at.unwrap_or_default();
    let engine_died = attempt.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Unknown);
    if engine_died {
        let is_true = world.facts.crashes.iter().any(|&at| decided.granted_at <= at);
        ensure(is_true, || format!("{id:?} says the engine died, and it did not"))?;
        return Ok((Came::Interrupted, ended_at));
    }
    if !world.facts.launches.contains_key(&id) {
        return unlaunched(world, call, attempt, ended_at);
    }
    let Some(report) = world.facts.reports.get(&id) else {
        return Err(violation(format!("{id:?} has an end that nobody reported")));
    };
    ensure(Some(report.at.timestamp) == attempt.ended_at && report.steady == ended_at, || {
        format!("{id:?} ended at another time than was reported")
    })?;
    let came = match report.what {
        Reported::Finished(result) => {
            let was_cancelled = cancels(world, call).any(|at| attempt.granted_at <= at && at <= ended_at);
            // At one moment either may have been first: what is stored tells.
            let follows = !was_cancelled || attempt.outcome == AttemptOutcome::Success;
            let most = if follows { terms.redirects } else { 0 };
            of_result(&result, (terms, trail.method, most.saturating_sub(trail.redirects)))
        }
        Reported::Aborted { wrote, cut } => of_cut(wrote, cut),
    };
    Ok((came, ended_at))
}

/// One that was stored and then never launched: by then it was too late for it, or we were stopping.
fn unlaunched(
    world: &World,
    call: &CallRecord,
    attempt: &AttemptRecord,
    ended_at: Steady,
) -> Result<(Came, Steady), Violation> {
    let is_late = call.deadline.is_some_and(|at| at <= ended_at);
    let is_drained = world.facts.drains.iter().any(|&until| until <= ended_at);
    let granted_at = attempt.granted_at;
    let is_cancelled = cancels(world, call).any(|at| granted_at <= at && at <= ended_at);
    let came = if is_late && !is_cancelled { Came::OutOfTime } else { Came::HandedBack };
    let may_have_lost = attempt.kind == AttemptKind::Hedge;
    ensure(is_late || is_drained || is_cancelled || may_have_lost, || {
        format!("attempt {} of {} was never launched", attempt.number, call.id)
    })?;
    let is_told = attempt.outcome == AttemptOutcome::Cancelled;
    ensure(is_told, || {
        format!("attempt {} of {} was never launched, and is {}", attempt.number, call.id, attempt.outcome)
    })?;
    Ok((came, ended_at))
}

/// `redirects` are those that may be followed still.
pub(super) fn of_result(result: &AttemptResult, (terms, method, redirects): (&CallTerms<'_>, &str, u32)) -> Came {
    match (result.error, result.status) {
        (None, Some(_)) if redirects > 0 && result.redirect.is_some() => of_redirect(result.redirect),
        (Some(ErrorKind::TooLarge | ErrorKind::Decode), _) => Came::Failure,
        (Some(_), _) | (None, None) => match result.bytes_sent {
            BytesSent::No | BytesSent::Refused => Came::Again,
            BytesSent::Maybe => Came::Unknown,
        },
        (None, Some(status)) => of_answer(status, told_to_wait(result, terms), (terms, method)),
    }
}

fn of_redirect(redirect: Option<Redirect>) -> Came {
    let Some(Redirect::To { upstream, method }) = redirect else { return Came::Failure };
    let name = METHODS.into_iter().find(|name| Method::of(name) == method);
    Came::Redirected(upstream.0 as usize, name.unwrap_or_default())
}

/// Until when an answer asks everybody to wait, if its status means that: by Retry-After, else because nothing remains.
fn told_to_wait(result: &AttemptResult, terms: &CallTerms<'_>) -> Option<Duration> {
    let exhausted = exhausted_for(result, terms).filter(|_| result.status == Some(429));
    result.retry_after.or(exhausted)
}

/// For how long nothing remains, as far as that is believed.
pub(super) fn exhausted_for(result: &AttemptResult, terms: &CallTerms<'_>) -> Option<Duration> {
    let zeros = result.quota.into_iter().flat_map(|said| said.bounds().to_vec()).filter(|it| it.remaining() == 0);
    zeros.map(|bound| bound.resets_in().min(terms.retry.retry_after_max)).max()
}

fn of_answer(status: u16, retry_after: Option<Duration>, (terms, method): (&CallTerms<'_>, &str)) -> Came {
    let is_in = |ranges: &[(u16, u16)]| ranges.iter().any(|&(low, high)| low <= status && status <= high);
    if is_in(terms.success.ranges()) {
        return Came::Success;
    }
    if let (true, Some(wait)) = (status == 429 || status == 503, retry_after) {
        return Came::Throttled(wait);
    }
    let may_repeat = match &terms.retry.methods {
        MethodSet::All => true,
        MethodSet::Only(names) => names.iter().any(|name| name == method),
    };
    if may_repeat && is_in(terms.retry.statuses.ranges()) { Came::Again } else { Came::Failure }
}

const fn of_cut(wrote: BytesSent, cut: Cut) -> Came {
    match (cut, wrote) {
        (Cut::Timeout, BytesSent::No | BytesSent::Refused) => Came::Again,
        (Cut::Timeout, BytesSent::Maybe) => Came::Unknown,
        (Cut::Deadline, _) => Came::OutOfTime,
        (Cut::Drain, BytesSent::No | BytesSent::Refused) => Came::HandedBack,
        (Cut::Drain, BytesSent::Maybe) => Came::Interrupted,
        (Cut::Lost, _) => Came::Lost,
    }
}

/// What is stored of an attempt says the same.
pub(super) fn check_outcome(attempt: &AttemptRecord, came: Came) -> Check {
    let expected: &[AttemptOutcome] = match came {
        Came::Success | Came::Redirected(..) => &[AttemptOutcome::Success],
        Came::Failure => &[AttemptOutcome::Failure],
        Came::Throttled(_) => &[AttemptOutcome::Throttled],
        Came::Again => &[AttemptOutcome::Retryable],
        Came::Unknown | Came::Interrupted => &[AttemptOutcome::Unknown],
        Came::HandedBack | Came::Lost => &[AttemptOutcome::Cancelled],
        Came::OutOfTime => &[AttemptOutcome::Unknown, AttemptOutcome::Cancelled],
    };
    ensure(expected.contains(&attempt.outcome), || format!("stored as {}, was {came:?}", attempt.outcome))
}

/// A call that must not be repeated blindly arrives at most once without an answer that we learnt of.
fn check_silence(world: &World, call: &CallRecord, attempts: &[AttemptRecord]) -> Check {
    let terms = terms(&world.plan, &world.facts, call.id);
    let unanswered = attempts.iter().filter(|attempt| {
        let id = id(call, attempt);
        let Some(launch) = world.facts.launches.get(&id) else { return false };
        if terms.repeats_unknown(launch.method) {
            return false;
        }
        let arrivals = &world.facts.arrivals[world.plan.quota(launch.place)];
        let has_arrived = arrivals.iter().any(|arrival| arrival.attempt == id);
        let stored = matches!(attempt.outcome, AttemptOutcome::Unknown | AttemptOutcome::Cancelled);
        has_arrived && (stored || !was_answered(world, id))
    });
    let count = unanswered.count();
    ensure(count <= 1, || format!("{} arrived {count} times without an answer and was not to be repeated", call.id))
}

fn was_answered(world: &World, attempt: AttemptId) -> bool {
    match world.facts.reports.get(&attempt).map(|report| report.what) {
        // That nothing was done with it is an answer too.
        Some(Reported::Finished(result)) if result.bytes_sent == BytesSent::Refused => true,
        Some(Reported::Finished(result)) => result.status.is_some() || result.error.is_some_and(is_bad_answer),
        Some(Reported::Aborted { .. }) | None => false,
    }
}

const fn is_bad_answer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TooLarge | ErrorKind::Decode)
}

/// Whether an answer decides about its call, whatever else is out: a success, or a redirect that may be followed.
pub(crate) fn wins(plan: &Plan, facts: &Facts, call: CallId, what: Reported) -> bool {
    let Reported::Finished(result) = what else { return false };
    let terms = terms(plan, facts, call);
    matches!(of_result(&result, (&terms, "", terms.redirects)), Came::Success | Came::Redirected(..))
}

pub(super) fn after(at: Steady, wait: Duration) -> Steady {
    Steady::from_micros(at.as_micros().saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

pub(super) const fn id(call: &CallRecord, attempt: &AttemptRecord) -> AttemptId {
    AttemptId { call: call.id, number: attempt.number }
}
