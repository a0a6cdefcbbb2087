//! Records as rows: the columns of a call and of an attempt, written and read in one order.
//!
//! A word or an id that does not read back is reported as damage of its column, never replaced by a default.

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{ErrorKind, Source, State, TenantId, Via};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use rusqlite::Row;
use rusqlite::types::{FromSql, Type};
use serde_json::{Value, json};

use crate::record::{AttemptRecord, CallRecord, ErrorRecord, FileIdentity, HopRecord, IdempotencyRecord, Progress};

/// The columns of `call_records` that [`call`] reads, in its order.
macro_rules! call_columns {
    () => {
        "id, state, ready_at, retries, requeues, throttles, started_at, finished_at, status, error_kind, error_message, \
         attempts, filed, source, via, upstream, limit_key, method, url, tags, priority, tenant, \
         tenant_id, cost, accepted_at, \
         not_before, deadline, has_overrides, callback_of, retry_of, file_name, file_device, file_inode, \
         file_changed_ns, key_scope, key, key_digest, hop, deaths, orphaned, cancel_requested"
    };
}
pub(super) use call_columns;

/// The columns of an attempt that is out, as [`attempt`] reads them.
macro_rules! open_attempt_columns {
    () => {
        "number, kind, 'running', NULL, started_at, granted_at, NULL, NULL, NULL, NULL"
    };
}
pub(super) use open_attempt_columns;

/// The columns [`attempt`] reads, in its order.
macro_rules! attempt_columns {
    () => {
        "number, kind, outcome, status, started_at, granted_at, proved_at, ended_at, error_kind, error_message"
    };
}
pub(super) use attempt_columns;

/// A row, read column by column from the left.
pub(super) struct Columns<'row> {
    row: &'row Row<'row>,
    next: usize,
}

impl<'row> Columns<'row> {
    pub(super) const fn new(row: &'row Row<'row>) -> Self {
        Self { row, next: 0 }
    }

    /// The next column.
    pub(super) fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let index = self.next;
        self.next += 1;
        self.row.get(index)
    }

    fn take_as<S: FromSql, T>(&mut self, read: impl FnOnce(S) -> Option<T>) -> rusqlite::Result<T> {
        let index = self.next;
        let stored = self.take()?;
        read(stored).ok_or_else(|| damaged(index))
    }

    pub(super) fn id(&mut self) -> rusqlite::Result<CallId> {
        self.take().map(id_of)
    }

    fn optional_id(&mut self) -> rusqlite::Result<Option<CallId>> {
        Ok(self.take::<Option<_>>()?.map(id_of))
    }

    pub(super) fn time(&mut self) -> rusqlite::Result<Timestamp> {
        self.take().map(Timestamp::from_micros)
    }

    pub(super) fn optional_time(&mut self) -> rusqlite::Result<Option<Timestamp>> {
        Ok(self.take::<Option<_>>()?.map(Timestamp::from_micros))
    }

    pub(super) fn steady(&mut self) -> rusqlite::Result<Steady> {
        self.take().map(Steady::from_micros)
    }

    pub(super) fn optional_steady(&mut self) -> rusqlite::Result<Option<Steady>> {
        Ok(self.take::<Option<_>>()?.map(Steady::from_micros))
    }

    pub(super) fn word<T>(&mut self, from_word: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
        let index = self.next;
        self.next += 1;
        from_word(self.row.get_ref(index)?.as_str()?).ok_or_else(|| damaged(index))
    }

    pub(super) fn text<T>(&mut self, read: impl FnOnce(&str) -> T) -> rusqlite::Result<T> {
        let index = self.next;
        self.next += 1;
        Ok(read(self.row.get_ref(index)?.as_str()?))
    }

    fn error(&mut self) -> rusqlite::Result<Option<ErrorRecord>> {
        let Some(message) = self.row.get(self.next + 1)? else {
            self.next += 2;
            return Ok(None);
        };
        let kind = self.word(ErrorKind::from_word)?;
        self.next += 1;
        Ok(Some(ErrorRecord { kind, message }))
    }
}

/// An id as it is stored.
pub(super) const fn blob(id: CallId) -> [u8; 16] {
    id.bits().to_be_bytes()
}

pub(super) const fn id_of(blob: [u8; 16]) -> CallId {
    CallId::from_bits(u128::from_be_bytes(blob))
}

/// Reads a call from the columns of `call_columns!`.
pub(super) fn call(row: &Row<'_>) -> rusqlite::Result<CallRecord> {
    let mut columns = Columns::new(row);
    let id = columns.id()?;
    let state = columns.word(State::from_word)?;
    let ready_at = columns.optional_steady()?;
    let (retries, requeues, throttles) = (columns.take()?, columns.take()?, columns.take()?);
    let started_at = columns.optional_time()?;
    let finished_at = columns.optional_time()?;
    let (status, error) = (columns.take()?, columns.error()?);
    let (attempts, filed) = (columns.take()?, columns.take()?);
    let mut call = CallRecord {
        id,
        started_at,
        attempts,
        filed,
        progress: Progress {
            state,
            ready_at,
            retries,
            requeues,
            throttles,
            deaths: 0,
            orphaned: 0,
            finished_at,
            status,
            error,
        },
        cancel_requested: false,
        source: columns.word(Source::from_word)?,
        via: columns.word(Via::from_word)?,
        upstream: columns.take()?,
        limit_key: columns.take()?,
        method: columns.take()?,
        url: columns.take()?,
        tags: columns.take_as(tags)?,
        priority: columns.take()?,
        tenant: columns.take()?,
        tenant_id: TenantId(columns.take::<i64>()?.cast_unsigned()),
        cost: columns.take()?,
        accepted_at: columns.time()?,
        not_before: columns.optional_steady()?,
        deadline: columns.optional_steady()?,
        has_overrides: columns.take()?,
        callback_of: columns.optional_id()?,
        retry_of: columns.optional_id()?,
        file: file(&mut columns)?,
        idempotency: idempotency(&mut columns)?,
        hop: columns.take_as(hop)?,
    };
    (call.progress.deaths, call.progress.orphaned) = (columns.take()?, columns.take()?);
    call.cancel_requested = columns.take()?;
    Ok(call)
}

/// Reads an attempt from the columns of `attempt_columns!`.
pub(super) fn attempt(columns: &mut Columns<'_>) -> rusqlite::Result<AttemptRecord> {
    Ok(AttemptRecord {
        number: columns.take()?,
        kind: columns.word(AttemptKind::from_word)?,
        outcome: columns.word(AttemptOutcome::from_word)?,
        status: columns.take()?,
        started_at: columns.time()?,
        granted_at: columns.steady()?,
        proved_at: columns.optional_steady()?,
        ended_at: columns.optional_time()?,
        error: columns.error()?,
    })
}

/// The tags as they are stored.
pub(super) fn tags_json(tags: &[String]) -> Option<String> {
    (!tags.is_empty()).then(|| serde_json::to_string(tags).expect("strings are always JSON"))
}

fn tags(stored: Option<String>) -> Option<Vec<String>> {
    stored.map_or_else(|| Some(Vec::new()), |json| serde_json::from_str(&json).ok())
}

/// A hop as it is stored.
pub(super) fn hop_json(hop: &HopRecord) -> String {
    let HopRecord { url, method, count, upstream, has_body, is_elsewhere, home_key } = hop;
    json!({
        "url": url, "method": method, "count": count, "upstream": upstream, "has_body": has_body,
        "is_elsewhere": is_elsewhere, "home_key": home_key,
    })
    .to_string()
}

fn hop(stored: Option<String>) -> Option<Option<HopRecord>> {
    let Some(stored) = stored else { return Some(None) };
    let stored: Value = serde_json::from_str(&stored).ok()?;
    let text = |name: &str| stored.get(name)?.as_str().map(str::to_owned);
    Some(Some(HopRecord {
        url: text("url")?,
        method: text("method")?,
        count: stored.get("count")?.as_u64().and_then(|count| u32::try_from(count).ok())?,
        upstream: text("upstream"),
        has_body: stored.get("has_body")?.as_bool()?,
        is_elsewhere: stored.get("is_elsewhere")?.as_bool()?,
        home_key: text("home_key")?,
    }))
}

/// The headers as they are stored: JSON, each value as ISO 8859-1 (RFC 9110, section 5.5: what it was in history).
pub(super) fn headers_json(headers: &[(String, Vec<u8>)]) -> String {
    let latin: Vec<(&str, String)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.iter().copied().map(char::from).collect())).collect();
    serde_json::to_string(&latin).expect("strings are always JSON")
}

/// The headers that were stored so, or nothing for anything else.
pub(super) fn headers(json: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let latin: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    let bytes = |value: String| value.chars().map(|byte| u8::try_from(byte).ok()).collect::<Option<Vec<u8>>>();
    latin.into_iter().map(|(name, value)| Some((name, bytes(value)?))).collect()
}

pub(super) fn file(columns: &mut Columns<'_>) -> rusqlite::Result<Option<FileIdentity>> {
    let name = columns.take::<Option<_>>()?;
    let device = columns.take::<Option<i64>>()?;
    let inode = columns.take::<Option<i64>>()?;
    let changed_ns = columns.take::<Option<i64>>()?;
    Ok(match (name, device, inode, changed_ns) {
        (Some(name), Some(device), Some(inode), Some(changed_ns)) => {
            Some(FileIdentity { name, device: device.cast_unsigned(), inode: inode.cast_unsigned(), changed_ns })
        }
        _ => None,
    })
}

fn idempotency(columns: &mut Columns<'_>) -> rusqlite::Result<Option<IdempotencyRecord>> {
    let (scope, key, digest) =
        (columns.take::<Option<_>>()?, columns.take::<Option<_>>()?, columns.take::<Option<_>>()?);
    Ok(match (scope, key, digest) {
        (Some(scope), Some(key), Some(digest)) => Some(IdempotencyRecord { scope, key, digest }),
        _ => None,
    })
}

fn damaged(index: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, "not a value that farcall writes".into())
}
