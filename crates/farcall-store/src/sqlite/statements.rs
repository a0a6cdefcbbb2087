//! The statements a batch is made of: prepared once, each with what it takes for granted in its condition.
//!
//! None needs to undo itself (`OR FAIL`): whatever fails, the batch is rolled back whole. When to make which is decided in
//! `write`. Most calls have little of what a call may have, so the two widest inserts have a short form.

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::known::{Known, Lane, Open, Stored};
use super::row::{Columns, blob, headers_json, tags_json};
use super::sum::{self, Answer};
use crate::port::{AttemptEnd, Insert, Start};
use crate::record::{ErrorRecord, Progress, ResponseRecord};
use crate::transition::Standing;

/// The statements of the hot path, of one connection.
pub(super) struct Statements<'c> {
    pub(super) insert_call: CachedStatement<'c>,
    pub(super) insert_request: CachedStatement<'c>,
    pub(super) insert_response: CachedStatement<'c>,
    pub(super) stored: CachedStatement<'c>,
    pub(super) enter_lane: CachedStatement<'c>,
    pub(super) leave_lane: CachedStatement<'c>,
    pub(super) open_attempt: CachedStatement<'c>,
    pub(super) close_attempt: CachedStatement<'c>,
    pub(super) insert_attempt: CachedStatement<'c>,
    pub(super) end: CachedStatement<'c>,
    pub(super) seal: CachedStatement<'c>,
    pub(super) connection: &'c Connection,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_call: connection.prepare_cached(INSERT_CALL)?,
            insert_request: connection
                .prepare_cached("INSERT OR FAIL INTO requests (call, body, sum) VALUES (?1, ?2, ?3)")?,
            insert_response: connection.prepare_cached(INSERT_RESPONSE)?,
            stored: connection.prepare_cached(STORED)?,
            enter_lane: connection.prepare_cached(ENTER_LANE)?,
            leave_lane: connection.prepare_cached(LEAVE_LANE)?,
            open_attempt: connection.prepare_cached(OPEN_ATTEMPT)?,
            close_attempt: connection.prepare_cached("DELETE FROM open_attempts WHERE call = ?1 AND number = ?2")?,
            insert_attempt: connection.prepare_cached(INSERT_ATTEMPT)?,
            end: connection.prepare_cached(END)?,
            seal: connection.prepare_cached(SEAL)?,
            connection,
        })
    }

    /// Makes one of the statements that are needed less often.
    pub(super) fn once(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(values)
    }

    pub(super) fn stored(&mut self, call: CallId, known: &mut Known) -> rusqlite::Result<Option<Stored>> {
        let read = |row: &rusqlite::Row<'_>| {
            let mut columns = Columns::new(row);
            let (seq, state) = (columns.take()?, columns.word(State::from_word)?);
            let (filed, attempts, ready_at) = (columns.take()?, columns.take()?, columns.optional_steady()?);
            let limit_key = columns.text(|limit_key| known.shared(limit_key))?;
            Ok(Stored {
                seq,
                standing: Standing { state, filed, attempts, waits: ready_at.is_some() },
                ready_at,
                limit_key,
                cost: columns.take()?,
                lane: Lane { of_callbacks: columns.take()?, priority: columns.take()?, tenant: columns.take()? },
                deadline: columns.optional_steady()?,
                is_keyed: columns.take()?,
                is_live: columns.take()?,
                started_at: columns.optional_time()?,
                open: None,
            })
        };
        self.stored.query_row([blob(call)], read).optional()
    }

    /// Adds the row of what never changes.
    pub(super) fn insert_call(&mut self, insert: &Insert) -> rusqlite::Result<usize> {
        let Insert { call, trace, .. } = insert;
        let (file, key) = (call.file.as_ref(), call.idempotency.as_ref());
        let is_plain = call.tags.is_empty()
            && file.is_none()
            && key.is_none()
            && call.tenant.is_none()
            && call.not_before.is_none()
            && call.deadline.is_none()
            && call.callback_of.is_none()
            && call.retry_of.is_none()
            && trace.is_none();
        if is_plain {
            return self.insert_call.execute(params![
                blob(call.id),
                call.progress.state.as_str(),
                steady(call.progress.ready_at),
                call.source.as_str(),
                call.via.as_str(),
                call.upstream,
                call.limit_key,
                call.method,
                call.url,
                call.priority,
                call.tenant_id.0.cast_signed(),
                call.cost,
                call.accepted_at.as_micros(),
                call.has_overrides,
            ]);
        }
        let values = params![
            blob(call.id),
            call.progress.state.as_str(),
            steady(call.progress.ready_at),
            call.source.as_str(),
            call.via.as_str(),
            call.upstream,
            call.limit_key,
            call.method,
            call.url,
            call.priority,
            call.tenant_id.0.cast_signed(),
            call.cost,
            call.accepted_at.as_micros(),
            call.has_overrides,
            tags_json(&call.tags),
            call.tenant,
            steady(call.not_before),
            steady(call.deadline),
            call.callback_of.map(blob),
            call.retry_of.map(blob),
            file.map(|file| file.name.as_slice()),
            file.map(|file| file.device.cast_signed()),
            file.map(|file| file.inode.cast_signed()),
            file.map(|file| file.changed_ns),
            key.map(|key| key.scope.as_str()),
            key.map(|key| key.key.as_str()),
            key.map(|key| key.digest),
            trace,
        ];
        self.once(INSERT_FULL_CALL, values)
    }

    /// Lets a call stand in its lane from then on.
    pub(super) fn enter_lane(&mut self, call: CallId, stored: &Stored, ready_at: Steady) -> rusqlite::Result<()> {
        let Stored { seq, limit_key, lane: Lane { of_callbacks, priority, tenant }, deadline, .. } = stored;
        let place = params![&**limit_key, of_callbacks, priority, tenant, ready_at.as_micros(), blob(call), seq];
        self.enter_lane.execute(place)?;
        if let Some(deadline) = deadline {
            self.once(AWAIT_DEADLINE, params![deadline.as_micros(), blob(call), seq])?;
        }
        Ok(())
    }

    /// Takes a call out of its lane, if it stands in one. False when it did not stand where it should.
    pub(super) fn leave_lane(&mut self, call: CallId, stored: &Stored) -> rusqlite::Result<bool> {
        let Some(ready_at) = stored.ready_at else { return Ok(true) };
        let Stored { limit_key, lane: Lane { of_callbacks, priority, tenant }, deadline, .. } = stored;
        let place = params![&**limit_key, of_callbacks, priority, tenant, ready_at.as_micros(), blob(call)];
        let left = self.leave_lane.execute(place)?;
        if let Some(deadline) = deadline {
            self.once(
                "DELETE FROM expiring WHERE deadline = ?1 AND id = ?2",
                params![deadline.as_micros(), blob(call)],
            )?;
        }
        Ok(left == 1)
    }

    pub(super) fn open_attempt(&mut self, stored: &Stored, start: &Start) -> rusqlite::Result<()> {
        let Stored { seq, limit_key, cost, .. } = stored;
        let (started_at, granted_at) = (start.started_at.as_micros(), start.granted_at.as_micros());
        let values = params![seq, start.number, start.kind.as_str(), started_at, granted_at, &**limit_key, cost];
        self.open_attempt.execute(values).map(drop)
    }

    /// An attempt that is out, as it is stored.
    pub(super) fn opened(&self, seq: i64, number: u32, known: &mut Known) -> rusqlite::Result<Option<Open>> {
        let read = |row: &rusqlite::Row<'_>| {
            let mut columns = Columns::new(row);
            Ok(Open {
                number,
                kind: columns.word(farcall_core::attempt::AttemptKind::from_word)?,
                started_at: columns.time()?,
                granted_at: columns.steady()?,
                limit_key: columns.text(|limit_key| known.shared(limit_key))?,
            })
        };
        self.connection.prepare_cached(OPENED)?.query_row(params![seq, number], read).optional()
    }

    /// Makes an attempt that was out the `n`-th that has ended. False when it is not out.
    pub(super) fn end_attempt(
        &mut self,
        stored: &Stored,
        open: &Open,
        end: &AttemptEnd,
        n: i64,
    ) -> rusqlite::Result<bool> {
        if self.close_attempt.execute(params![stored.seq, end.number])? != 1 {
            return Ok(false);
        }
        let (error_kind, error_message) = error_columns(end.error.as_ref());
        self.insert_attempt.execute(params![
            n,
            stored.seq,
            end.number,
            open.kind.as_str(),
            end.outcome.as_str(),
            end.status,
            open.started_at.as_micros(),
            open.granted_at.as_micros(),
            steady(end.proved_at),
            end.ended_at.as_micros(),
            error_kind,
            error_message,
            &*open.limit_key,
            stored.cost,
        ])?;
        Ok(true)
    }

    /// Ends a call of which nothing else is to be said, or one with all that may be said of it.
    pub(super) fn end(&mut self, stored: &Stored, progress: &Progress, ended_at: Steady) -> rusqlite::Result<()> {
        let Stored { seq, standing, is_keyed, is_live, started_at, .. } = stored;
        let Progress { state, retries, requeues, throttles, deaths, orphaned, finished_at, status, error, .. } =
            progress;
        let is_plain = !is_live && error.is_none() && [retries, requeues, throttles, deaths, orphaned] == [&0; 5];
        let (ended_at, attempts, started_at) = (ended_at.as_micros(), standing.attempts, micros(*started_at));
        let (state, finished_at) = (state.as_str(), micros(*finished_at));
        if is_plain {
            let values = params![seq, state, ended_at, is_keyed, attempts, started_at, finished_at, status];
            return self.end.execute(values).map(drop);
        }
        let (error_kind, error_message) = error_columns(error.as_ref());
        let values = params![
            seq,
            state,
            ended_at,
            is_keyed,
            attempts,
            started_at,
            finished_at,
            status,
            error_kind,
            error_message,
            retries,
            requeues,
            throttles,
            deaths,
            orphaned,
        ];
        self.once(FULL_END, values)?;
        if *is_live {
            self.once("DELETE FROM live WHERE call = ?1", [seq])?;
        }
        Ok(())
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

const INSERT_CALL: &str = "INSERT OR FAIL INTO calls (id, state, ready_at, source, via, upstream, limit_key, method, url, \
    priority, tenant_id, cost, accepted_at, has_overrides) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

const INSERT_FULL_CALL: &str = "INSERT OR FAIL INTO calls (id, state, ready_at, source, via, upstream, limit_key, method, url, \
    priority, tenant_id, cost, accepted_at, has_overrides, tags, tenant, not_before, deadline, callback_of, retry_of, \
    file_name, file_device, file_inode, file_changed_ns, key_scope, key, key_digest, trace) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
    ?25, ?26, ?27, ?28)";

const INSERT_RESPONSE: &str =
    "INSERT OR FAIL INTO responses (call, status, headers, decoded, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const ENTER_LANE: &str = "INSERT OR FAIL INTO waiting (limit_key, of_callbacks, priority, tenant_id, ready_at, id, call) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const LEAVE_LANE: &str = "DELETE FROM waiting WHERE limit_key = ?1 AND of_callbacks = ?2 AND priority = ?3 \
    AND tenant_id = ?4 AND ready_at = ?5 AND id = ?6";

const AWAIT_DEADLINE: &str = "INSERT OR FAIL INTO expiring (deadline, id, call) VALUES (?1, ?2, ?3)";

const OPEN_ATTEMPT: &str = "INSERT OR FAIL INTO open_attempts \
    (call, number, kind, started_at, granted_at, limit_key, cost) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const OPENED: &str =
    "SELECT kind, started_at, granted_at, limit_key FROM open_attempts WHERE call = ?1 AND number = ?2";

const INSERT_ATTEMPT: &str = "INSERT OR FAIL INTO attempts (n, call, number, kind, outcome, status, started_at, \
    granted_at, proved_at, ended_at, error_kind, error_message, limit_key, cost) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

const END: &str = "INSERT OR FAIL INTO ends (call, state, ended_at, keyed, attempts, started_at, finished_at, status) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const FULL_END: &str = "INSERT OR FAIL INTO ends (call, state, ended_at, keyed, attempts, started_at, finished_at, status, \
    error_kind, error_message, retries, requeues, throttles, deaths, orphaned, cancel_requested, limit_key, hop) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
    coalesce((SELECT cancel_requested FROM live WHERE call = ?1), 0), (SELECT limit_key FROM live WHERE call = ?1), \
    (SELECT hop FROM live WHERE call = ?1))";

pub(super) const CLOSE: &str = "INSERT INTO closings (limit_key, until) VALUES (?1, ?2) \
    ON CONFLICT (limit_key) DO UPDATE SET until = max(until, excluded.until)";

pub(super) const LIVE: &str =
    "INSERT OR FAIL INTO live (call, state, ready_at, attempts, started_at) VALUES (?1, ?2, ?3, ?4, ?5)";

pub(super) const LIVE_START: &str = "UPDATE OR FAIL live SET attempts = ?2, started_at = coalesce(started_at, ?3), \
    state = ?4, ready_at = NULL WHERE call = ?1 AND attempts = ?2 - 1";

/// Nothing of these two when the call goes home.
pub(super) const LIVE_HEAD: &str = "UPDATE OR FAIL live SET \
    limit_key = nullif(?2, (SELECT limit_key FROM calls WHERE seq = ?1)), hop = ?3 WHERE call = ?1";

pub(super) const ENDED_HEAD: &str = "UPDATE OR FAIL ends SET \
    limit_key = nullif(?2, (SELECT limit_key FROM calls WHERE seq = ?1)), hop = ?3 WHERE call = ?1";

pub(super) const LIVE_RELEASE: &str = "UPDATE OR FAIL live SET ready_at = ?2 WHERE call = ?1";

pub(super) const LIVE_CANCEL: &str = "UPDATE OR FAIL live SET cancel_requested = 1 WHERE call = ?1";

pub(super) const LIVE_SURVIVED: &str = "UPDATE OR FAIL live SET orphaned = 0 WHERE call = ?1";

pub(super) const LIVE_PROGRESS: &str = "UPDATE OR FAIL live SET state = ?2, ready_at = ?3, retries = ?4, requeues = ?5, \
    throttles = ?6, finished_at = ?7, status = ?8, error_kind = ?9, error_message = ?10, deaths = ?11, orphaned = ?12 \
    WHERE call = ?1";

pub(super) const AWAIT_FILING: &str = "INSERT OR FAIL INTO unfiled (call, name, ended) VALUES (?1, ?2, 0)";

pub(super) const MAY_BE_FILED: &str = "UPDATE OR FAIL unfiled SET ended = 1 WHERE call = ?1";

pub(super) const FILE: &str = "DELETE FROM unfiled WHERE call = ?1 AND ended = 1";

pub(super) const HAS_KEY: &str = "SELECT key IS NOT NULL FROM calls WHERE seq = ?1";

pub(super) const FREE_KEY: &str = "UPDATE calls SET key_scope = NULL, key = NULL, key_digest = NULL WHERE seq = ?1";

pub(super) const FREE_KEY_OF_END: &str = "UPDATE ends SET keyed = 0 WHERE call = ?1";

const STORED: &str = "SELECT seq, state, filed, attempts, ready_at, limit_key, cost, callback_of IS NOT NULL, priority, \
    tenant_id, deadline, key IS NOT NULL, is_live, started_at FROM call_records WHERE id = ?1";

/// The states in the order of `State::ALL`.
const SEAL: &str = "UPDATE meta SET commits = commits + 1, accepted = accepted + ?2, scheduled = scheduled + ?3, \
    queued = queued + ?4, running = running + ?5, retrying = retrying + ?6, succeeded = succeeded + ?7, \
    failed = failed + ?8, cancelled = cancelled + ?9, expired = expired + ?10, unknown = unknown + ?11, \
    poisoned = poisoned + ?12, latest = coalesce(max(latest, ?13), latest, ?13), pruned = pruned + ?14 WHERE one = 1 AND epoch = ?1";

pub(super) fn error_columns(error: Option<&ErrorRecord>) -> (Option<&str>, Option<&str>) {
    (error.map(|error| error.kind.as_str()), error.map(|error| error.message.as_str()))
}

pub(super) fn micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_micros)
}

pub(super) fn steady(time: Option<Steady>) -> Option<i64> {
    time.map(Steady::as_micros)
}
