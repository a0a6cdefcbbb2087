//! A start of the process: what the store kept, handed to a fresh dispatcher as the engine does it.
//!
//! Nothing is remembered but what is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroI64, NonZeroU32};

use farcall_core::call::{CallSpec, CallbackOf, Durability, Method, Priority, UpstreamId};
use farcall_core::dispatcher::{Census, Dispatcher, LaneLoad, Loaded, OpenAttempt, Recovered, Wanted};
use farcall_core::hop::Hop;
use farcall_core::id::CallId;
use farcall_core::lane::LaneId;
use farcall_core::limit::{Ask, Limits, Past, PastGrant};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retention::Retention;
use farcall_core::settle::Tries;
use farcall_core::steady::{Steady, SteadyClock};
use farcall_core::time::Now;
use farcall_store::port::{Granted, GrantsAsk, LaneRange, ReadError, Reader, Store, WaitingAsk, WaitingCalls};
use farcall_store::record::{CallRecord, GrantRecord, LaneName, LaneRecord, Recovery};

use crate::clocks::Clocks;
use crate::plan::Plan;
use crate::world::World;

/// A dispatcher that goes on where the store stands, and what else the store says is left to do.
pub(crate) fn boot(world: &mut World, seed: u64) -> Result<(Dispatcher, Recovery), ReadError> {
    let recovery = world.store.take_over()?;
    let kept = world.clocks.go_on(recovery.clock.as_ref(), recovery.latest, world.now);
    world.store.keep_clock(&kept)?;
    let mut reader = world.store.reader()?;
    let mut dispatcher = declare(&mut *reader, world, seed)?;
    let (now, plan, steady) = (world.clocks.now(world.now), &world.plan, world.clocks.process());
    let totals = &recovery.totals;
    dispatcher.restore_census(Census::new(totals.accepted, totals.pruned, totals.calls));
    for record in recovery.upstreams.iter().filter(|record| record.is_paused) {
        dispatcher.restore_pause(upstream_of(plan, &record.limit_key, record.limit_key == plan.upstreams[0].key));
    }
    let unfiled: BTreeSet<CallId> = recovery.unfiled.iter().map(|call| call.id).collect();
    let mut open: BTreeMap<CallId, Vec<OpenAttempt>> = BTreeMap::new();
    for (call, attempt) in &recovery.open_attempts {
        open.entry(*call).or_default().push(OpenAttempt { number: attempt.number });
    }
    for LaneRecord { lane, waiting } in &recovery.lanes {
        dispatcher.restore_lane(upstream_of(plan, &lane.limit_key, lane.of_callbacks), lane_id(lane), *waiting);
    }
    for record in &recovery.engaged {
        let spec = spec(&mut *reader, plan, steady, record, &unfiled)?;
        let open = open.remove(&record.id).unwrap_or_default();
        let recovered = Recovered { hop: hop(plan, record), ..recovered(record, steady, spec, open) };
        dispatcher.restore(now, recovered);
    }
    if let Some(retention) = plan.retention {
        dispatcher.set_retention(now.instant, Retention { certain_since: steady.certain_since(), ..retention });
    }
    Ok((dispatcher, recovery))
}

/// A dispatcher with every upstream as the store left its limits, and no call.
pub(crate) fn declare(reader: &mut dyn Reader, world: &World, seed: u64) -> Result<Dispatcher, ReadError> {
    let World { plan, policies, clocks, .. } = world;
    let now = clocks.now(world.now);
    let mut dispatcher = Dispatcher::new(policies[0].clone(), seed).with_memory(plan.memory);
    if let Some(until) = reader.grants(&plan.upstreams[0].key, &[])?.closed_until {
        dispatcher.restore_closing(dispatcher.command_upstream(), clocks.instant(until));
    }
    for (place, policy) in policies.iter().enumerate().skip(1) {
        declare_one(reader, (plan, clocks), &mut dispatcher, (place, policy), now)?;
    }
    Ok(dispatcher)
}

/// The upstream at this place of the plan, as the store left its limits.
fn declare_one(
    reader: &mut dyn Reader,
    (plan, clocks): (&Plan, &Clocks),
    dispatcher: &mut Dispatcher,
    (place, policy): (usize, &UpstreamPolicy),
    now: Now,
) -> Result<UpstreamId, ReadError> {
    if plan.is_webhook(place) {
        let with = u32::try_from(plan.quota(place)).expect("plans are small");
        return Ok(dispatcher.declare_sharing(policy.clone(), UpstreamId(with)));
    }
    let asks = Limits::asks(policy, clocks.process().certain_since(), now.instant);
    let (past, closed_until) = past(reader, &plan.upstreams[place].key, clocks.process(), asks)?;
    let id = dispatcher.declare_restored(policy.clone(), &past, now);
    if let Some(until) = closed_until {
        dispatcher.restore_closing(id, clocks.instant(until));
    }
    Ok(id)
}

/// Forgets every upstream of the process that nothing needs, and declares it anew; gives back which, by their places.
pub(crate) fn forget_idle(world: &mut World) -> Result<Vec<usize>, ReadError> {
    let World { plan, policies, clocks, store, process, now, .. } = world;
    let Some(process) = process else { return Ok(Vec::new()) };
    let (mut reader, now) = (store.reader()?, clocks.now(*now));
    // One that spaces its calls does so anew; nobody here knows of that.
    let may_go = (1..policies.len()).filter(|&place| !policies[place].smooth);
    let ids: Vec<UpstreamId> = may_go.filter_map(|place| u32::try_from(place).ok()).map(UpstreamId).collect();
    let forgotten = process.dispatcher.forget_upstreams(now.instant, &ids);
    let places: Vec<usize> = forgotten.iter().map(|id| id.0 as usize).collect();
    for &place in &places {
        let one = (place, &policies[place]);
        let id = declare_one(&mut *reader, (plan, clocks), &mut process.dispatcher, one, now)?;
        assert_eq!(id.0 as usize, place, "numbers are given again in their order");
    }
    Ok(places)
}

/// What a load asks for, as the store has it.
pub(crate) fn load(reader: &mut dyn Reader, world: &World, wanted: &Wanted) -> Result<Loaded, ReadError> {
    let (plan, steady) = (&world.plan, world.clocks.process());
    let range = |asked: &LaneLoad| {
        let place = asked.upstream.0 as usize;
        let lane = LaneName {
            limit_key: plan.upstreams[place].key.clone(),
            of_callbacks: place == 0 || plan.is_webhook(place),
            priority: asked.lane.priority.level(),
            tenant: asked.lane.tenant,
        };
        LaneRange { lane, ready_at: steady.steady(asked.from.ready_at), call: asked.from.call, count: asked.count }
    };
    let ranges: Vec<LaneRange> = wanted.lanes.iter().map(range).collect();
    let WaitingCalls { lanes, expiring } =
        reader.waiting(WaitingAsk { lanes: &ranges, expiring: wanted.deadlines })?.found;
    let mut calls = Vec::new();
    for &call in &wanted.calls {
        calls.extend(reader.call(call)?);
    }
    let mut read = |records: Vec<CallRecord>| -> Result<Vec<Recovered>, ReadError> {
        let mut one = |record: &CallRecord| {
            let spec = spec(reader, plan, steady, record, &BTreeSet::new())?;
            Ok(Recovered { hop: hop(plan, record), ..recovered(record, steady, spec, Vec::new()) })
        };
        records.iter().map(&mut one).collect()
    };
    Ok(Loaded {
        lanes: lanes.into_iter().map(&mut read).collect::<Result<_, _>>()?,
        deadlines: read(expiring)?,
        calls: read(calls)?,
        has_gaps: false,
    })
}

fn lane_id(lane: &LaneName) -> LaneId {
    let priority = Priority::new(lane.priority).expect("stored as it was accepted");
    LaneId { priority, tenant: lane.tenant }
}

/// The place of the upstream that a lane belongs to.
pub(crate) fn place_of(plan: &Plan, key: &str, is_callback: bool) -> usize {
    upstream_of(plan, key, is_callback).0 as usize
}

fn upstream_of(plan: &Plan, key: &str, is_callback: bool) -> UpstreamId {
    let place = if is_callback { plan.place_of_callback(key) } else { plan.place_of(key) };
    UpstreamId(place.and_then(|place| u32::try_from(place).ok()).expect("no upstream is ever removed"))
}

/// Makes the present policies hold in the process that runs.
pub(crate) fn change(world: &mut World) -> Result<(), ReadError> {
    let World { plan, policies, clocks, store, process, now, .. } = world;
    let Some(process) = process else { return Ok(()) };
    let mut reader = store.reader()?;
    let (clock, now) = (clocks.process(), clocks.now(*now));
    for (place, (upstream, policy)) in plan.upstreams.iter().zip(policies).enumerate().skip(1) {
        let id = UpstreamId(u32::try_from(place).expect("plans are small"));
        if plan.is_webhook(place) {
            process.dispatcher.change_own(id, policy.clone());
            continue;
        }
        let asks = process.dispatcher.asks_of_change(id, policy, clock.certain_since(), now);
        let (past, _) = past(&mut *reader, &upstream.key, clock, asks)?;
        process.dispatcher.change(now, id, policy.clone(), past);
    }
    process.touch();
    Ok(())
}

/// What the store tells of what the windows of an upstream ask; and until when it asked everybody to keep away.
pub(crate) fn past(
    reader: &mut dyn Reader,
    key: &str,
    clock: SteadyClock,
    asks: Vec<Ask>,
) -> Result<(Past, Option<Steady>), ReadError> {
    let question = |ask: &Ask| match *ask {
        Ask::Nothing => None,
        Ask::Latest { since, count } => Some(GrantsAsk::Latest { since: clock.steady(since), count }),
        Ask::Sums { since, step } => {
            let step = i64::try_from(step.as_micros()).ok().and_then(NonZeroI64::new).expect("windows are short");
            Some(GrantsAsk::Sums { since: clock.steady(since), step_us: step })
        }
    };
    let Granted { grants, closed_until } = reader.grants(key, &asks.iter().filter_map(question).collect::<Vec<_>>())?;
    let past = |grant: &GrantRecord| {
        let proved_at = grant.latest_at.map(|at| clock.instant(at));
        PastGrant { cost: grant.cost, proved_at, open: grant.open }
    };
    let mut answers = grants.iter();
    let mut windows = Vec::new();
    for ask in asks {
        let answer = if question(&ask).is_some() { answers.next() } else { None };
        windows.push((ask, answer.into_iter().flatten().map(past).collect()));
    }
    Ok((Past { certain_since: clock.certain_since(), windows }, closed_until))
}

fn spec(
    reader: &mut dyn Reader,
    plan: &Plan,
    steady: SteadyClock,
    record: &CallRecord,
    unfiled: &BTreeSet<CallId>,
) -> Result<CallSpec, ReadError> {
    let wish = if record.has_overrides { document(reader, record.id)?.map(|at| &plan.calls[at]) } else { None };
    Ok(CallSpec {
        id: record.id,
        upstream: upstream_of(plan, record.home_key(), record.callback_of.is_some()),
        source: record.source,
        durability: Durability::Durable,
        method: Method::of(&record.method),
        priority: Priority::new(record.priority).expect("stored as it was accepted"),
        tenant: record.tenant_id,
        cost: NonZeroU32::new(record.cost).expect("no call costs nothing"),
        accepted_at: record.accepted_at,
        not_before: record.not_before.map(|at| steady.instant(at)),
        deadline: record.deadline.map(|at| steady.instant(at)),
        overrides: wish.and_then(|wish| wish.overrides.clone()).map(Box::new),
        has_file: record.file.is_some(),
        callback: wish.and_then(|wish| wish.callback).map(UpstreamId),
        callback_of: record.callback_of.map(|parent| CallbackOf { parent, held: unfiled.contains(&parent) }),
    })
}

/// The place in the plan that a call's stored document names.
fn document(reader: &mut dyn Reader, call: CallId) -> Result<Option<usize>, ReadError> {
    let request = reader.requests(&[call])?.found.pop().flatten();
    let bytes = request.and_then(|request| <[u8; 4]>::try_from(request.document.as_ref()).ok());
    Ok(bytes.map(|bytes| u32::from_le_bytes(bytes) as usize))
}

/// Where redirects have led a call.
fn hop(plan: &Plan, record: &CallRecord) -> Option<Hop> {
    let hop = record.hop.as_ref()?;
    let upstream = upstream_of(plan, &record.limit_key, false);
    Some(Hop { upstream, method: Method::of(&hop.method), count: hop.count })
}

fn recovered(record: &CallRecord, steady: SteadyClock, spec: CallSpec, open: Vec<OpenAttempt>) -> Recovered {
    let progress = &record.progress;
    Recovered {
        spec,
        state: progress.state,
        hop: None,
        tries: Tries {
            retries: progress.retries,
            requeues: progress.requeues,
            throttles: progress.throttles,
            deaths: progress.deaths,
            orphaned: progress.orphaned,
        },
        attempts: record.attempts,
        ready_at: progress.ready_at.map(|at| steady.instant(at)),
        is_cancel_requested: record.cancel_requested,
        open,
    }
}
