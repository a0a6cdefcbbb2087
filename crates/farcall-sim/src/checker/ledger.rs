//! The store, looked at after every commit: nothing unheard of, nothing lost, no end undone, every count right.
//!
//! It reads the store as anybody could and asks the dispatcher for its counts only.

use std::collections::{BTreeMap, BTreeSet};

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::State;
use farcall_core::dispatcher::Census;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::steady::Steady;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{Reader, Store, Write};
use farcall_store::record::{AttemptRecord, CallRecord, Recovery};

use super::{Check, Violation, ensure, violation};
use crate::facts::{Facts, Origin};
use crate::log::Line;
use crate::workload::METHODS;
use crate::world::World;

/// More attempts than the retries, requeues, throttles and redirects of any plan allow, and the deaths of its process.
const ATTEMPTS_MAX: u32 = 400;

/// What the checkers last saw in the store.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<CallId, Row>,
    live: BTreeSet<CallId>,
    unfiled: BTreeSet<CallId>,
    /// The store has forgotten them.
    pruned: BTreeSet<CallId>,
    /// What the store held before the commit that is looked at.
    pub(super) stored_bytes: u64,
    planned: usize,
    /// By place in `State::ALL`.
    tally: [u64; State::ALL.len()],
}

#[derive(Debug)]
struct Row {
    call: CallRecord,
    attempts: Vec<AttemptRecord>,
}

impl Ledger {
    pub(crate) fn knows(&self, call: CallId) -> bool {
        self.rows.contains_key(&call)
    }

    pub(crate) fn has_ended(&self, call: CallId) -> bool {
        self.rows.contains_key(&call) && !self.live.contains(&call)
    }

    pub(crate) fn live(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn deadline(&self, call: CallId) -> Option<Steady> {
        self.rows.get(&call)?.call.deadline
    }

    /// The limit key of where redirects have led a call, if they have.
    pub(crate) fn hop_key(&self, call: CallId) -> Option<&str> {
        let call = &self.rows.get(&call)?.call;
        call.hop.as_ref().map(|_| call.limit_key.as_str())
    }

    /// The method of a call's next request.
    pub(crate) fn method_of(&self, call: CallId) -> Option<&'static str> {
        let call = &self.rows.get(&call)?.call;
        let method = call.hop.as_ref().map_or(&call.method, |hop| &hop.method);
        METHODS.into_iter().find(|known| known == method)
    }

    pub(crate) fn attempt(&self, attempt: AttemptId) -> Option<&AttemptRecord> {
        self.rows.get(&attempt.call)?.attempts.iter().find(|stored| stored.number == attempt.number)
    }

    /// The stored attempt, if it has not ended.
    pub(crate) fn running(&self, attempt: AttemptId) -> Option<&AttemptRecord> {
        self.attempt(attempt).filter(|stored| stored.outcome == AttemptOutcome::Running)
    }

    /// Every call with its attempts, oldest first.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&CallRecord, &[AttemptRecord])> {
        self.rows.values().map(|row| (&row.call, row.attempts.as_slice()))
    }

    pub(crate) fn live_rows(&self) -> impl Iterator<Item = (&CallRecord, &[AttemptRecord])> {
        self.live.iter().filter_map(|call| self.rows.get(call)).map(|row| (&row.call, row.attempts.as_slice()))
    }

    /// It has ended, and its files are not in place yet.
    pub(super) fn is_unfiled(&self, call: CallId) -> bool {
        self.unfiled.contains(&call)
    }

    pub(super) fn is_pruned(&self, call: CallId) -> bool {
        self.pruned.contains(&call)
    }

    pub(crate) fn call(&self, call: CallId) -> Option<&CallRecord> {
        self.rows.get(&call).map(|row| &row.call)
    }

    /// This many planned calls were accepted, every call has ended and is filed.
    pub(crate) fn is_finished(&self, planned: usize) -> bool {
        self.planned == planned && self.live.is_empty() && self.unfiled.is_empty()
    }

    /// What a start takes over is what was there.
    pub(crate) fn check_recovery(&self, recovery: &Recovery) -> Check {
        let engaged: BTreeSet<CallId> = recovery.engaged.iter().map(|call| call.id).collect();
        let is_engaged = |call: &&CallId| self.rows[*call].call.progress.ready_at.is_none();
        let expected: BTreeSet<CallId> = self.live.iter().filter(is_engaged).copied().collect();
        ensure(engaged == expected, || "a start forgets calls that run or are held back".to_owned())?;
        let waiting: u64 = recovery.lanes.iter().map(|lane| lane.waiting).sum();
        ensure(waiting as usize + engaged.len() == self.live.len(), || "a start forgets calls that wait".to_owned())?;
        let unfiled: BTreeSet<CallId> = recovery.unfiled.iter().map(|call| call.id).collect();
        ensure(unfiled == self.unfiled, || "a start forgets calls that are not filed".to_owned())?;
        let totals = &recovery.totals;
        for &state in State::ALL {
            ensure(totals.of(state) == self.count(state), || format!("the store miscounts {state} calls"))?;
        }
        let pruned = self.pruned.len() as u64;
        ensure(totals.pruned == pruned, || format!("the store counts {} pruned calls, not {pruned}", totals.pruned))?;
        let sum = totals.calls.iter().sum::<u64>() + totals.pruned;
        ensure(totals.accepted == sum, || format!("accepted is {}, pruned and all calls {sum}", totals.accepted))
    }

    /// After the run: the store holds exactly what was seen last, and all that was acknowledged.
    pub(super) fn check_final(&self, store: &MemoryStore, facts: &Facts) -> Check {
        let mut reader = read(store)?;
        let mut gone = self.pruned.iter();
        let is_known = gone.find(|&&call| reader.call(call).is_ok_and(|call| call.is_some()));
        ensure(is_known.is_none(), || format!("{is_known:?} was pruned and is stored"))?;
        for (call, row) in self.rows.iter().filter(|(call, _)| !self.is_pruned(**call)) {
            let stored = found(&mut *reader, *call)?;
            ensure(stored.call == row.call && stored.attempts == row.attempts, || format!("{call} changed by itself"))?;
        }
        for call in &facts.acknowledged {
            ensure(self.has_ended(*call), || format!("{call} was acknowledged and has no end"))?;
        }
        Ok(())
    }

    /// The store has forgotten it.
    fn forget(&mut self, call: CallId) {
        if let Some(row) = self.rows.get(&call) {
            self.tally[row.call.progress.state as usize] -= 1;
            self.pruned.insert(call);
        }
    }

    const fn count(&self, state: State) -> u64 {
        self.tally[state as usize]
    }

    fn see(&mut self, facts: &Facts, row: Row) -> Check {
        let id = row.call.id;
        let Some(origin) = facts.origins.get(&id) else {
            return Err(violation(format!("{id} is stored and nobody offered it")));
        };
        if let Origin::Callback { parent, .. } = origin {
            ensure(row.call.callback_of == Some(*parent), || format!("{id} calls back for another than {parent}"))?;
        }
        check_row(&row)?;
        let previous = self.rows.get(&id);
        if let Some(previous) = previous {
            check_change(previous, &row)?;
        } else if matches!(origin, Origin::Planned { .. }) {
            self.planned += 1;
        }
        if let Some(previous) = previous {
            self.tally[previous.call.progress.state as usize] -= 1;
        }
        self.tally[row.call.progress.state as usize] += 1;
        let has_ended = row.call.progress.state.is_end();
        let is_unfiled = has_ended && !row.call.filed;
        if has_ended {
            self.live.remove(&id)
        } else {
            self.live.insert(id)
        };
        if is_unfiled {
            self.unfiled.insert(id)
        } else {
            self.unfiled.remove(&id)
        };
        self.rows.insert(id, row);
        Ok(())
    }
}

impl World {
    /// Looks at all that a commit has changed.
    pub(crate) fn observe(&mut self, writes: &[Write]) -> Check {
        let mut reader = read(&self.store)?;
        let changed: BTreeSet<CallId> = writes.iter().filter_map(Write::call).collect();
        for write in writes {
            if let Write::Prune(prune) = write {
                super::pruned::check(self, prune.call)?;
                self.note(Line::Pruned { call: prune.call });
                self.ledger.forget(prune.call);
            }
        }
        for &call in &changed {
            if self.ledger.is_pruned(call) {
                continue;
            }
            let row = found(&mut *reader, call)?;
            let (state, attempts) = (row.call.progress.state, row.call.attempts);
            self.log.note(self.now, Line::Stored { call, state, attempts });
            self.ledger.see(&self.facts, row)?;
        }
        for write in writes {
            if let Write::Filed(call) = write {
                self.facts.filed.insert(*call, self.now);
            }
            if let Write::Open { limit_key } = write {
                self.facts.opened(self.plan.place_of(limit_key));
            }
        }
        let unreadable = |error| violation(format!("the store's size cannot be read: {error}"));
        self.ledger.stored_bytes = reader.stored_bytes().map_err(unreadable)?;
        Ok(())
    }

    /// Once nothing is on its way to the disk or from it, every wish to cancel a call that runs is there, and whoever had
    /// one was told what came of it.
    pub(crate) fn check_cancels(&self) -> Check {
        let Some(process) = self.process.as_ref().filter(|process| process.is_settled()) else { return Ok(()) };
        let is_over = process.draining.is_some() || process.dispatcher.is_loading() || process.is_dirty;
        if let Some(call) = process.unanswered.first().filter(|_| !is_over) {
            return Err(violation(format!("nobody says what came of cancelling {call}")));
        }
        let runs = |call: &&CallId| self.ledger.call(**call).is_some_and(|row| row.progress.state == State::Running);
        let forgotten = |call: &&CallId| !self.ledger.call(**call).is_some_and(|row| row.cancel_requested);
        match process.cancelled.iter().filter(runs).find(forgotten) {
            Some(call) => Err(violation(format!("{call} is to be cancelled, and nothing of that is stored"))),
            None => Ok(()),
        }
    }

    /// What is told of the store's counts is what the store holds; and when nothing is pending, so is what is in memory.
    pub(crate) fn check_census(&self) -> Check {
        let Some(process) = &self.process else { return Ok(()) };
        let census = process.dispatcher.census();
        let sum = census.sum() + census.pruned;
        ensure(census.accepted == sum, || format!("accepted is {}, pruned and all calls {sum}", census.accepted))?;
        // One that stalls has not heard of the last commit.
        if process.stalled_until.is_none() {
            self.compare_census(process.dispatcher.durable_census())?;
        }
        if process.is_idle() { self.compare_census(census) } else { Ok(()) }
    }

    fn compare_census(&self, census: Census) -> Check {
        let rows = self.ledger.rows.len() as u64;
        ensure(census.accepted == rows, || format!("{} calls are counted, {rows} are stored", census.accepted))?;
        let pruned = self.ledger.pruned.len() as u64;
        ensure(census.pruned == pruned, || format!("{} calls are counted as pruned, not {pruned}", census.pruned))?;
        for &state in State::ALL.iter().filter(|&&state| !is_untried(state)) {
            let (counted, stored) = (census.calls(state), self.ledger.count(state));
            ensure(counted == stored, || format!("{counted} calls are counted as {state}, {stored} are stored"))?;
        }
        Ok(())
    }
}

/// That a scheduled call has become due is not stored.
const fn is_untried(state: State) -> bool {
    matches!(state, State::Scheduled | State::Queued)
}

fn check_row(row: &Row) -> Check {
    let call = &row.call;
    let numbers = row.attempts.iter().map(|attempt| attempt.number);
    ensure(numbers.eq(1..=call.attempts), || format!("the attempts of {} are not numbered from 1 on", call.id))?;
    ensure(call.attempts <= ATTEMPTS_MAX, || format!("{} is tried again and again", call.id))?;
    let out = row.attempts.iter().filter(|attempt| attempt.outcome == AttemptOutcome::Running).count();
    let is_running = call.progress.state == State::Running;
    let is_hedged = row.attempts.iter().any(|attempt| attempt.kind == AttemptKind::Hedge);
    // What lost may be out still when its call has ended, and not longer.
    let is_right = match is_hedged {
        false => (out == 1) == is_running && out <= 1,
        true => (out > 0) == is_running || call.progress.state.is_end(),
    };
    ensure(is_right, || format!("{} has {out} attempts out and is {call:?}", call.id))?;
    for attempt in &row.attempts {
        let is_late = call.deadline.is_some_and(|deadline| attempt.granted_at >= deadline);
        ensure(!is_late, || format!("attempt {} of {} started after its deadline", attempt.number, call.id))?;
        let is_early = call.not_before.is_some_and(|not_before| attempt.granted_at < not_before);
        ensure(!is_early, || format!("attempt {} of {} started before its time", attempt.number, call.id))?;
    }
    let has_ended_on_its_way = call.hop.is_some() && call.progress.state.is_end();
    ensure(!has_ended_on_its_way, || format!("{} has ended, and still goes somewhere", call.id))?;
    let has_finish = call.progress.finished_at.is_some();
    ensure(has_finish == call.progress.state.is_end(), || {
        format!("{} has an end without a time, or a time without", call.id)
    })
}

fn check_change(previous: &Row, row: &Row) -> Check {
    let id = row.call.id;
    let known = previous.attempts.len();
    let ended = previous.attempts.iter().zip(&row.attempts).filter(|(before, _)| before.ended_at.is_some());
    ensure(known <= row.attempts.len() && ended.clone().all(|(before, now)| before == now), || {
        format!("an attempt of {id} changed after its end")
    })?;
    let goes_on = row.attempts.len() > known;
    ensure(!previous.call.cancel_requested || !goes_on, || {
        format!("{id} is tried again though it is to be cancelled")
    })?;
    if !previous.call.progress.state.is_end() {
        return Ok(());
    }
    let as_before = CallRecord { filed: previous.call.filed, ..row.call.clone() };
    ensure(as_before == previous.call, || format!("{id} changed after its end"))
}

fn read(store: &MemoryStore) -> Result<Box<dyn Reader>, Violation> {
    store.reader().map_err(|error| violation(format!("the store cannot be read: {error}")))
}

fn found(reader: &mut dyn Reader, id: CallId) -> Result<Row, Violation> {
    let unreadable = |error| violation(format!("{id} cannot be read: {error}"));
    let call = reader.call(id).map_err(unreadable)?;
    let attempts = reader.attempts(id).map_err(unreadable)?;
    let call = call.ok_or_else(|| violation(format!("{id} was written and is not stored")))?;
    Ok(Row { call, attempts })
}
