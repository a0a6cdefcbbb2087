//! Who goes next at an upstream, watched from outside: priorities are strict but for one start in twenty, which goes to a
//! lower one, and tenants of one priority take turns, counted in cost.
//!
//! It follows every decision of a process, and counts only calls that its memory holds: a lane whose next calls are on
//! their way from the store is passed over. A failed commit takes decisions back, and ends the watch of that process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farcall_core::attempt::AttemptKind;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::port::Write;
use farcall_store::record::CallRecord;

use super::{Check, cost_of, ensure, terms};
use crate::recovery;
use crate::world::World;

/// Starts between two that go to a lower priority.
const HIGHER_IN_A_ROW: u32 = 19;
/// How far apart two tenants may be that both wait all the time: three calls of the largest cost, and some more.
const COST_APART_MAX: u64 = 40;
/// So many calls of one tenant start at most while another's call waits, or one more than that call costs.
const PASSED_OVER_MAX: u32 = 10;

/// A place behind everybody is so far ahead of the clock at most, when many are given at one moment.
const NUDGED_MAX: Duration = Duration::from_millis(1);

/// What one process has decided so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    calls: BTreeMap<CallId, Standing>,
    lines: BTreeMap<usize, Line>,
    /// Nobody can say any more what was decided.
    is_over: bool,
    /// Costs are not what they were when calls took their places.
    has_other_costs: bool,
}

/// A call that has not ended, and since when it waits, if it does.
#[derive(Debug, Clone, Copy)]
struct Standing {
    call: CallId,
    place: usize,
    is_callback: bool,
    priority: u8,
    tenant: u64,
    ready_at: Option<Steady>,
}

/// The starts of one upstream.
#[derive(Debug, Clone, Default)]
struct Line {
    since_lower: u32,
    /// Starts in a row that a lower priority had to wait for.
    without_lower: u32,
    /// What two tenants of a priority were given since both have waited.
    rivals: BTreeMap<(u8, u64, u64), (u64, u64)>,
    /// For each lane in which a call waits: how many of each other tenant's have started since its own last one did.
    passed: BTreeMap<(u8, u64), BTreeMap<u64, u32>>,
}

impl Order {
    /// At a start, from what the store holds.
    pub(crate) fn of<'c>(world: &World, live: impl Iterator<Item = &'c CallRecord>) -> Self {
        let calls = live.map(|call| (call.id, Standing::of(world, call, call.progress.ready_at))).collect();
        Self { calls, ..Self::default() }
    }

    pub(crate) const fn end(&mut self) {
        self.is_over = true;
    }

    pub(crate) fn change_costs(&mut self) {
        self.has_other_costs = true;
        for line in self.lines.values_mut() {
            line.rivals.clear();
            line.passed.clear();
        }
    }

    /// Nobody waited at this place, and who goes next there begins anew.
    pub(crate) fn begin_anew(&mut self, place: usize) {
        self.lines.remove(&place);
    }

    /// Looks at the decisions of one turn; `is_loaded` says which calls are in memory after it.
    pub(crate) fn follow(&mut self, world: &World, writes: &[Write], is_loaded: impl Fn(CallId) -> bool) -> Check {
        if self.is_over {
            return Ok(());
        }
        let starts = self.take_in(world, writes);
        self.check_hedges(world, writes)?;
        let now = world.clocks.steady(world.now);
        let within = |from: Steady, until: Steady| {
            let is_within = move |standing: &&Standing| standing.ready_at.is_some_and(|at| from < at && at <= until);
            self.calls.values().filter(is_within).filter(|standing| is_loaded(standing.call)).copied().collect()
        };
        let late = late(world, writes);
        let mut waiting: Vec<Standing> = within(Steady::from_micros(i64::MIN), now);
        let mut nudged: Vec<Standing> = within(now, world.clocks.steady(world.now + NUDGED_MAX));
        nudged.extend(waiting.extract_if(.., |standing| late.contains(&standing.call)));
        let places: BTreeSet<usize> =
            starts.iter().map(|start| start.place).chain(self.lines.keys().copied()).collect();
        for place in places {
            let at = |standings: &[Standing]| -> Vec<Standing> {
                standings.iter().filter(|standing| standing.place == place).copied().collect()
            };
            let (starts, waiting, nudged) = (at(&starts), at(&waiting), at(&nudged));
            let line = self.lines.entry(place).or_default();
            line.check_priorities(place, &starts, &waiting, &nudged)?;
            if !self.has_other_costs {
                line.check_tenants(world, place, &starts, &waiting)?;
                line.check_delays(world, place, &starts, &waiting)?;
            }
        }
        Ok(())
    }

    /// Nothing is added to what is out while a call waits that might go on at the same quota, wherever it is kept.
    fn check_hedges(&self, world: &World, writes: &[Write]) -> Check {
        let now = world.clocks.steady(world.now);
        let quotas = writes.iter().filter_map(|write| match write {
            Write::Start(start) if start.kind == AttemptKind::Hedge => self.calls.get(&start.call),
            _ => None,
        });
        for hedged in quotas {
            let quota = world.plan.quota(hedged.place);
            let waits = |other: &&Standing| {
                world.plan.quota(other.place) == quota && other.ready_at.is_some_and(|at| at <= now)
            };
            let waiting = self.calls.values().find(waits);
            ensure(waiting.is_none(), || format!("{hedged:?} is hedged while {waiting:?} waits"))?;
        }
        Ok(())
    }

    /// What was decided to start, in order.
    fn take_in(&mut self, world: &World, writes: &[Write]) -> Vec<Standing> {
        let mut starts = Vec::new();
        for write in writes {
            if let Write::Insert(insert) = write {
                let standing = Standing::of(world, &insert.call, insert.call.progress.ready_at);
                self.calls.insert(insert.call.id, standing);
            }
            let Some(standing) = write.call().and_then(|call| self.calls.get_mut(&call)) else { continue };
            match write {
                // Nobody waited for a hedge.
                Write::Start(start) if start.kind == AttemptKind::Hedge => {}
                Write::Start(_) => {
                    standing.ready_at = None;
                    starts.push(*standing);
                }
                Write::Release { ready_at, .. } => standing.ready_at = Some(*ready_at),
                Write::Settle(settle) => {
                    if let Some(heading) = &settle.heading {
                        standing.place = recovery::place_of(&world.plan, &heading.limit_key, standing.is_callback);
                    }
                    match &settle.progress {
                        Some(progress) if progress.state.is_end() => drop(self.calls.remove(&settle.call)),
                        Some(progress) => standing.ready_at = progress.ready_at,
                        None => {}
                    }
                }
                Write::Insert(_)
                | Write::Close { .. }
                | Write::Filed(_)
                | Write::Prune(_)
                | Write::FreeKey(_)
                | Write::Upstream(_)
                | Write::Open { .. }
                | Write::Grant(_)
                | Write::GrantEnd(_)
                | Write::GrantsLeft { .. }
                | Write::Mark { .. } => {}
            }
        }
        starts
    }
}

/// Calls that came to wait when everybody else had had a turn: it was looked first whether they are hedged.
fn late(world: &World, writes: &[Write]) -> BTreeSet<CallId> {
    let settled = writes.iter().filter_map(|write| match write {
        Write::Settle(settle) if settle.progress.is_some() => Some(settle.call),
        _ => None,
    });
    settled.filter(|&call| terms(&world.plan, &world.facts, call).hedges_failures()).collect()
}

impl Standing {
    fn of(world: &World, call: &CallRecord, ready_at: Option<Steady>) -> Self {
        let is_callback = call.callback_of.is_some();
        let place = recovery::place_of(&world.plan, &call.limit_key, is_callback);
        Self { call: call.id, place, is_callback, priority: call.priority, tenant: call.tenant_id.0, ready_at }
    }
}

impl Line {
    /// `nudged` are calls of which cannot be told whether they wait.
    fn check_priorities(
        &mut self,
        place: usize,
        starts: &[Standing],
        waiting: &[Standing],
        nudged: &[Standing],
    ) -> Check {
        for (number, start) in starts.iter().enumerate() {
            let passed_over = || starts[number + 1..].iter().chain(waiting);
            let is_lower = passed_over().any(|other| other.priority < start.priority);
            let has_lower = passed_over().any(|other| other.priority > start.priority);
            if !is_lower && nudged.iter().any(|other| other.priority < start.priority) {
                (self.since_lower, self.without_lower) = (HIGHER_IN_A_ROW, 0);
                continue;
            }
            if is_lower {
                let since = self.since_lower;
                ensure(since >= HIGHER_IN_A_ROW, || {
                    format!("{start:?} goes before a higher priority, {since} starts after the last such at {place}")
                })?;
                (self.since_lower, self.without_lower) = (0, 0);
                continue;
            }
            self.since_lower += 1;
            self.without_lower = if has_lower { self.without_lower + 1 } else { 0 };
            let without = self.without_lower;
            ensure(without <= HIGHER_IN_A_ROW, || format!("a lower priority waits for {without} starts at {place}"))?;
        }
        Ok(())
    }

    fn check_tenants(&mut self, world: &World, place: usize, starts: &[Standing], waiting: &[Standing]) -> Check {
        let policy = &world.policies[world.plan.quota(place)];
        for start in starts {
            let cost = u64::from(cost_of(&world.plan, &world.facts, policy, start.call));
            for (&(priority, one, other), given) in &mut self.rivals {
                given.0 += if (priority, one) == (start.priority, start.tenant) { cost } else { 0 };
                given.1 += if (priority, other) == (start.priority, start.tenant) { cost } else { 0 };
            }
        }
        let backlogs: BTreeSet<(u8, u64)> = waiting.iter().map(|call| (call.priority, call.tenant)).collect();
        let both_wait =
            |priority, one, other| backlogs.contains(&(priority, one)) && backlogs.contains(&(priority, other));
        self.rivals.retain(|&(priority, one, other), _| both_wait(priority, one, other));
        for &(priority, one) in &backlogs {
            for &(_, other) in backlogs.iter().filter(|&&(level, other)| level == priority && other > one) {
                self.rivals.entry((priority, one, other)).or_default();
            }
        }
        let unfair = self.rivals.iter().find(|(_, given)| given.0.abs_diff(given.1) > COST_APART_MAX);
        ensure(unfair.is_none(), || format!("two tenants both wait at {place}, and were given {unfair:?}"))
    }
    /// However many calls of one tenant wait, another's single one is delayed by few of them.
    fn check_delays(&mut self, world: &World, place: usize, starts: &[Standing], waiting: &[Standing]) -> Check {
        for start in starts {
            self.passed.remove(&(start.priority, start.tenant));
            let others = self.passed.iter_mut().filter(|((priority, _), _)| *priority == start.priority);
            others.for_each(|(_, passed)| *passed.entry(start.tenant).or_default() += 1);
        }
        let policy = &world.policies[world.plan.quota(place)];
        let mut costs: BTreeMap<(u8, u64), u32> = BTreeMap::new();
        for call in waiting {
            let cost = cost_of(&world.plan, &world.facts, policy, call.call);
            let most = costs.entry((call.priority, call.tenant)).or_default();
            *most = cost.max(*most);
        }
        self.passed.retain(|lane, _| costs.contains_key(lane));
        for (lane, cost) in costs {
            let passed = self.passed.entry(lane).or_default();
            let most = PASSED_OVER_MAX.max(cost + 1);
            let unfair = passed.iter().find(|&(_, &starts)| starts > most);
            ensure(unfair.is_none(), || format!("a call of {lane:?} waits at {place}, passed over by {unfair:?}"))?;
        }
        Ok(())
    }
}
