//! What a memory store holds, and how a batch changes it.
//!
//! Writes change the rows in place, one after the other; the rows as they were before are kept aside until the batch is
//! through, to go back to when one is refused. Rows are shared between snapshots and copied when one side changes them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroI64;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::steady::{KeptClock, Steady};

use super::prune::{self, Kept};
use crate::port::{
    AttemptEnd, CommitError, Grant, GrantsAsk, Insert, LaneRange, ListAsk, Listed, Mark, Settle, Start, Write,
};
use crate::record::{
    AttemptRecord, CallRecord, FileIdentity, GrantRecord, LaneName, LaneRecord, Recovery, ResponseRecord, Totals,
    UpstreamRecord,
};
use crate::transition::{KEY_TAKEN, Refusal, SECOND_INSERT, Standing, UNKNOWN_CALL, UNMATCHED_END, first_call};

/// Everything that was committed.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    epoch: u64,
    accepted: u64,
    pruned: u64,
    rows: BTreeMap<CallId, Arc<Row>>,
    keys: BTreeMap<(String, String), CallId>,
    /// By limit key.
    closings: BTreeMap<String, Steady>,
    /// By limit key.
    upstreams: BTreeMap<String, UpstreamRecord>,
    /// Of calls that were pruned, and of those that are not stored.
    kept: Kept,
    /// Of calls that are not stored.
    open_grants: BTreeMap<AttemptId, Grant>,
    clock: Option<KeptClock>,
    latest: Option<Steady>,
}

/// A call and all that belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its place in the order of acceptance.
    seq: u64,
    pub(super) call: CallRecord,
    pub(super) request: Bytes,
    pub(super) trace: Option<String>,
    pub(super) attempts: Vec<AttemptRecord>,
    /// What each attempt is counted by.
    pub(super) limit_keys: Vec<String>,
    pub(super) response: Option<ResponseRecord>,
    pub(super) ended_at: Option<Steady>,
}

/// The rows a batch has changed, as they were before; nothing for those it inserted.
type Before = Vec<(CallId, Option<Arc<Row>>)>;

impl Content {
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn row(&self, id: CallId) -> Option<&Row> {
        self.rows.get(&id).map(Arc::as_ref)
    }

    pub(super) fn keyed(&self, scope: &str, key: &str) -> Option<&Row> {
        self.keys.get(&(scope.to_owned(), key.to_owned())).and_then(|&id| self.row(id))
    }

    pub(super) fn closed_until(&self, limit_key: &str) -> Option<Steady> {
        self.closings.get(limit_key).copied()
    }

    pub(super) fn keep_clock(&mut self, clock: KeptClock) {
        self.clock = Some(clock);
    }

    pub(super) fn take_over(&mut self) -> (u64, Recovery) {
        self.epoch += 1;
        let mut rows: Vec<&Row> = self.rows.values().map(Arc::as_ref).collect();
        rows.sort_by_key(|row| row.seq);
        let calls = |wanted: fn(&CallRecord) -> bool| {
            rows.iter().map(|row| &row.call).filter(|call| wanted(call)).cloned().collect()
        };
        let recovery = Recovery {
            engaged: calls(|call| !call.progress.state.is_end() && call.progress.ready_at.is_none()),
            lanes: self.lanes(),
            open_attempts: rows.iter().flat_map(|row| row.open_attempts()).collect(),
            unfiled: calls(|call| call.progress.state.is_end() && !call.filed),
            open_grants: u64::try_from(self.open_grants.len()).unwrap_or(u64::MAX),
            upstreams: self.upstreams.values().cloned().collect(),
            damaged: Vec::new(),
            totals: self.totals(),
            clock: self.clock.clone(),
            latest: self.latest,
        };
        (self.epoch, recovery)
    }

    pub(super) fn grants(&self, limit_key: &str, ask: GrantsAsk) -> Vec<GrantRecord> {
        let counted = |row: &'_ Arc<Row>| row.limit_keys.iter().any(|key| key == limit_key);
        let rows = self.rows.values().filter(|row| counted(row));
        let mut attempts: Vec<_> = rows.flat_map(|row| row.counted_by(limit_key)).collect();
        attempts.sort_by_key(|(row, attempt)| {
            Reverse((attempt.ended_at.is_none(), latest_at(attempt), row.seq, attempt.number))
        });
        let (open, ended): (Vec<_>, Vec<_>) = attempts.into_iter().partition(|(_, attempt)| attempt.ended_at.is_none());
        let open = open.into_iter().map(|(row, attempt)| {
            let id = AttemptId { call: row.call.id, number: attempt.number };
            GrantRecord { open: Some(id), latest_at: None, cost: row.call.cost }
        });
        let open = open.chain(self.open_grants(limit_key));
        let proved = ended.into_iter().filter(|(_, attempt)| attempt.proved_at.is_some());
        let mut proved: Vec<_> = proved.map(|(row, attempt)| (latest_at(attempt), row.call.cost)).collect();
        proved.extend(self.kept_grants(limit_key));
        proved.sort_by_key(|&(at, _)| Reverse(at));
        let proved = proved.into_iter();
        let grant = |(at, cost)| GrantRecord { open: None, latest_at: Some(at), cost };
        match ask {
            GrantsAsk::Latest { since, count } => {
                let proved = proved.filter(|&(at, _)| at >= since).map(grant);
                open.chain(proved.take(amount(count))).collect()
            }
            GrantsAsk::Sums { since, step_us } => {
                let mut sums: BTreeMap<Reverse<Steady>, u32> = BTreeMap::new();
                for (at, cost) in proved.filter(|&(at, _)| at >= since) {
                    let sum = sums.entry(Reverse(end_of_step(at, step_us))).or_default();
                    *sum = sum.saturating_add(cost);
                }
                open.chain(sums.into_iter().map(|(Reverse(at), cost)| grant((at, cost)))).collect()
            }
        }
    }

    pub(super) fn waiting(&self, range: &LaneRange) -> Vec<CallRecord> {
        let is_in = |row: &&Arc<Row>| row.lane() == range.lane;
        let place = |row: &Arc<Row>| row.place().filter(|&place| place >= (range.ready_at, range.call));
        let from = |row: &Arc<Row>| Some((place(row)?, row.call.clone()));
        let mut calls: Vec<_> = self.rows.values().filter(is_in).filter_map(from).collect();
        calls.sort_by_key(|&(place, _)| place);
        calls.into_iter().map(|(_, call)| call).take(amount(range.count)).collect()
    }

    pub(super) fn list(&self, ask: &ListAsk) -> Listed {
        let mut rows: Vec<&Row> = self.rows.values().map(Arc::as_ref).collect();
        rows.retain(|row| ask.before.is_none_or(|before| row.seq < before));
        rows.sort_unstable_by_key(|row| Reverse(row.seq));
        let mut listed = Listed::default();
        for (looked_at, row) in rows.iter().enumerate() {
            if listed.calls.len() >= amount(ask.count) || looked_at >= amount(ask.examined_max) {
                listed.next = Some(row.seq + 1);
                break;
            }
            if ask.filter.admits(&row.call) {
                listed.calls.push(row.call.clone());
            }
        }
        listed
    }

    pub(super) fn expiring(&self, count: u32) -> Vec<CallRecord> {
        let expires = |row: &Arc<Row>| Some((row.call.deadline.filter(|_| row.place().is_some())?, row.call.id));
        let mut calls: Vec<_> = self.rows.values().filter_map(expires).collect();
        calls.sort_unstable();
        calls.into_iter().map(|(_, id)| self.rows[&id].call.clone()).take(amount(count)).collect()
    }

    pub(super) fn unfiled(&self, name: &[u8]) -> Vec<(CallId, FileIdentity)> {
        let mut rows: Vec<&Row> = self.rows.values().map(Arc::as_ref).filter(|row| !row.call.filed).collect();
        rows.sort_by_key(|row| row.seq);
        let files = rows.into_iter().filter_map(|row| Some((row.call.id, row.call.file.clone()?)));
        files.filter(|(_, file)| file.name == name).collect()
    }

    fn lanes(&self) -> Vec<LaneRecord> {
        let mut lanes: BTreeMap<LaneName, u64> = BTreeMap::new();
        for row in self.rows.values().filter(|row| row.place().is_some()) {
            *lanes.entry(row.lane()).or_default() += 1;
        }
        lanes.into_iter().map(|(lane, waiting)| LaneRecord { lane, waiting }).collect()
    }

    /// All writes in order, or none.
    pub(super) fn apply(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        let (accepted, pruned) = (self.accepted, self.pruned);
        let (closings, kept, grants) = (self.closings.clone(), self.kept.clone(), self.open_grants.clone());
        let upstreams = self.upstreams.clone();
        let mut before = Before::new();
        for write in writes {
            let applied = match write {
                Write::Insert(insert) => self.insert(insert, &mut before),
                Write::Start(start) => self.change(start.call, &mut before, |row| row.start(start)),
                Write::Settle(settle) => self.change(settle.call, &mut before, |row| row.settle(settle)),
                Write::Close { call, until } => self.close(*call, *until),
                Write::Release { call, ready_at } => self.change(*call, &mut before, |row| row.release(*ready_at)),
                Write::Filed(call) => self.change(*call, &mut before, Row::file),
                Write::Mark { call, mark } => self.change(*call, &mut before, |row| row.mark(*mark)),
                Write::Prune(prune) => self.prune(prune).map(|row| before.push((prune.call, Some(row)))),
                Write::FreeKey(call) => self.free_key(*call, &mut before),
                Write::Upstream(record) => self.set_upstream(record),
                Write::Open { limit_key } => self.open(limit_key),
                Write::Grant(grant) => self.grant(grant),
                Write::GrantEnd(end) => self.end_grant(end),
                Write::GrantsLeft { proved_at } => self.leave_grants(*proved_at),
            };
            if let Err(refusal) = applied {
                self.undo(before);
                (self.accepted, self.pruned, self.closings, self.kept) = (accepted, pruned, closings, kept);
                (self.upstreams, self.open_grants) = (upstreams, grants);
                return Err(refusal.of(first_call(std::slice::from_ref(write))));
            }
        }
        self.latest = self.latest.max(writes.iter().filter_map(Write::decided_at).max());
        Ok(())
    }

    fn insert(&mut self, insert: &Insert, before: &mut Before) -> Result<(), Refusal> {
        let call = insert.call.clone();
        if self.rows.contains_key(&call.id) {
            return Err(SECOND_INSERT);
        }
        if let Some(key) = key_of(&call) {
            if self.keys.contains_key(&key) {
                return Err(KEY_TAKEN);
            }
            self.keys.insert(key, call.id);
        }
        before.push((call.id, None));
        let (request, trace) = (insert.request.clone(), insert.trace.clone());
        let ended_at = call.progress.state.is_end().then_some(insert.at);
        let (seq, attempts, limit_keys) = (self.accepted, Vec::new(), Vec::new());
        let row = Row { seq, call, request, trace, attempts, limit_keys, response: None, ended_at };
        self.insert_row(Arc::new(row));
        self.accepted += 1;
        Ok(())
    }

    fn close(&mut self, call: CallId, until: Steady) -> Result<(), Refusal> {
        let row = self.rows.get(&call).ok_or(UNKNOWN_CALL)?;
        let closed = self.closings.entry(row.call.limit_key.clone()).or_insert(until);
        *closed = until.max(*closed);
        Ok(())
    }

    fn set_upstream(&mut self, record: &UpstreamRecord) -> Result<(), Refusal> {
        if record.is_blank() {
            self.upstreams.remove(&record.limit_key);
        } else {
            self.upstreams.insert(record.limit_key.clone(), record.clone());
        }
        Ok(())
    }

    fn open(&mut self, limit_key: &str) -> Result<(), Refusal> {
        self.closings.remove(limit_key);
        Ok(())
    }

    fn change(
        &mut self,
        call: CallId,
        before: &mut Before,
        change: impl FnOnce(&mut Row) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let row = self.rows.get_mut(&call).ok_or(UNKNOWN_CALL)?;
        before.push((call, Some(Arc::clone(row))));
        change(Arc::make_mut(row))
    }

    fn undo(&mut self, before: Before) {
        for (call, row) in before.into_iter().rev() {
            match row {
                Some(row) => prune::put_back(self, call, row),
                None => {
                    let inserted = self.take_row(call);
                    assert!(inserted.is_some(), "a batch inserted a row that is not there");
                }
            }
        }
    }

    fn free_key(&mut self, call: CallId, before: &mut Before) -> Result<(), Refusal> {
        let key = self.row(call).and_then(|row| key_of(&row.call));
        self.change(call, before, Row::free_key)?;
        key.map(|key| self.keys.remove(&key));
        Ok(())
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values().map(Arc::as_ref)
    }

    pub(super) const fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) const fn kept_mut(&mut self) -> &mut Kept {
        &mut self.kept
    }

    pub(super) const fn granted_mut(&mut self) -> &mut BTreeMap<AttemptId, Grant> {
        &mut self.open_grants
    }

    /// Those of calls that are not stored, the latest leading.
    fn open_grants(&self, limit_key: &str) -> impl Iterator<Item = GrantRecord> {
        let mut open: Vec<&Grant> = self.open_grants.values().filter(|grant| grant.limit_key == limit_key).collect();
        open.sort_by_key(|grant| Reverse((grant.granted_at, grant.attempt)));
        let record = |grant: &Grant| GrantRecord { open: Some(grant.attempt), latest_at: None, cost: grant.cost };
        open.into_iter().map(record).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn insert_row(&mut self, row: Arc<Row>) {
        self.rows.insert(row.call.id, row);
    }

    pub(super) fn claim_key(&mut self, key: (String, String), call: CallId) {
        self.keys.insert(key, call);
    }

    /// A call that is pruned.
    pub(super) fn remove(&mut self, call: CallId) -> Option<Arc<Row>> {
        let row = self.take_row(call)?;
        self.pruned += 1;
        Some(row)
    }

    fn take_row(&mut self, call: CallId) -> Option<Arc<Row>> {
        let row = self.rows.remove(&call)?;
        key_of(&row.call).map(|key| self.keys.remove(&key));
        Some(row)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals { accepted: self.accepted, pruned: self.pruned, ..Totals::default() };
        for row in self.rows.values() {
            *totals.of_mut(row.call.progress.state) += 1;
        }
        totals
    }
}

impl Row {
    pub(super) const fn standing(&self) -> Standing {
        let progress = &self.call.progress;
        let waits = progress.ready_at.is_some();
        Standing { state: progress.state, filed: self.call.filed, attempts: self.call.attempts, waits }
    }

    fn start(&mut self, start: &Start) -> Result<(), Refusal> {
        self.standing().start(start)?;
        self.call.attempts = start.number;
        self.call.started_at.get_or_insert(start.started_at);
        self.call.progress.state = State::Running;
        self.call.progress.ready_at = None;
        self.limit_keys.push(self.call.limit_key.clone());
        self.attempts.push(AttemptRecord {
            number: start.number,
            kind: start.kind,
            outcome: AttemptOutcome::Running,
            status: None,
            started_at: start.started_at,
            granted_at: start.granted_at,
            proved_at: None,
            ended_at: None,
            error: None,
        });
        Ok(())
    }

    fn settle(&mut self, settle: &Settle) -> Result<(), Refusal> {
        self.standing().settle(settle)?;
        if let Some(end) = &settle.attempt {
            self.end_attempt(end)?;
        }
        if let Some(progress) = &settle.progress {
            self.call.progress = progress.clone();
            self.note_end(progress.state, settle.at);
            self.response.clone_from(&settle.response);
        }
        if let Some(heading) = &settle.heading {
            self.call.limit_key.clone_from(&heading.limit_key);
            self.call.hop.clone_from(&heading.hop);
        }
        Ok(())
    }

    fn end_attempt(&mut self, end: &AttemptEnd) -> Result<(), Refusal> {
        let running = |attempt: &&mut AttemptRecord| attempt.number == end.number && attempt.ended_at.is_none();
        let attempt = self.attempts.iter_mut().find(running).ok_or(UNMATCHED_END)?;
        let AttemptRecord { number, kind, started_at, granted_at, .. } = *attempt;
        let AttemptEnd { outcome, status, proved_at, ended_at, ref error, .. } = *end;
        let (ended_at, error) = (Some(ended_at), error.clone());
        *attempt = AttemptRecord { number, kind, outcome, status, started_at, granted_at, proved_at, ended_at, error };
        Ok(())
    }

    fn release(&mut self, ready_at: Steady) -> Result<(), Refusal> {
        self.standing().release()?;
        self.call.progress.ready_at = Some(ready_at);
        Ok(())
    }

    fn mark(&mut self, mark: Mark) -> Result<(), Refusal> {
        self.standing().mark()?;
        match mark {
            Mark::CancelRequested => self.call.cancel_requested = true,
            Mark::Survived => self.call.progress.orphaned = 0,
        }
        Ok(())
    }

    fn lane(&self) -> LaneName {
        let CallRecord { limit_key, callback_of, priority, tenant_id, .. } = &self.call;
        let of_callbacks = callback_of.is_some();
        LaneName { limit_key: limit_key.clone(), of_callbacks, priority: *priority, tenant: *tenant_id }
    }

    /// Where it stands in its lane, if it does.
    fn place(&self) -> Option<(Steady, CallId)> {
        self.call.progress.ready_at.map(|ready_at| (ready_at, self.call.id))
    }

    fn file(&mut self) -> Result<(), Refusal> {
        self.standing().file()?;
        self.call.filed = true;
        Ok(())
    }

    /// Its attempts that are counted by this limit key.
    fn counted_by<'r>(&'r self, limit_key: &str) -> impl Iterator<Item = (&'r Self, &'r AttemptRecord)> {
        let attempts = self.attempts.iter().zip(&self.limit_keys);
        attempts.filter(move |(_, key)| *key == limit_key).map(move |(attempt, _)| (self, attempt))
    }

    pub(super) fn open_attempts(&self) -> impl Iterator<Item = (CallId, AttemptRecord)> {
        let open = self.attempts.iter().filter(|attempt| attempt.ended_at.is_none());
        open.map(|attempt| (self.call.id, attempt.clone()))
    }
}

pub(super) fn amount(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

pub(super) fn key_of(call: &CallRecord) -> Option<(String, String)> {
    call.idempotency.as_ref().map(|record| (record.scope.clone(), record.key.clone()))
}

/// The last microsecond of the time in which a moment lies.
pub(super) const fn end_of_step(at: Steady, step_us: NonZeroI64) -> Steady {
    let step = step_us.get();
    Steady::from_micros((at.as_micros() / step * step).saturating_add(step - 1))
}

pub(super) fn latest_at(attempt: &AttemptRecord) -> Steady {
    attempt.proved_at.map_or(attempt.granted_at, |proved_at| proved_at.max(attempt.granted_at))
}
