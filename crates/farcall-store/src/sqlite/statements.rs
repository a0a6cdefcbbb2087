//! The statements a batch is made of: prepared once, each with what it takes for granted in its condition.
//!
//! None needs to undo itself (`OR FAIL`): whatever fails, the batch is rolled back whole. When to make which is decided in
//! `write`.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::known::{Known, Stored};
use super::row::{Columns, blob, call_columns, headers_json, hop_json, tags_json};
use super::sum::{self, Answer};
use crate::port::{AttemptEnd, Insert, Start};
use crate::record::{ErrorRecord, Progress, ResponseRecord};
use crate::transition::Standing;

/// The statements of the hot path, of one connection.
pub(super) struct Statements<'c> {
    pub(super) insert_call: CachedStatement<'c>,
    pub(super) insert_request: CachedStatement<'c>,
    pub(super) insert_attempt: CachedStatement<'c>,
    pub(super) insert_response: CachedStatement<'c>,
    pub(super) stored: CachedStatement<'c>,
    pub(super) start: CachedStatement<'c>,
    pub(super) end_attempt: CachedStatement<'c>,
    pub(super) progress: CachedStatement<'c>,
    pub(super) end: CachedStatement<'c>,
    pub(super) file: CachedStatement<'c>,
    pub(super) seal: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_call: connection.prepare_cached(INSERT_CALL)?,
            insert_request: connection
                .prepare_cached("INSERT OR FAIL INTO requests (call, body, sum) VALUES (?1, ?2, ?3)")?,
            insert_attempt: connection.prepare_cached(INSERT_ATTEMPT)?,
            insert_response: connection.prepare_cached(INSERT_RESPONSE)?,
            stored: connection.prepare_cached(STORED)?,
            start: connection.prepare_cached(START)?,
            end_attempt: connection.prepare_cached(END_ATTEMPT)?,
            progress: connection.prepare_cached(PROGRESS)?,
            end: connection.prepare_cached(END)?,
            file: connection.prepare_cached(FILE)?,
            seal: connection.prepare_cached(SEAL)?,
        })
    }

    pub(super) fn stored(&mut self, call: CallId, known: &mut Known) -> rusqlite::Result<Option<Stored>> {
        let read = |row: &rusqlite::Row<'_>| {
            let mut columns = Columns::new(row);
            let (seq, state) = (columns.take()?, columns.word(State::from_word)?);
            let (filed, attempts, waits) = (columns.take()?, columns.take()?, columns.take()?);
            let limit_key = columns.text(|limit_key| known.shared(limit_key))?;
            let standing = Standing { state, filed, attempts, waits };
            Ok(Stored { seq, standing, limit_key, cost: columns.take()? })
        };
        self.stored.query_row([blob(call)], read).optional()
    }

    /// Inserts a call, running when its first attempt is given.
    pub(super) fn insert_call(&mut self, insert: &Insert, first: Option<&Start>) -> rusqlite::Result<()> {
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
                progress.deaths,
                progress.orphaned,
                call.cancel_requested,
                progress.state.is_end(),
                steady(progress.state.is_end().then_some(insert.at)),
            ])
            .map(drop)
    }

    pub(super) fn insert_attempt(&mut self, stored: &Stored, start: &Start) -> rusqlite::Result<()> {
        let Stored { seq, limit_key, cost, .. } = stored;
        let running = AttemptOutcome::Running.as_str();
        let (started_at, granted_at) = (start.started_at.as_micros(), start.granted_at.as_micros());
        let kind = start.kind.as_str();
        let values = params![seq, start.number, kind, running, started_at, granted_at, &**limit_key, cost];
        self.insert_attempt.execute(values).map(drop)
    }

    /// Ends a running attempt; says whether there was one.
    pub(super) fn end_attempt(&mut self, seq: i64, end: &AttemptEnd) -> rusqlite::Result<bool> {
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

    /// `stored` is the body as it stands in the row: nothing when it has a file.
    pub(super) fn insert_response(
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
    "INSERT OR FAIL INTO calls (",
    call_columns!(),
    ", ended, ended_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
     ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43)"
);

pub(super) const CLOSE: &str = "INSERT INTO closings (limit_key, until) VALUES (?1, ?2) \
    ON CONFLICT (limit_key) DO UPDATE SET until = max(until, excluded.until)";

const INSERT_ATTEMPT: &str = "INSERT OR FAIL INTO attempts \
    (call, number, kind, outcome, started_at, granted_at, limit_key, cost) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const INSERT_RESPONSE: &str =
    "INSERT OR FAIL INTO responses (call, status, headers, decoded, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const START: &str = "UPDATE OR FAIL calls SET attempts = ?2, started_at = coalesce(started_at, ?3), state = ?4, \
    ready_at = NULL WHERE seq = ?1 AND id = ?5 AND attempts = ?2 - 1 AND ended = 0";

pub(super) const HEAD: &str = "UPDATE OR FAIL calls SET limit_key = ?2, hop = ?3 WHERE seq = ?1 AND id = ?4";

pub(super) const RELEASE: &str = "UPDATE OR FAIL calls SET ready_at = ?2 WHERE seq = ?1 AND id = ?3 AND ended = 0";

pub(super) const MARK_CANCEL: &str =
    "UPDATE OR FAIL calls SET cancel_requested = 1 WHERE seq = ?1 AND id = ?2 AND ended = 0";

pub(super) const MARK_SURVIVED: &str = "UPDATE OR FAIL calls SET orphaned = 0 WHERE seq = ?1 AND id = ?2 AND ended = 0";

const FILE: &str = "UPDATE OR FAIL calls SET filed = 1 WHERE seq = ?1 AND id = ?2 AND filed = 0";

const STORED: &str =
    "SELECT seq, state, filed, attempts, ready_at IS NOT NULL, limit_key, cost FROM calls WHERE id = ?1";

const END_ATTEMPT: &str = "UPDATE OR FAIL attempts SET outcome = ?3, status = ?4, proved_at = ?5, ended_at = ?6, \
    error_kind = ?7, error_message = ?8, latest_at = max(granted_at, ?5) \
    WHERE call = ?1 AND number = ?2 AND ended_at IS NULL";

const PROGRESS: &str = "UPDATE OR FAIL calls SET state = ?2, ready_at = ?3, retries = ?4, requeues = ?5, \
    throttles = ?6, finished_at = ?7, status = ?8, error_kind = ?9, error_message = ?10, ended_at = ?11, \
    deaths = ?13, orphaned = ?14 WHERE seq = ?1 AND id = ?12 AND ended = 0";

pub(super) const HAS_KEY: &str = "SELECT key IS NOT NULL FROM calls WHERE seq = ?1";

pub(super) const FREE_KEY: &str = "UPDATE calls SET key_scope = NULL, key = NULL, key_digest = NULL WHERE seq = ?1";

const END: &str = "UPDATE OR FAIL calls SET state = ?2, ready_at = ?3, retries = ?4, requeues = ?5, throttles = ?6, \
    finished_at = ?7, status = ?8, error_kind = ?9, error_message = ?10, ended = 1, ended_at = ?11, \
    deaths = ?13, orphaned = ?14 WHERE seq = ?1 AND id = ?12 AND ended = 0";

/// The states in the order of `State::ALL`.
const SEAL: &str = "UPDATE meta SET commits = commits + 1, accepted = accepted + ?2, scheduled = scheduled + ?3, \
    queued = queued + ?4, running = running + ?5, retrying = retrying + ?6, succeeded = succeeded + ?7, \
    failed = failed + ?8, cancelled = cancelled + ?9, expired = expired + ?10, unknown = unknown + ?11, \
    poisoned = poisoned + ?12, latest = coalesce(max(latest, ?13), latest, ?13), pruned = pruned + ?14 WHERE one = 1 AND epoch = ?1";

/// Gives the number of rows that were changed.
pub(super) fn set_progress(
    statement: &mut CachedStatement<'_>,
    (call, seq): (CallId, i64),
    progress: &Progress,
    ended_at: Option<Steady>,
) -> rusqlite::Result<usize> {
    let (error_kind, error_message) = error_columns(progress.error.as_ref());
    statement.execute(params![
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
        blob(call),
        progress.deaths,
        progress.orphaned,
    ])
}

fn error_columns(error: Option<&ErrorRecord>) -> (Option<&str>, Option<&str>) {
    (error.map(|error| error.kind.as_str()), error.map(|error| error.message.as_str()))
}

fn micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_micros)
}

pub(super) fn steady(time: Option<Steady>) -> Option<i64> {
    time.map(Steady::as_micros)
}
