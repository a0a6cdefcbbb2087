//! From what a turn decides to what the store keeps, as the engine translates it.
//!
//! Bytes and words are made up; they decide nothing.

use bytes::Bytes;
use farcall_core::attempt::AttemptKind;
use farcall_core::call::{ErrorKind, Source, TenantId, UpstreamId, Via};
use farcall_core::dispatcher::{self, Callback};
use farcall_core::hop::{Heading, Hop};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::settle::Tries;
use farcall_core::steady::{Steady, SteadyClock};
use farcall_core::time::{Now, Timestamp};
use farcall_store::port::{self, Insert, Settle, Start};
use farcall_store::record::{CallRecord, ErrorRecord, FileIdentity, HopRecord, Progress, UpstreamRecord};

use crate::facts::{Decided, Facts, Origin};
use crate::plan::Plan;

/// The moment of a turn, and how its instants are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Now,
    pub(crate) steady: SteadyClock,
}

/// The store's form of a turn's write. A callback that it inserts becomes known to the facts.
pub(crate) fn translate(plan: &Plan, facts: &mut Facts, clock: Clock, write: &dispatcher::Write) -> port::Write {
    let Clock { now, steady } = clock;
    match *write {
        dispatcher::Write::Insert { call, state, ready_at, callback } => {
            let progress = Progress::waiting(state, ready_at.map(|at| steady.steady(at)));
            let insert = match callback {
                Some(callback) => callback_insert(plan, facts, clock, call, callback, progress),
                None => planned_insert(plan, facts, clock, call, progress),
            };
            port::Write::Insert(Box::new(insert))
        }
        dispatcher::Write::Start { attempt, kind, upstream, at, waited: _ } => {
            let era = facts.eras.len() - 1;
            let place = upstream.0 as usize;
            *facts.hedges.entry(attempt.call).or_default() += u32::from(kind == AttemptKind::Hedge);
            let decided = Decided { place, era, granted_at: at.instant, proved_at: None, ended_at: None, nth_end: 0 };
            facts.decided.insert(attempt, decided);
            let (started_at, granted_at) = (at.timestamp, steady.steady(at.instant));
            port::Write::Start(Start { call: attempt.call, number: attempt.number, kind, started_at, granted_at })
        }
        dispatcher::Write::Settle { call, attempt, progress, upstream } => {
            let ended_at = note_end(facts, clock, call, attempt);
            if progress.is_some_and(|progress| progress.state.is_end()) {
                facts.finishes.insert(call, ended_at);
            }
            let heading = progress.and_then(|progress| progress.heading).map(|to| heading(plan, upstream, to));
            let attempt = attempt.map(|end| attempt_end(steady, end));
            let progress = progress.map(|progress| progress_record(steady, progress));
            let at = steady.steady(now.instant);
            port::Write::Settle(Box::new(Settle { at, call, attempt, progress, heading, response: None }))
        }
        dispatcher::Write::Close { call, until } => port::Write::Close { call, until: steady.steady(until) },
        dispatcher::Write::Release { call, ready_at } => {
            port::Write::Release { call, ready_at: steady.steady(ready_at) }
        }
        dispatcher::Write::Filed { call } => port::Write::Filed(call),
        dispatcher::Write::Mark { call, mark } => port::Write::Mark { call, mark },
        dispatcher::Write::Prune { call, state: _, grants_since } => {
            port::Write::Prune(port::Prune { call, grants_since: steady.steady(grants_since) })
        }
        dispatcher::Write::FreeKey { call } => port::Write::FreeKey(call),
        dispatcher::Write::Grant { attempt, upstream, at, cost } => {
            let limit_key = plan.upstreams[plan.quota(upstream.0 as usize)].key.clone();
            port::Write::Grant(port::Grant { attempt, limit_key, granted_at: steady.steady(at.instant), cost })
        }
        dispatcher::Write::GrantEnd { attempt, proved_at, grants_since } => port::Write::GrantEnd(port::GrantEnd {
            attempt,
            proved_at: proved_at.map(|at| steady.steady(at)),
            grants_since: steady.steady(grants_since),
        }),
        dispatcher::Write::GrantsLeft { proved_at } => port::Write::GrantsLeft { proved_at: steady.steady(proved_at) },
        dispatcher::Write::Upstream { upstream } => {
            let quota = plan.quota(upstream.0 as usize);
            let is_paused = facts.pauses.iter().any(|pause| pause.quota == quota && pause.until.is_none());
            let (limit_key, patches) = (plan.upstreams[quota].key.clone(), String::new());
            port::Write::Upstream(Box::new(UpstreamRecord { limit_key, is_paused, patches }))
        }
        dispatcher::Write::Open { upstream } => {
            port::Write::Open { limit_key: plan.upstreams[plan.quota(upstream.0 as usize)].key.clone() }
        }
    }
}

fn planned_insert(plan: &Plan, facts: &Facts, clock: Clock, call: CallId, progress: Progress) -> Insert {
    let Some(&Origin::Planned { place, accepted_at, times }) = facts.origins.get(&call) else {
        panic!("{call} was inserted without an offer");
    };
    let wish = &plan.calls[place];
    let document = u32::try_from(place).expect("plans are small").to_le_bytes();
    let key = &plan.upstreams[wish.upstream as usize].key;
    let call = CallRecord {
        upstream: Some(key.clone()),
        method: wish.method.to_owned(),
        priority: wish.priority,
        tenant: (wish.tenant > 0).then(|| wish.tenant.to_string()),
        tenant_id: TenantId(wish.tenant),
        cost: wish.cost.get(),
        not_before: times.not_before,
        deadline: times.deadline,
        has_overrides: wish.overrides.is_some() || wish.callback.is_some(),
        file: wish.has_file().then(|| file(place)),
        filed: !wish.has_file(),
        ..record(call, wish.source, key, accepted_at, progress)
    };
    Insert { at: clock.steady.steady(clock.now.instant), call, request: Bytes::copy_from_slice(&document), trace: None }
}

fn callback_insert(
    plan: &Plan,
    facts: &mut Facts,
    clock: Clock,
    call: CallId,
    callback: Callback,
    progress: Progress,
) -> Insert {
    let place = callback.upstream.0 as usize;
    facts.origins.insert(call, Origin::Callback { parent: callback.parent, place });
    let record = record(call, Source::Callback, &plan.upstreams[place].key, clock.now.timestamp, progress);
    let method = if plan.is_webhook(place) { "POST".to_owned() } else { String::new() };
    let call = CallRecord { callback_of: Some(callback.parent), method, ..record };
    Insert { at: clock.steady.steady(clock.now.instant), call, request: Bytes::new(), trace: None }
}

/// A call's row with nothing that not every call has.
pub(crate) fn record(
    id: CallId,
    source: Source,
    limit_key: &str,
    accepted_at: Timestamp,
    progress: Progress,
) -> CallRecord {
    CallRecord {
        id,
        source,
        via: Via::User,
        upstream: None,
        limit_key: limit_key.to_owned(),
        method: String::new(),
        url: String::new(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at,
        not_before: None,
        deadline: None,
        started_at: None,
        attempts: 0,
        progress,
        cancel_requested: false,
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: None,
        filed: true,
        idempotency: None,
        hop: None,
    }
}

fn file(place: usize) -> FileIdentity {
    FileIdentity { name: format!("{place}.json").into_bytes(), device: 1, inode: place as u64, changed_ns: 0 }
}

/// Notes the end of an attempt, if there is one; when it came, or the present.
fn note_end(facts: &mut Facts, clock: Clock, call: CallId, end: Option<dispatcher::AttemptEnd>) -> Steady {
    let now = clock.steady.steady(clock.now.instant);
    let Some(end) = end else { return now };
    let id = AttemptId { call, number: end.number };
    // A report tells when it was taken in. One whose process died before this end was decided tells nothing.
    let died = end.error == Some(ErrorKind::Unknown);
    let ended_at = facts.reports.get(&id).filter(|_| !died).map_or(now, |report| report.steady);
    facts.ends += 1;
    if let Some(decided) = facts.decided.get_mut(&id) {
        (decided.proved_at, decided.ended_at, decided.nth_end) = (end.proved_at, Some(ended_at), facts.ends);
    }
    ended_at
}

pub(crate) fn progress_record(steady: SteadyClock, progress: dispatcher::Progress) -> Progress {
    let dispatcher::Progress { state, ready_at, tries, heading: _, status, error, finished_at } = progress;
    let Tries { retries, requeues, throttles, deaths, orphaned } = tries;
    let (ready_at, error) = (ready_at.map(|at| steady.steady(at)), error.map(error_record));
    Progress { state, ready_at, retries, requeues, throttles, deaths, orphaned, finished_at, status, error }
}

fn heading(plan: &Plan, home: UpstreamId, heading: Heading) -> port::Heading {
    let key = |upstream: UpstreamId| plan.upstreams[upstream.0 as usize].key.clone();
    let Heading::Hop(Hop { upstream, method, count }) = heading else {
        return port::Heading { limit_key: key(home), hop: None };
    };
    let hop = HopRecord {
        url: String::new(),
        // The plan's methods have names of their own, but for one.
        method: method.name().unwrap_or("PURGE").to_owned(),
        count,
        upstream: Some(key(upstream)),
        has_body: false,
        is_elsewhere: false,
        home_key: key(home),
    };
    port::Heading { limit_key: key(upstream), hop: Some(hop) }
}

pub(crate) fn attempt_end(steady: SteadyClock, end: dispatcher::AttemptEnd) -> port::AttemptEnd {
    let dispatcher::AttemptEnd { number, kind: _, took: _, outcome, status, error, proved_at, ended_at } = end;
    let proved_at = proved_at.map(|at| steady.steady(at));
    port::AttemptEnd { number, outcome, status, proved_at, ended_at, error: error.map(error_record) }
}

fn error_record(kind: ErrorKind) -> ErrorRecord {
    ErrorRecord { kind, message: kind.to_string() }
}
