//! One batch inside its transaction: every write checked against what is stored, then made.
//!
//! The start of a call that the same batch inserts is made part of its insert, so that the row is written once. The
//! last step, [`Batch::seal`], counts what the batch did and checks in the same statement that the epoch still is ours.

use bytes::Bytes;
use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, params};

use super::bodies::{Bodies, INLINE_BYTES_MAX, Part};
use super::prune;
use super::row::{Columns, blob, call_columns, headers_json, hop_json, tags_json};
use super::sum::{self, Answer};
use crate::port::{AttemptEnd, CommitError, Heading, Insert, Prune, Settle, Start, Write};
use crate::record::{CallRecord, ErrorRecord, Progress, ResponseRecord};
use crate::transition::{KEY_TAKEN, SECOND_INSERT, SUPERSEDED, Settlement, Standing, UNKNOWN_CALL, UNMATCHED_END};

/// A batch being applied. Dropped without a commit of its transaction, it has done nothing but leave body files.
pub(super) struct Batch<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    bodies: &'c Bodies,
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
    Prune(&'w Prune),
    FreeKey(CallId),
}

struct Statements<'c> {
    insert_call: CachedStatement<'c>,
    insert_request: CachedStatement<'c>,
    insert_attempt: CachedStatement<'c>,
    insert_response: CachedStatement<'c>,
    standing: CachedStatement<'c>,
    start: CachedStatement<'c>,
    end_attempt: CachedStatement<'c>,
    progress: CachedStatement<'c>,
    end: CachedStatement<'c>,
    file: CachedStatement<'c>,
    seal: CachedStatement<'c>,
}

impl<'c> Batch<'c> {
    /// A batch of this connection's open transaction.
    pub(super) fn new(connection: &'c Connection, bodies: &'c Bodies) -> rusqlite::Result<Self> {
        let statements = Statements::prepare(connection)?;
        Ok(Self {
            connection,
            statements,
            bodies,
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
                Step::Prune(prune) => self.prune(prune)?,
                Step::FreeKey(call) => self.free_key(call)?,
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
                let known = self.statements.standing(call.id)?.is_some();
                return Err(if known { SECOND_INSERT } else { KEY_TAKEN }.of(call.id));
            }
            done => done?,
        }
        let seq = self.connection.last_insert_rowid();
        let body = self.place(call.id, Part::Request, &insert.request)?;
        let sum = sum::of_request(call.id, &insert.request);
        self.statements.insert_request.execute(params![seq, body, sum])?;
        if let Some(start) = first {
            self.statements.insert_attempt(seq, start)?;
        }
        self.accepted += 1;
        self.moves[first.map_or(call.progress.state, |_| State::Running) as usize] += 1;
        Ok(())
    }

    fn start(&mut self, start: &Start) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(start.call)?;
        standing.start(start).map_err(|refusal| refusal.of(start.call))?;
        self.count(standing.state, State::Running);
        self.statements.start.execute(params![
            seq,
            start.number,
            start.started_at.as_micros(),
            State::Running.as_str()
        ])?;
        Ok(self.statements.insert_attempt(seq, start)?)
    }

    fn settle(&mut self, settle: &Settle) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(settle.call)?;
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
            (Settlement::Ends, Some(progress)) => self.end(seq, settle, progress)?,
            (Settlement::GoesOn, Some(progress)) => self.statements.progress(seq, progress)?,
            (Settlement::Stays | Settlement::GoesOn | Settlement::Ends, _) => {}
        }
        match &settle.heading {
            Some(heading) => self.head(seq, heading),
            None => Ok(()),
        }
    }

    fn head(&self, seq: i64, heading: &Heading) -> Result<(), CommitError> {
        let hop = heading.hop.as_ref().map(hop_json);
        self.connection.prepare_cached(HEAD)?.execute(params![seq, heading.limit_key, hop])?;
        Ok(())
    }

    fn end(&mut self, seq: i64, settle: &Settle, progress: &Progress) -> Result<(), CommitError> {
        self.statements.end(seq, progress, settle.at)?;
        let Some(response) = &settle.response else { return Ok(()) };
        let body = self.place(settle.call, Part::Response, &response.body)?;
        Ok(self.statements.insert_response((settle.call, seq), response, body)?)
    }

    fn close(&mut self, call: CallId, until: Steady) -> Result<(), CommitError> {
        let (seq, _) = self.stored(call)?;
        self.connection.prepare_cached(CLOSE)?.execute(params![seq, until.as_micros()])?;
        Ok(())
    }

    fn release(&mut self, call: CallId, ready_at: Steady) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(call)?;
        standing.release().map_err(|refusal| refusal.of(call))?;
        self.connection.prepare_cached(RELEASE)?.execute(params![seq, ready_at.as_micros()])?;
        Ok(())
    }

    fn count(&mut self, from: State, to: State) {
        self.moves[from as usize] -= 1;
        self.moves[to as usize] += 1;
    }

    fn file(&mut self, call: CallId) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(call)?;
        standing.file().map_err(|refusal| refusal.of(call))?;
        self.statements.file.execute([seq])?;
        Ok(())
    }

    fn prune(&mut self, prune: &Prune) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(prune.call)?;
        let held_by = prune::held_by(self.connection, prune.call, seq)?;
        standing.prune(held_by).map_err(|refusal| refusal.of(prune.call))?;
        self.files.pruned.extend(prune::remove(self.connection, seq, prune)?);
        self.moves[standing.state as usize] -= 1;
        self.pruned += 1;
        self.grants_since = self.grants_since.max(Some(prune.grants_since));
        Ok(())
    }

    fn free_key(&mut self, call: CallId) -> Result<(), CommitError> {
        let (seq, standing) = self.stored(call)?;
        let has_key = self.connection.prepare_cached(HAS_KEY)?.query_row([seq], |row| row.get(0))?;
        standing.free_key(has_key).map_err(|refusal| refusal.of(call))?;
        self.connection.prepare_cached(FREE_KEY)?.execute([seq])?;
        Ok(())
    }

    fn stored(&mut self, call: CallId) -> Result<(i64, Standing), CommitError> {
        self.statements.standing(call)?.ok_or_else(|| UNKNOWN_CALL.of(call))
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
        let inserted = untouched.remove(&write.call());
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
            Write::Prune(prune) => steps.push(Step::Prune(prune)),
            Write::FreeKey(call) => steps.push(Step::FreeKey(*call)),
        }
    }
    steps
}

fn may_start(call: &CallRecord, start: &Start) -> bool {
    let progress = &call.progress;
    let waits = progress.ready_at.is_some();
    let standing = Standing { state: progress.state, filed: call.filed, attempts: call.attempts, waits };
    standing.start(start).is_ok()
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_call: connection.prepare_cached(INSERT_CALL)?,
            insert_request: connection.prepare_cached("INSERT INTO requests (call, body, sum) VALUES (?1, ?2, ?3)")?,
            insert_attempt: connection.prepare_cached(INSERT_ATTEMPT)?,
            insert_response: connection.prepare_cached(INSERT_RESPONSE)?,
            standing: connection.prepare_cached(STANDING)?,
            start: connection.prepare_cached(START)?,
            end_attempt: connection.prepare_cached(END_ATTEMPT)?,
            progress: connection.prepare_cached(PROGRESS)?,
            end: connection.prepare_cached(END)?,
            file: connection.prepare_cached("UPDATE calls SET filed = 1 WHERE seq = ?1")?,
            seal: connection.prepare_cached(SEAL)?,
        })
    }

    fn standing(&mut self, call: CallId) -> rusqlite::Result<Option<(i64, Standing)>> {
        let read = |row: &rusqlite::Row<'_>| {
            let mut columns = Columns::new(row);
            let (seq, state) = (columns.take()?, columns.word(State::from_word)?);
            let (filed, attempts, waits) = (columns.take()?, columns.take()?, columns.take()?);
            Ok((seq, Standing { state, filed, attempts, waits }))
        };
        self.standing.query_row([blob(call)], read).optional()
    }

    /// Inserts a call, running when its first attempt is given.
    fn insert_call(&mut self, insert: &Insert, first: Option<&Start>) -> rusqlite::Result<()> {
        let call = &insert.call;
        let progress = &call.progress;
        let (error_kind, error_message) = error_columns(progress.error.as_ref());
        let (file, key) = (call.file.as_ref(), call.idempotency.as_ref());
        self.insert_call
            .execute(params![
                blob(call.id),
                first.map_or(progress.state, |_| State::Running).as_str(),
                steady(progress.ready_at.filter(|_| first.is_none())),
                progress.retries,
                progress.requeues,
                progress.throttles,
                micros(call.started_at.or(first.map(|start| start.started_at))),
                micros(progress.finished_at),
                progress.status,
                error_kind,
                error_message,
                first.map_or(call.attempts, |start| start.number),
                call.filed,
                call.source.as_str(),
                call.via.as_str(),
                call.upstream,
                call.limit_key,
                call.method,
                call.url,
                tags_json(&call.tags),
                call.priority,
                call.tenant,
                call.tenant_id.0.cast_signed(),
                call.cost,
                call.accepted_at.as_micros(),
                steady(call.not_before),
                steady(call.deadline),
                call.has_overrides,
                call.callback_of.map(blob),
                call.retry_of.map(blob),
                file.map(|file| file.name.as_slice()),
                file.map(|file| file.device.cast_signed()),
                file.map(|file| file.inode.cast_signed()),
                file.map(|file| file.changed_ns),
                key.map(|key| key.scope.as_str()),
                key.map(|key| key.key.as_str()),
                key.map(|key| key.digest),
                call.hop.as_ref().map(hop_json),
                progress.state.is_end(),
                steady(progress.state.is_end().then_some(insert.at)),
            ])
            .map(drop)
    }

    fn insert_attempt(&mut self, seq: i64, start: &Start) -> rusqlite::Result<()> {
        let running = AttemptOutcome::Running.as_str();
        let (started_at, granted_at) = (start.started_at.as_micros(), start.granted_at.as_micros());
        let kind = start.kind.as_str();
        self.insert_attempt.execute(params![seq, start.number, kind, running, started_at, granted_at]).map(drop)
    }

    /// Ends a running attempt; says whether there was one.
    fn end_attempt(&mut self, seq: i64, end: &AttemptEnd) -> rusqlite::Result<bool> {
        let (error_kind, error_message) = error_columns(end.error.as_ref());
        let ended = self.end_attempt.execute(params![
            seq,
            end.number,
            end.outcome.as_str(),
            end.status,
            steady(end.proved_at),
            end.ended_at.as_micros(),
            error_kind,
            error_message,
        ])?;
        Ok(ended == 1)
    }

    fn progress(&mut self, seq: i64, progress: &Progress) -> rusqlite::Result<()> {
        set_progress(&mut self.progress, seq, progress, None)
    }

    fn end(&mut self, seq: i64, progress: &Progress, at: Steady) -> rusqlite::Result<()> {
        set_progress(&mut self.end, seq, progress, Some(at))
    }

    /// `stored` is the body as it stands in the row: nothing when it has a file.
    fn insert_response(
        &mut self,
        (call, seq): (CallId, i64),
        response: &ResponseRecord,
        stored: Option<&[u8]>,
    ) -> rusqlite::Result<()> {
        let headers = headers_json(&response.headers);
        let ResponseRecord { status, decoded, ref body, .. } = *response;
        let sum = sum::of_response(call, Answer { status, headers: &headers, decoded, body });
        self.insert_response.execute(params![seq, status, headers, decoded, stored, sum]).map(drop)
    }
}

const INSERT_CALL: &str = concat!(
    "INSERT INTO calls (",
    call_columns!(),
    ", ended, ended_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
     ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40)"
);

const CLOSE: &str = "INSERT INTO closings (limit_key, until) SELECT limit_key, ?2 FROM calls WHERE seq = ?1 \
    ON CONFLICT (limit_key) DO UPDATE SET until = max(until, excluded.until)";

const INSERT_ATTEMPT: &str = "INSERT INTO attempts (call, number, kind, outcome, started_at, granted_at, limit_key, cost) \
    SELECT seq, ?2, ?3, ?4, ?5, ?6, limit_key, cost FROM calls WHERE seq = ?1";

const INSERT_RESPONSE: &str =
    "INSERT INTO responses (call, status, headers, decoded, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const START: &str = "UPDATE calls SET attempts = ?2, started_at = coalesce(started_at, ?3), state = ?4, \
    ready_at = NULL WHERE seq = ?1";

const HEAD: &str = "UPDATE calls SET limit_key = ?2, hop = ?3 WHERE seq = ?1";

const RELEASE: &str = "UPDATE calls SET ready_at = ?2 WHERE seq = ?1";

const STANDING: &str = "SELECT seq, state, filed, attempts, ready_at IS NOT NULL FROM calls WHERE id = ?1";

const END_ATTEMPT: &str = "UPDATE attempts SET outcome = ?3, status = ?4, proved_at = ?5, ended_at = ?6, \
    error_kind = ?7, error_message = ?8, latest_at = max(granted_at, ?5) \
    WHERE call = ?1 AND number = ?2 AND ended_at IS NULL";

const PROGRESS: &str = "UPDATE calls SET state = ?2, ready_at = ?3, retries = ?4, requeues = ?5, throttles = ?6, \
    finished_at = ?7, status = ?8, error_kind = ?9, error_message = ?10, ended_at = ?11 WHERE seq = ?1";

const HAS_KEY: &str = "SELECT key IS NOT NULL FROM calls WHERE seq = ?1";

const FREE_KEY: &str = "UPDATE calls SET key_scope = NULL, key = NULL, key_digest = NULL WHERE seq = ?1";

const END: &str = "UPDATE calls SET state = ?2, ready_at = ?3, retries = ?4, requeues = ?5, throttles = ?6, \
    finished_at = ?7, status = ?8, error_kind = ?9, error_message = ?10, ended = 1, ended_at = ?11 WHERE seq = ?1";

/// The states in the order of `State::ALL`.
const SEAL: &str = "UPDATE meta SET commits = commits + 1, accepted = accepted + ?2, scheduled = scheduled + ?3, \
    queued = queued + ?4, running = running + ?5, retrying = retrying + ?6, succeeded = succeeded + ?7, \
    failed = failed + ?8, cancelled = cancelled + ?9, expired = expired + ?10, unknown = unknown + ?11, \
    poisoned = poisoned + ?12, latest = coalesce(max(latest, ?13), latest, ?13), pruned = pruned + ?14 WHERE one = 1 AND epoch = ?1";

fn set_progress(
    statement: &mut CachedStatement<'_>,
    seq: i64,
    progress: &Progress,
    ended_at: Option<Steady>,
) -> rusqlite::Result<()> {
    let (error_kind, error_message) = error_columns(progress.error.as_ref());
    statement
        .execute(params![
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
            steady(ended_at),
        ])
        .map(drop)
}

fn error_columns(error: Option<&ErrorRecord>) -> (Option<&str>, Option<&str>) {
    (error.map(|error| error.kind.as_str()), error.map(|error| error.message.as_str()))
}

fn micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_micros)
}

fn steady(time: Option<Steady>) -> Option<i64> {
    time.map(Steady::as_micros)
}
