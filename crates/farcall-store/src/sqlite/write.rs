//! One batch inside its transaction: every write checked against what is stored, then made.
//!
//! The start of a call that the same batch inserts is made part of its insert, so that the row is written once. Where a
//! call stands is mostly known from its last write (`known`), and each statement says in its condition what it rests on. The
//! last step, [`Batch::seal`], counts what the batch did and checks in the same statement that the epoch still is ours.

use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_core::steady::Steady;
use rusqlite::{Connection, ErrorCode, params};

use super::bodies::{Bodies, INLINE_BYTES_MAX, Part};
use super::known::{Known, Lane, Open, Stored};
use super::row::hop_json;
use super::statements::{
    AWAIT_FILING, CLOSE, ENDED_HEAD, FILE, FREE_KEY, FREE_KEY_OF_END, HAS_KEY, LIVE, LIVE_CANCEL, LIVE_HEAD,
    LIVE_PROGRESS, LIVE_RELEASE, LIVE_START, LIVE_SURVIVED, MAY_BE_FILED, Statements, error_columns, micros, steady,
};
use super::{grants, prune, sum, upstreams};
use crate::port::{AttemptEnd, CommitError, Grant, GrantEnd, Heading, Insert, Mark, Prune, Settle, Start, Write};
use crate::record::{CallRecord, Progress, UpstreamRecord};
use crate::transition::{
    CHANGED_MEANWHILE, KEY_TAKEN, SECOND_INSERT, SUPERSEDED, Settlement, Standing, UNKNOWN_CALL, UNMATCHED_END,
};

/// A batch being applied. Dropped without a commit of its transaction, it has done nothing but leave body files.
pub(super) struct Batch<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    bodies: &'c Bodies,
    known: &'c mut Known,
    files: Files,
    /// What the batch adds, by state; moves out of a state take away.
    accepted: i64,
    moves: [i64; State::ALL.len()],
    pruned: usize,
    grant_ends: usize,
    /// What pruned calls count in limits is kept from then on.
    grants_since: Option<Steady>,
    latest: Option<Steady>,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    /// They were written, and nobody needs them when it is rolled back.
    pub(super) written: Vec<(CallId, Part)>,
    /// Nobody needs them once it is durable.
    pub(super) pruned: Vec<(CallId, Part)>,
}

/// A write, or two of one call that need one row only.
enum Step<'w> {
    Insert { insert: &'w Insert, first: Option<&'w Start> },
    Start(&'w Start),
    Settle(&'w Settle),
    Close { call: CallId, until: Steady },
    Release { call: CallId, ready_at: Steady },
    Filed(CallId),
    Mark { call: CallId, mark: Mark },
    Prune(&'w Prune),
    FreeKey(CallId),
    Upstream(&'w UpstreamRecord),
    Open { limit_key: &'w str },
    Grant(&'w Grant),
    GrantEnd(&'w GrantEnd),
    GrantsLeft { proved_at: Steady },
}

impl<'c> Batch<'c> {
    /// A batch of this connection's open transaction.
    pub(super) fn new(connection: &'c Connection, bodies: &'c Bodies, known: &'c mut Known) -> rusqlite::Result<Self> {
        let statements = Statements::prepare(connection)?;
        Ok(Self {
            connection,
            statements,
            bodies,
            known,
            files: Files::default(),
            accepted: 0,
            moves: [0; State::ALL.len()],
            pruned: 0,
            grant_ends: 0,
            grants_since: None,
            latest: None,
        })
    }

    /// Makes all writes, in order. Stops at the first that is refused.
    pub(super) fn apply(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.latest = writes.iter().filter_map(Write::decided_at).max();
        for step in plan(writes) {
            match step {
                Step::Insert { insert, first } => self.insert(insert, first)?,
                Step::Start(start) => self.start(start)?,
                Step::Settle(settle) => self.settle(settle)?,
                Step::Close { call, until } => self.close(call, until)?,
                Step::Release { call, ready_at } => self.release(call, ready_at)?,
                Step::Filed(call) => self.file(call)?,
                Step::Mark { call, mark } => self.mark(call, mark)?,
                Step::Prune(prune) => self.prune(prune)?,
                Step::FreeKey(call) => self.free_key(call)?,
                Step::Upstream(record) => upstreams::set(self.connection, record)?,
                Step::Open { limit_key } => upstreams::open(self.connection, limit_key)?,
                Step::Grant(grant) => grants::open(self.connection, grant)?,
                Step::GrantEnd(end) => self.end_grant(end)?,
                Step::GrantsLeft { proved_at } => grants::leave(self.connection, proved_at)?,
            }
        }
        Ok(())
    }

    /// Makes the batch ready to be committed, as a batch of this epoch; `call` is named when the epoch has passed.
    pub(super) fn seal(&mut self, epoch: i64, call: CallId) -> Result<(), CommitError> {
        if !self.files.written.is_empty() {
            self.bodies.sync()?;
        }
        if let Some(since) = self.grants_since {
            grants::forget(self.connection, since, self.pruned + self.grant_ends)?;
        }
        grants::note_ends(self.connection, &mut self.known.grant_ends, self.grant_ends)?;
        grants::sum_up(self.connection, &mut self.known.account)?;
        let counts = [epoch, self.accepted].into_iter().chain(self.moves).map(Some);
        let pruned = i64::try_from(self.pruned).unwrap_or(i64::MAX);
        let values = counts.chain([steady(self.latest), Some(pruned)]);
        let sealed = self.statements.seal.execute(rusqlite::params_from_iter(values))?;
        if sealed == 1 { Ok(()) } else { Err(SUPERSEDED.of(call)) }
    }

    pub(super) fn into_files(self) -> Files {
        self.files
    }

    fn insert(&mut self, insert: &Insert, first: Option<&Start>) -> Result<(), CommitError> {
        let call = &insert.call;
        match self.statements.insert_call(insert) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                let known = self.statements.stored(call.id, self.known)?.is_some();
                return Err(if known { SECOND_INSERT } else { KEY_TAKEN }.of(call.id));
            }
            done => done?,
        };
        let seq = self.connection.last_insert_rowid();
        let body = self.place(call.id, Part::Request, &insert.request)?;
        let sum = sum::of_request(call.id, &insert.request);
        self.statements.insert_request.execute(params![seq, body, sum])?;
        if !call.filed {
            let name = call.file.as_ref().map(|file| file.name.as_slice());
            self.statements.once(AWAIT_FILING, params![seq, name])?;
        }
        let mut stored = inserted(call, seq, self.known);
        self.accepted += 1;
        self.moves[first.map_or(call.progress.state, |_| State::Running) as usize] += 1;
        match first {
            Some(start) => self.open(&mut stored, start)?,
            None if call.progress.state.is_end() => self.insert_ended(insert, &mut stored)?,
            None => {
                if !is_plain(call) || stored.ready_at.is_none() {
                    self.insert_live(call, &mut stored)?;
                }
                if let Some(ready_at) = stored.ready_at {
                    self.statements.enter_lane(call.id, &stored, ready_at)?;
                }
            }
        }
        self.known.put(call.id, stored);
        Ok(())
    }

    /// A call that is more than just accepted.
    fn insert_live(&mut self, call: &CallRecord, stored: &mut Stored) -> Result<(), CommitError> {
        self.make_live(stored)?;
        set_progress(&self.statements, stored.seq, &call.progress)?;
        if call.cancel_requested {
            self.statements.once(LIVE_CANCEL, [stored.seq])?;
        }
        let Some(hop) = &call.hop else { return Ok(()) };
        Ok(self.statements.once(LIVE_HEAD, params![stored.seq, call.limit_key, hop_json(hop)]).map(drop)?)
    }

    fn insert_ended(&mut self, insert: &Insert, stored: &mut Stored) -> Result<(), CommitError> {
        self.insert_live(&insert.call, stored)?;
        self.statements.end(stored, &insert.call.progress, insert.at)?;
        if !stored.standing.filed {
            self.statements.once(MAY_BE_FILED, [stored.seq])?;
        }
        stored.is_live = false;
        Ok(())
    }

    fn start(&mut self, start: &Start) -> Result<(), CommitError> {
        let mut stored = self.stored(start.call)?;
        stored.standing.start(start).map_err(|refusal| refusal.of(start.call))?;
        self.count(stored.standing.state, State::Running);
        self.leave_lane(start.call, &mut stored)?;
        // The first attempt alone says as much as there is to be said.
        if stored.is_live || stored.standing.attempts > 0 || stored.started_at.is_some() {
            self.make_live(&mut stored)?;
            let running = State::Running.as_str();
            let values = params![stored.seq, start.number, start.started_at.as_micros(), running];
            changed_one(self.statements.once(LIVE_START, values)?, start.call)?;
        }
        self.open(&mut stored, start)?;
        self.known.put(start.call, stored);
        Ok(())
    }

    /// Its attempt is out from then on.
    fn open(&mut self, stored: &mut Stored, start: &Start) -> Result<(), CommitError> {
        self.statements.open_attempt(stored, start)?;
        stored.standing = stored.standing.started(start);
        stored.ready_at = None;
        stored.started_at.get_or_insert(start.started_at);
        let limit_key = Arc::clone(&stored.limit_key);
        let Start { number, kind, started_at, granted_at, .. } = *start;
        stored.open = Some(Open { number, kind, started_at, granted_at, limit_key });
        Ok(())
    }

    fn settle(&mut self, settle: &Settle) -> Result<(), CommitError> {
        let mut stored = self.stored(settle.call)?;
        let settlement = stored.standing.settle(settle).map_err(|refusal| refusal.of(settle.call))?;
        if !stored.standing.state.is_end() && settlement == Settlement::Stays {
            self.make_live(&mut stored)?;
        }
        if let Some(end) = &settle.attempt {
            self.end_attempt(settle.call, &mut stored, end)?;
        }
        if let Some(progress) = &settle.progress {
            self.count(stored.standing.state, progress.state);
            self.leave_lane(settle.call, &mut stored)?;
            if settlement == Settlement::Ends {
                self.end(&mut stored, settle, progress)?;
            } else {
                self.make_live(&mut stored)?;
                changed_one(set_progress(&self.statements, stored.seq, progress)?, settle.call)?;
            }
            stored.standing.state = progress.state;
        }
        if let Some(heading) = &settle.heading {
            self.head(settle.call, &mut stored, heading)?;
        }
        if let Some(ready_at) = settle.progress.as_ref().and_then(|progress| progress.ready_at)
            && settlement == Settlement::GoesOn
        {
            self.enter_lane(settle.call, &mut stored, ready_at)?;
        }
        if settlement != Settlement::Ends || !stored.standing.filed {
            self.known.put(settle.call, stored);
        }
        Ok(())
    }

    fn end_attempt(&mut self, call: CallId, stored: &mut Stored, end: &AttemptEnd) -> Result<(), CommitError> {
        let open = match stored.open.take() {
            Some(open) if open.number == end.number => Some(open),
            other => {
                stored.open = other;
                self.statements.opened(stored.seq, end.number, self.known)?
            }
        };
        let open = open.ok_or_else(|| UNMATCHED_END.of(call))?;
        let n = grants::next(self.connection, &mut self.known.account)?;
        if self.statements.end_attempt(stored, &open, end, n)? { Ok(()) } else { Err(UNMATCHED_END.of(call)) }
    }

    fn head(&mut self, call: CallId, stored: &mut Stored, heading: &Heading) -> Result<(), CommitError> {
        let hop = heading.hop.as_ref().map(hop_json);
        let sql = if stored.standing.state.is_end() { ENDED_HEAD } else { LIVE_HEAD };
        changed_one(self.statements.once(sql, params![stored.seq, heading.limit_key, hop])?, call)?;
        // It is counted by something else from now on.
        stored.limit_key = self.known.shared(&heading.limit_key);
        Ok(())
    }

    fn end(&mut self, stored: &mut Stored, settle: &Settle, progress: &Progress) -> Result<(), CommitError> {
        match self.statements.end(stored, progress, settle.at) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                return Err(CHANGED_MEANWHILE.of(settle.call));
            }
            done => done?,
        }
        stored.is_live = false;
        if !stored.standing.filed {
            changed_one(self.statements.once(MAY_BE_FILED, [stored.seq])?, settle.call)?;
        }
        let Some(response) = &settle.response else { return Ok(()) };
        let body = self.place(settle.call, Part::Response, &response.body)?;
        Ok(self.statements.insert_response((settle.call, stored.seq), response, body)?)
    }

    /// Gives a call that stood as its first rows say a row of its own for where it stands.
    fn make_live(&mut self, stored: &mut Stored) -> Result<(), CommitError> {
        if stored.is_live {
            return Ok(());
        }
        let Stored { seq, standing, ready_at, started_at, .. } = &*stored;
        let values = params![seq, standing.state.as_str(), steady(*ready_at), standing.attempts, micros(*started_at)];
        self.statements.once(LIVE, values)?;
        stored.is_live = true;
        Ok(())
    }

    fn enter_lane(&mut self, call: CallId, stored: &mut Stored, ready_at: Steady) -> Result<(), CommitError> {
        self.statements.enter_lane(call, stored, ready_at)?;
        stored.ready_at = Some(ready_at);
        stored.standing.waits = true;
        Ok(())
    }

    fn leave_lane(&mut self, call: CallId, stored: &mut Stored) -> Result<(), CommitError> {
        if !self.statements.leave_lane(call, stored)? {
            return Err(CHANGED_MEANWHILE.of(call));
        }
        stored.ready_at = None;
        stored.standing.waits = false;
        Ok(())
    }

    fn close(&mut self, call: CallId, until: Steady) -> Result<(), CommitError> {
        let stored = self.stored(call)?;
        self.statements.once(CLOSE, params![&*stored.limit_key, until.as_micros()])?;
        self.known.put(call, stored);
        Ok(())
    }

    fn release(&mut self, call: CallId, ready_at: Steady) -> Result<(), CommitError> {
        let mut stored = self.stored(call)?;
        stored.standing.release().map_err(|refusal| refusal.of(call))?;
        self.leave_lane(call, &mut stored)?;
        self.make_live(&mut stored)?;
        changed_one(self.statements.once(LIVE_RELEASE, params![stored.seq, ready_at.as_micros()])?, call)?;
        self.enter_lane(call, &mut stored, ready_at)?;
        self.known.put(call, stored);
        Ok(())
    }

    fn count(&mut self, from: State, to: State) {
        self.moves[from as usize] -= 1;
        self.moves[to as usize] += 1;
    }

    fn file(&mut self, call: CallId) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(call)?;
        standing.file().map_err(|refusal| refusal.of(call))?;
        changed_one(self.statements.once(FILE, [seq])?, call)
    }

    fn mark(&mut self, call: CallId, mark: Mark) -> Result<(), CommitError> {
        let mut stored = self.stored(call)?;
        stored.standing.mark().map_err(|refusal| refusal.of(call))?;
        self.make_live(&mut stored)?;
        let sql = match mark {
            Mark::CancelRequested => LIVE_CANCEL,
            Mark::Survived => LIVE_SURVIVED,
        };
        changed_one(self.statements.once(sql, [stored.seq])?, call)?;
        self.known.put(call, stored);
        Ok(())
    }

    fn prune(&mut self, prune: &Prune) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(prune.call)?;
        let held_by = prune::held_by(self.connection, prune.call, seq)?;
        standing.prune(held_by).map_err(|refusal| refusal.of(prune.call))?;
        self.files.pruned.extend(prune::remove(self.connection, seq, prune)?);
        self.moves[standing.state as usize] -= 1;
        self.pruned += 1;
        self.grants_since = self.grants_since.max(Some(prune.grants_since));
        Ok(())
    }

    fn end_grant(&mut self, end: &GrantEnd) -> Result<(), CommitError> {
        self.grant_ends += 1;
        self.grants_since = self.grants_since.max(Some(end.grants_since));
        grants::end(self.connection, end)
    }

    fn free_key(&mut self, call: CallId) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(call)?;
        let has_key = self.connection.prepare_cached(HAS_KEY)?.query_row([seq], |row| row.get(0))?;
        standing.free_key(has_key).map_err(|refusal| refusal.of(call))?;
        self.statements.once(FREE_KEY, [seq])?;
        self.statements.once(FREE_KEY_OF_END, [seq])?;
        Ok(())
    }

    /// Where the call stands. It is not known any more then: whoever does not end with it puts it back.
    fn stored(&mut self, call: CallId) -> Result<Stored, CommitError> {
        if let Some(stored) = self.known.take(call) {
            return Ok(stored);
        }
        self.statements.stored(call, self.known)?.ok_or_else(|| UNKNOWN_CALL.of(call))
    }

    /// What goes into the row: the body, or nothing when it now stands in a file.
    fn place<'b>(&mut self, call: CallId, part: Part, body: &'b Bytes) -> std::io::Result<Option<&'b [u8]>> {
        if body.len() <= INLINE_BYTES_MAX {
            return Ok(Some(body));
        }
        self.files.written.push((call, part));
        self.bodies.write(call, part, body)?;
        Ok(None)
    }
}

/// The steps of a batch: a start goes with the insert of its call when nothing stands between the two.
fn plan(writes: &[Write]) -> Vec<Step<'_>> {
    let mut steps = Vec::with_capacity(writes.len());
    let mut untouched: IdMap<CallId, usize> = IdMap::default();
    for write in writes {
        let inserted = write.call().and_then(|call| untouched.remove(&call));
        match write {
            Write::Insert(insert) => {
                untouched.insert(insert.call.id, steps.len());
                steps.push(Step::Insert { insert, first: None });
            }
            Write::Start(start) => match inserted.and_then(|place| steps.get_mut(place)) {
                Some(Step::Insert { insert, first }) if may_start(&insert.call, start) => *first = Some(start),
                _ => steps.push(Step::Start(start)),
            },
            Write::Settle(settle) => steps.push(Step::Settle(settle)),
            Write::Close { call, until } => steps.push(Step::Close { call: *call, until: *until }),
            Write::Release { call, ready_at } => steps.push(Step::Release { call: *call, ready_at: *ready_at }),
            Write::Filed(call) => steps.push(Step::Filed(*call)),
            Write::Mark { call, mark } => steps.push(Step::Mark { call: *call, mark: *mark }),
            Write::Prune(prune) => steps.push(Step::Prune(prune)),
            Write::FreeKey(call) => steps.push(Step::FreeKey(*call)),
            Write::Upstream(record) => steps.push(Step::Upstream(record)),
            Write::Open { limit_key } => steps.push(Step::Open { limit_key }),
            Write::Grant(grant) => steps.push(Step::Grant(grant)),
            Write::GrantEnd(end) => steps.push(Step::GrantEnd(end)),
            Write::GrantsLeft { proved_at } => steps.push(Step::GrantsLeft { proved_at: *proved_at }),
        }
    }
    steps
}

/// A start makes it an attempt that is out and nothing else.
fn may_start(call: &CallRecord, start: &Start) -> bool {
    is_plain(call) && !call.progress.state.is_end() && start.number == 1
}

/// Nothing has happened to a call that is inserted so.
fn is_plain(call: &CallRecord) -> bool {
    let CallRecord { progress, attempts, started_at, cancel_requested, hop, .. } = call;
    let untouched = *attempts == 0 && started_at.is_none() && !cancel_requested && hop.is_none();
    untouched && *progress == Progress::waiting(progress.state, progress.ready_at)
}

/// A call as it is stored when it is inserted so, as the `seq`-th.
fn inserted(call: &CallRecord, seq: i64, known: &mut Known) -> Stored {
    let CallRecord { progress, filed, attempts, .. } = call;
    let ready_at = progress.ready_at.filter(|_| !progress.state.is_end());
    Stored {
        seq,
        standing: Standing { state: progress.state, filed: *filed, attempts: *attempts, waits: ready_at.is_some() },
        ready_at,
        limit_key: known.shared(&call.limit_key),
        cost: call.cost,
        lane: Lane {
            of_callbacks: call.callback_of.is_some(),
            priority: call.priority,
            tenant: call.tenant_id.0.cast_signed(),
        },
        deadline: call.deadline,
        is_keyed: call.idempotency.is_some(),
        is_live: false,
        started_at: call.started_at,
        open: None,
    }
}

/// Gives the number of rows that were changed.
fn set_progress(statements: &Statements<'_>, seq: i64, progress: &Progress) -> rusqlite::Result<usize> {
    let (error_kind, error_message) = error_columns(progress.error.as_ref());
    let values = params![
        seq,
        progress.state.as_str(),
        steady(progress.ready_at),
        progress.retries,
        progress.requeues,
        progress.throttles,
        micros(progress.finished_at),
        progress.status,
        error_kind,
        error_message,
        progress.deaths,
        progress.orphaned,
    ];
    statements.once(LIVE_PROGRESS, values)
}

/// A row is not as the last write left it: somebody else has written.
fn changed_one(changed: usize, call: CallId) -> Result<(), CommitError> {
    if changed == 1 { Ok(()) } else { Err(CHANGED_MEANWHILE.of(call)) }
}
