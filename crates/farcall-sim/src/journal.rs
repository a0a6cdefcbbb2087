//! From what a turn decides to what the store keeps, as the engine translates it.
//!
//! Bytes and words are made up; they decide nothing.

use bytes::Bytes;
use farcall_core::call::{ErrorKind, Source, TenantId};
use farcall_core::dispatcher::{self, Callback};
use farcall_core::id::CallId;
use farcall_core::settle::Tries;
use farcall_core::time::{Now, Timestamp};
use farcall_store::port::{self, Insert, Settle, Start};
use farcall_store::record::{CallRecord, ErrorRecord, FileIdentity, Progress};

use crate::facts::{Facts, Origin};
use crate::plan::Plan;

/// The store's form of a turn's writes. Callbacks that it inserts become known to the facts.
pub(crate) fn translate(plan: &Plan, facts: &mut Facts, now: Now, writes: &[dispatcher::Write]) -> Vec<port::Write> {
    writes.iter().map(|write| one(plan, facts, now, write)).collect()
}

fn one(plan: &Plan, facts: &mut Facts, now: Now, write: &dispatcher::Write) -> port::Write {
    match *write {
        dispatcher::Write::Insert { call, state, next_at, ready_at, callback } => {
            let progress = Progress::waiting(state, next_at, ready_at);
            let insert = match callback {
                Some(callback) => callback_insert(plan, facts, now, call, callback, progress),
                None => planned_insert(plan, facts, call, progress),
            };
            port::Write::Insert(Box::new(insert))
        }
        dispatcher::Write::Start { attempt, kind, at } => {
            port::Write::Start(Start { call: attempt.call, number: attempt.number, kind, started_at: at })
        }
        dispatcher::Write::Settle { call, attempt, progress, upstream: _ } => {
            let attempt = attempt.map(attempt_end);
            let progress = progress.map(progress_record);
            port::Write::Settle(Box::new(Settle { call, attempt, progress, response: None }))
        }
        dispatcher::Write::Close { call, until } => port::Write::Close { call, until },
        dispatcher::Write::Release { call, ready_at } => port::Write::Release { call, ready_at },
        dispatcher::Write::Filed { call } => port::Write::Filed(call),
    }
}

fn planned_insert(plan: &Plan, facts: &Facts, call: CallId, progress: Progress) -> Insert {
    let Some(&Origin::Planned { place, accepted_at }) = facts.origins.get(&call) else {
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
        not_before: wish.delay.map(|delay| accepted_at + delay),
        deadline: wish.deadline.map(|deadline| accepted_at + deadline),
        has_overrides: wish.overrides.is_some(),
        file: wish.has_file().then(|| file(place)),
        filed: !wish.has_file(),
        ..record(call, wish.source, key, accepted_at, progress)
    };
    Insert { call, request: Bytes::copy_from_slice(&document) }
}

fn callback_insert(
    plan: &Plan,
    facts: &mut Facts,
    now: Now,
    call: CallId,
    callback: Callback,
    progress: Progress,
) -> Insert {
    facts.origins.insert(call, Origin::Callback { parent: callback.parent });
    let record = record(call, Source::Callback, &plan.upstreams[0].key, now.timestamp, progress);
    let call = CallRecord { callback_of: Some(callback.parent), ..record };
    Insert { call, request: Bytes::new() }
}

/// A call's row with nothing that not every call has.
fn record(id: CallId, source: Source, limit_key: &str, accepted_at: Timestamp, progress: Progress) -> CallRecord {
    CallRecord {
        id,
        source,
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
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: None,
        filed: true,
        idempotency: None,
    }
}

fn file(place: usize) -> FileIdentity {
    FileIdentity { name: format!("{place}.json").into_bytes(), device: 1, inode: place as u64, changed_ns: 0 }
}

fn progress_record(progress: dispatcher::Progress) -> Progress {
    let dispatcher::Progress { state, next_at, ready_at, tries, status, error, finished_at } = progress;
    let Tries { retries, requeues, throttles } = tries;
    Progress {
        state,
        next_at,
        ready_at,
        retries,
        requeues,
        throttles,
        finished_at,
        status,
        error: error.map(error_record),
    }
}

fn attempt_end(end: dispatcher::AttemptEnd) -> port::AttemptEnd {
    let dispatcher::AttemptEnd { number, outcome, status, error, proved_at, ended_at } = end;
    port::AttemptEnd { number, outcome, status, proved_at, ended_at, error: error.map(error_record) }
}

fn error_record(kind: ErrorKind) -> ErrorRecord {
    ErrorRecord { kind, message: kind.to_string() }
}
