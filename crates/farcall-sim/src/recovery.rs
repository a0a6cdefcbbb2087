//! A start of the process: what the store kept, handed to a fresh dispatcher as the engine does it.
//!
//! Nothing is remembered but what is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use farcall_core::call::{CallSpec, CallbackOf, Method, Priority, UpstreamId};
use farcall_core::dispatcher::{Census, Dispatcher, LaneLoad, Loaded, OpenAttempt, Recovered, Wanted};
use farcall_core::id::CallId;
use farcall_core::lane::LaneId;
use farcall_core::limit::PastGrant;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::settle::Tries;
use farcall_core::time::Now;
use farcall_store::port::{LaneRange, ReadError, Reader, Store};
use farcall_store::record::{CallRecord, GrantRecord, LaneName, LaneRecord, Recovery};

use crate::plan::Plan;

/// A dispatcher that goes on where the store stands, and what else the store says is left to do.
pub(crate) fn boot(
    store: &mut impl Store,
    plan: &Plan,
    policies: &[UpstreamPolicy],
    seed: u64,
    now: Now,
) -> Result<(Dispatcher, Recovery), ReadError> {
    let recovery = store.take_over()?;
    let mut reader = store.reader()?;
    let mut dispatcher = declare(&mut *reader, plan, policies, seed, now)?;
    let totals = &recovery.totals;
    dispatcher.restore_census(Census::new(totals.accepted, totals.pruned, totals.calls));
    let unfiled: BTreeSet<CallId> = recovery.unfiled.iter().map(|call| call.id).collect();
    let mut open: BTreeMap<CallId, Vec<OpenAttempt>> = BTreeMap::new();
    for (call, attempt) in &recovery.open_attempts {
        open.entry(*call).or_default().push(OpenAttempt { number: attempt.number });
    }
    for LaneRecord { lane, waiting } in &recovery.lanes {
        dispatcher.restore_lane(upstream(plan, &lane.limit_key), lane_id(lane), *waiting);
    }
    for record in &recovery.engaged {
        let spec = spec(&mut *reader, plan, record, &unfiled)?;
        let open = open.remove(&record.id).unwrap_or_default();
        dispatcher.restore(now, recovered(record, spec, open));
    }
    Ok((dispatcher, recovery))
}

/// A dispatcher with every upstream as the store left its limits, and no call.
pub(crate) fn declare(
    reader: &mut dyn Reader,
    plan: &Plan,
    policies: &[UpstreamPolicy],
    seed: u64,
    now: Now,
) -> Result<Dispatcher, ReadError> {
    let mut dispatcher = Dispatcher::new(policies[0].clone(), seed).with_memory(plan.memory);
    if let Some(until) = reader.closed_until(&plan.upstreams[0].key)? {
        dispatcher.restore_closing(dispatcher.callback_upstream(), now.instant_of(until));
    }
    for (upstream, policy) in plan.upstreams.iter().zip(policies).skip(1) {
        let past = past_grants(reader, &upstream.key, policy, now)?;
        let id = dispatcher.declare_restored(policy.clone(), &past, now);
        if let Some(until) = reader.closed_until(&upstream.key)? {
            dispatcher.restore_closing(id, now.instant_of(until));
        }
    }
    Ok(dispatcher)
}

/// What a load asks for, as the store has it.
pub(crate) fn load(reader: &mut dyn Reader, plan: &Plan, wanted: &Wanted) -> Result<Loaded, ReadError> {
    let range = |asked: &LaneLoad| LaneRange {
        lane: LaneName {
            limit_key: plan.upstreams[asked.upstream.0 as usize].key.clone(),
            priority: asked.lane.priority.level(),
            tenant: asked.lane.tenant,
        },
        from: asked.from,
        count: asked.count,
    };
    let lanes = reader.waiting(&wanted.lanes.iter().map(range).collect::<Vec<_>>())?;
    let deadlines = if wanted.deadlines > 0 { reader.expiring(wanted.deadlines)? } else { Vec::new() };
    let mut read = |records: Vec<CallRecord>| -> Result<Vec<Recovered>, ReadError> {
        let one =
            |record: &CallRecord| Ok(recovered(record, spec(reader, plan, record, &BTreeSet::new())?, Vec::new()));
        records.iter().map(one).collect()
    };
    Ok(Loaded { lanes: lanes.into_iter().map(&mut read).collect::<Result<_, _>>()?, deadlines: read(deadlines)? })
}

fn lane_id(lane: &LaneName) -> LaneId {
    let priority = Priority::new(lane.priority).expect("stored as it was accepted");
    LaneId { priority, tenant: lane.tenant }
}

fn upstream(plan: &Plan, key: &str) -> UpstreamId {
    let place = plan.upstreams.iter().position(|upstream| upstream.key == key);
    UpstreamId(place.and_then(|place| u32::try_from(place).ok()).expect("no upstream is ever removed"))
}

fn past_grants(
    reader: &mut dyn Reader,
    key: &str,
    policy: &UpstreamPolicy,
    now: Now,
) -> Result<Vec<PastGrant>, ReadError> {
    let Some(longest) = policy.limits.iter().map(|limit| limit.window).max() else { return Ok(Vec::new()) };
    let count = policy.limits.iter().map(|limit| limit.count.get()).max().unwrap_or(0);
    let since = now.timestamp - (longest + longest / 1_000);
    let grants = reader.grants(key, since, count)?;
    Ok(grants.iter().filter_map(|grant| past_grant(grant, now)).collect())
}

/// One that ended without proof sent nothing.
fn past_grant(grant: &GrantRecord, now: Now) -> Option<PastGrant> {
    if grant.ended_at.is_some() && grant.proved_at.is_none() {
        return None;
    }
    Some(PastGrant { cost: grant.cost, proved_at: grant.proved_at.map(|at| now.instant_of(at)) })
}

fn spec(
    reader: &mut dyn Reader,
    plan: &Plan,
    record: &CallRecord,
    unfiled: &BTreeSet<CallId>,
) -> Result<CallSpec, ReadError> {
    let overrides = if record.has_overrides {
        document(reader, record.id)?.and_then(|at| plan.calls[at].overrides.clone())
    } else {
        None
    };
    Ok(CallSpec {
        id: record.id,
        upstream: upstream(plan, &record.limit_key),
        source: record.source,
        method: Method::of(&record.method),
        priority: Priority::new(record.priority).expect("stored as it was accepted"),
        tenant: record.tenant_id,
        cost: NonZeroU32::new(record.cost).expect("no call costs nothing"),
        accepted_at: record.accepted_at,
        not_before: record.not_before,
        deadline: record.deadline,
        overrides: overrides.map(Box::new),
        has_file: record.file.is_some(),
        callback_of: record.callback_of.map(|parent| CallbackOf { parent, held: unfiled.contains(&parent) }),
    })
}

/// The place in the plan that a call's stored document names.
fn document(reader: &mut dyn Reader, call: CallId) -> Result<Option<usize>, ReadError> {
    let request = reader.request(call)?;
    let bytes = request.and_then(|bytes| <[u8; 4]>::try_from(bytes.as_ref()).ok());
    Ok(bytes.map(|bytes| u32::from_le_bytes(bytes) as usize))
}

fn recovered(record: &CallRecord, spec: CallSpec, open: Vec<OpenAttempt>) -> Recovered {
    let progress = &record.progress;
    Recovered {
        spec,
        state: progress.state,
        tries: Tries { retries: progress.retries, requeues: progress.requeues, throttles: progress.throttles },
        attempts: record.attempts,
        ready_at: progress.ready_at,
        open,
    }
}
