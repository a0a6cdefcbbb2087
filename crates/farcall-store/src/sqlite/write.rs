//! One batch inside its transaction: every write checked against what is stored, then made.
//!
//! The start of a call that the same batch inserts is made part of its insert, so that the row is written once. Where a
//! call stands is mostly known from its last write (`known`), and each statement says in its condition what it rests on. The
//! last step, [`Batch::seal`], counts what the batch did and checks in the same statement that the epoch still is ours.

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_core::steady::Steady;
use rusqlite::{Connection, ErrorCode, params};

use super::bodies::{Bodies, INLINE_BYTES_MAX, Part};
use super::known::{Known, Stored};
use super::prune;
use super::row::{blob, hop_json};
use super::statements::{
    CLOSE, FREE_KEY, HAS_KEY, HEAD, MARK_CANCEL, MARK_SURVIVED, RELEASE, Statements, set_progress, steady,
};
use super::{sum, upstreams};
use crate::port::{CommitError, Heading, Insert, Mark, Prune, Settle, Start, Write};
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
    /// What pruned calls count in limits is kept from then on.
    grants_since: Option<Steady>,
    /// When the latest of it was decided.
    latest: Option<Steady>,
}

/// Files of bodies that a batch is about.
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
            prune::forget_grants(self.connection, since, self.pruned)?;
        }
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
        match self.statements.insert_call(insert, first) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                let known = self.statements.stored(call.id, self.known)?.is_some();
                return Err(if known { SECOND_INSERT } else { KEY_TAKEN }.of(call.id));
            }
            done => done?,
        }
        let seq = self.connection.last_insert_rowid();
        let body = self.place(call.id, Part::Request, &insert.request)?;
        let sum = sum::of_request(call.id, &insert.request);
        self.statements.insert_request.execute(params![seq, body, sum])?;
        let limit_key = self.known.shared(&call.limit_key);
        let mut stored = Stored { seq, standing: standing(call), limit_key, cost: call.cost };
        if let Some(start) = first {
            self.statements.insert_attempt(&stored, start)?;
            stored.standing = stored.standing.started(start);
        }
        self.accepted += 1;
        self.moves[stored.standing.state as usize] += 1;
        self.known.put(call.id, stored);
        Ok(())
    }

    fn start(&mut self, start: &Start) -> Result<(), CommitError> {
        let mut stored = self.stored(start.call)?;
        stored.standing.start(start).map_err(|refusal| refusal.of(start.call))?;
        self.count(stored.standing.state, State::Running);
        let started = self.statements.start.execute(params![
            stored.seq,
            start.number,
            start.started_at.as_micros(),
            State::Running.as_str(),
            blob(start.call)
        ])?;
        changed_one(started, start.call)?;
        self.statements.insert_attempt(&stored, start)?;
        stored.standing = stored.standing.started(start);
        self.known.put(start.call, stored);
        Ok(())
    }

    fn settle(&mut self, settle: &Settle) -> Result<(), CommitError> {
        let stored = self.stored(settle.call)?;
        let Stored { seq, standing, .. } = stored;
        let settlement = standing.settle(settle).map_err(|refusal| refusal.of(settle.call))?;
        if let Some(end) = &settle.attempt
            && !self.statements.end_attempt(seq, end)?
        {
            return Err(UNMATCHED_END.of(settle.call));
        }
        if let Some(progress) = &settle.progress {
            self.count(standing.state, progress.state);
        }
        match (settlement, &settle.progress) {
            (Settlement::Ends, Some(progress)) => self.end(stored, settle, progress)?,
            (Settlement::GoesOn, Some(progress)) => self.go_on(seq, settle.call, progress)?,
            (Settlement::Stays, _) => self.known.put(settle.call, stored),
            (Settlement::GoesOn | Settlement::Ends, None) => {}
        }
        match &settle.heading {
            Some(heading) => self.head(seq, settle.call, heading),
            None => Ok(()),
        }
    }

    fn head(&mut self, seq: i64, call: CallId, heading: &Heading) -> Result<(), CommitError> {
        // It is counted by something else from now on.
        drop(self.known.take(call));
        let hop = heading.hop.as_ref().map(hop_json);
        let values = params![seq, heading.limit_key, hop, blob(call)];
        changed_one(self.connection.prepare_cached(HEAD)?.execute(values)?, call)
    }

    fn go_on(&mut self, seq: i64, call: CallId, progress: &Progress) -> Result<(), CommitError> {
        changed_one(set_progress(&mut self.statements.progress, (call, seq), progress, None)?, call)
    }

    fn end(&mut self, stored: Stored, settle: &Settle, progress: &Progress) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = stored;
        let end = &mut self.statements.end;
        changed_one(set_progress(end, (settle.call, seq), progress, Some(settle.at))?, settle.call)?;
        if !standing.filed {
            let standing = Standing { state: progress.state, waits: false, ..standing };
            self.known.put(settle.call, Stored { standing, ..stored });
        }
        let Some(response) = &settle.response else { return Ok(()) };
        let body = self.place(settle.call, Part::Response, &response.body)?;
        Ok(self.statements.insert_response((settle.call, seq), response, body)?)
    }

    fn close(&mut self, call: CallId, until: Steady) -> Result<(), CommitError> {
        let stored = self.stored(call)?;
        self.connection.prepare_cached(CLOSE)?.execute(params![&*stored.limit_key, until.as_micros()])?;
        self.known.put(call, stored);
        Ok(())
    }

    fn release(&mut self, call: CallId, ready_at: Steady) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(call)?;
        standing.release().map_err(|refusal| refusal.of(call))?;
        changed_one(
            self.connection.prepare_cached(RELEASE)?.execute(params![seq, ready_at.as_micros(), blob(call)])?,
            call,
        )
    }

    fn count(&mut self, from: State, to: State) {
        self.moves[from as usize] -= 1;
        self.moves[to as usize] += 1;
    }

    fn file(&mut self, call: CallId) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(call)?;
        standing.file().map_err(|refusal| refusal.of(call))?;
        changed_one(self.statements.file.execute(params![seq, blob(call)])?, call)
    }

    fn mark(&mut self, call: CallId, mark: Mark) -> Result<(), CommitError> {
        let stored = self.stored(call)?;
        stored.standing.mark().map_err(|refusal| refusal.of(call))?;
        let sql = match mark {
            Mark::CancelRequested => MARK_CANCEL,
            Mark::Survived => MARK_SURVIVED,
        };
        let changed = self.connection.prepare_cached(sql)?.execute(params![stored.seq, blob(call)])?;
        self.known.put(call, stored);
        changed_one(changed, call)
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

    fn free_key(&mut self, call: CallId) -> Result<(), CommitError> {
        let Stored { seq, standing, .. } = self.stored(call)?;
        let has_key = self.connection.prepare_cached(HAS_KEY)?.query_row([seq], |row| row.get(0))?;
        standing.free_key(has_key).map_err(|refusal| refusal.of(call))?;
        self.connection.prepare_cached(FREE_KEY)?.execute([seq])?;
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
        }
    }
    steps
}

fn may_start(call: &CallRecord, start: &Start) -> bool {
    standing(call).start(start).is_ok()
}

/// Where a call stands that is inserted so.
const fn standing(call: &CallRecord) -> Standing {
    let CallRecord { progress, filed, attempts, .. } = call;
    Standing { state: progress.state, filed: *filed, attempts: *attempts, waits: progress.ready_at.is_some() }
}

/// A row is not as the last write left it: somebody else has written.
fn changed_one(changed: usize, call: CallId) -> Result<(), CommitError> {
    if changed == 1 { Ok(()) } else { Err(CHANGED_MEANWHILE.of(call)) }
}
