//! The reader: a connection of its own that cannot write, and the files of large bodies.
//!
//! Each query is one snapshot. None is held between queries, so a slow client never keeps the log from being
//! checkpointed.

use std::io;

use bytes::Bytes;
use farcall_core::call::Via;
use farcall_core::id::CallId;
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::bodies::{Bodies, Part};
use super::error::unread;
use super::legible::{self, is_damage};
use super::row::{self, Columns, attempt_columns, blob, call_columns, open_attempt_columns};
use super::sum::{self, Answer};
use super::{grants, list, prune};
use crate::port::{
    CallsAsk, EndedRange, Granted, GrantsAsk, LaneRange, Legible, ListAsk, Listed, ReadError, Reader, WaitingAsk,
    WaitingCalls, as_many_as_fit,
};
use crate::record::{
    AttemptRecord, CallRecord, Damaged, EndedRecord, FileIdentity, LaneName, OutcomeRecord, RequestRecord,
    ResponseRecord,
};

/// Reads committed data of one store.
#[derive(Debug)]
pub(super) struct SqliteReader {
    connection: Connection,
    bodies: Bodies,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl SqliteReader {
    pub(super) const fn new(connection: Connection, bodies: Bodies) -> Self {
        Self { connection, bodies }
    }

    /// The body of a row, or that of the file it stands in; nothing when its call was pruned since the row was read.
    fn body(&self, id: CallId, part: Part, inline: Option<Vec<u8>>) -> Result<Option<Bytes>, Failure> {
        let read = match inline {
            Some(body) => return Ok(Some(body.into())),
            None => self.bodies.read(id, part),
        };
        match read {
            Ok(body) => Ok(Some(body.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.knows(id)? => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn knows(&self, id: CallId) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM calls WHERE id = ?1")?;
        Ok(statement.query_row([blob(id)], |_| Ok(())).optional()?.is_some())
    }

    fn stored_call(&self, id: CallId) -> rusqlite::Result<Option<CallRecord>> {
        const SQL: &str = concat!("SELECT ", call_columns!(), " FROM call_records WHERE id = ?1");
        self.connection.prepare_cached(SQL)?.query_row([blob(id)], row::call).optional()
    }

    fn stored_outcome(&self, id: CallId) -> Result<Option<OutcomeRecord>, Failure> {
        let Some(call) = self.stored_call(id)? else { return Ok(None) };
        let document = self.stored_request(id)?.unwrap_or_default();
        Ok(Some(OutcomeRecord { call, document, response: self.stored_response(id)? }))
    }

    fn stored_request(&self, id: CallId) -> Result<Option<Bytes>, Failure> {
        let stored: Option<(Option<Vec<u8>>, u32)> = self
            .connection
            .prepare_cached("SELECT body, sum FROM requests WHERE call = (SELECT seq FROM calls WHERE id = ?1)")?
            .query_row([blob(id)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((inline, stored_sum)) = stored else { return Ok(None) };
        let Some(body) = self.body(id, Part::Request, inline)? else { return Ok(None) };
        sum::check("request", sum::of_request(id, &body), stored_sum)?;
        Ok(Some(body))
    }

    fn stored_keyed(&self, scope: &str, key: &str) -> rusqlite::Result<Option<CallRecord>> {
        const SQL: &str = concat!("SELECT ", call_columns!(), " FROM call_records WHERE key_scope = ?1 AND key = ?2");
        self.connection.prepare_cached(SQL)?.query_row([scope, key], row::call).optional()
    }

    /// In one snapshot, for the price of one transaction. A damaged one counts as gone, so that it fails its own call and
    /// no other.
    fn stored_requests(&self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, Failure> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut statement = snapshot.prepare_cached(REQUESTS)?;
        let mut legible = Legible::whole(Vec::with_capacity(ids.len()));
        for &id in ids {
            let found = match self.stored_document(&mut statement, id) {
                Ok(found) => found,
                Err(error) if error.downcast_ref().is_some_and(|error| !is_damage(error)) => return Err(error),
                Err(error) if error.downcast_ref().is_some_and(passes) => return Err(error),
                Err(error) => {
                    legible.damaged.push(Damaged { call: Some(id), is_live: true, what: error.to_string() });
                    None
                }
            };
            legible.found.push(found);
        }
        drop(statement);
        drop(snapshot);
        // The file of a call that was pruned since the snapshot may be gone before its row is seen to be.
        legible.damaged.retain(|damaged| damaged.call.is_none_or(|id| self.knows(id).unwrap_or(true)));
        Ok(legible)
    }

    fn stored_document(&self, statement: &mut Statement<'_>, id: CallId) -> Result<Option<RequestRecord>, Failure> {
        let read = |row: &Row<'_>| Ok((Columns::new(row).word(Via::from_word)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let stored = statement.query_row([blob(id)], read).optional()?;
        let Some((via, inline, stored_sum, trace)) = stored else { return Ok(None) };
        let Some(document) = self.body(id, Part::Request, inline)? else { return Ok(None) };
        sum::check("request", sum::of_request(id, &document), stored_sum)?;
        Ok(Some(RequestRecord { via, document, trace }))
    }

    fn stored_response(&self, id: CallId) -> Result<Option<ResponseRecord>, Failure> {
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        let stored = self.connection.prepare_cached(RESPONSE)?.query_row([blob(id)], read).optional()?;
        let Some((status, headers, decoded, inline, stored_sum)) = stored else { return Ok(None) };
        let Some(body) = self.body(id, Part::Response, inline)? else { return Ok(None) };
        let answer = Answer { status, headers: &headers, decoded, body: &body };
        sum::check("response", sum::of_response(id, answer), stored_sum)?;
        let headers = row::headers(&headers).ok_or("the stored headers are damaged")?;
        Ok(Some(ResponseRecord { status, headers, body, decoded }))
    }

    fn stored_attempts(&self, id: CallId) -> rusqlite::Result<Vec<AttemptRecord>> {
        let mut statement = self.connection.prepare_cached(ATTEMPTS)?;
        statement.query_map([blob(id)], |row| row::attempt(&mut Columns::new(row)))?.collect()
    }

    /// All in one snapshot.
    fn stored_waiting(&mut self, asked: WaitingAsk<'_>) -> rusqlite::Result<Legible<WaitingCalls>> {
        let snapshot = self.connection.transaction()?;
        let lanes = lanes(&snapshot, asked.lanes)?;
        let expiring = if asked.expiring > 0 {
            legible::calls(&snapshot, EXPIRING, &[], asked.expiring)?
        } else {
            Legible::default()
        };
        let found = WaitingCalls { lanes: lanes.found, expiring: expiring.found };
        Ok(Legible { found, damaged: [lanes.damaged, expiring.damaged].concat() })
    }

    fn stored_unfiled(&self, name: &[u8]) -> rusqlite::Result<Vec<(CallId, FileIdentity)>> {
        let one = |row: &Row<'_>| {
            let mut columns = Columns::new(row);
            let (id, file) = (columns.id()?, row::file(&mut columns)?);
            Ok(file.map(|file| (id, file)))
        };
        let mut statement = self.connection.prepare_cached(UNFILED)?;
        let files = statement.query_map([name], one)?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(files.into_iter().flatten().collect())
    }
}

impl Reader for SqliteReader {
    fn calls(&mut self, asked: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        let found = match asked {
            CallsAsk::One(id) => self.stored_call(id).map_err(unread("a call"))?,
            CallsAsk::Keyed { scope, key } => self.stored_keyed(scope, key).map_err(unread("the call of a key"))?,
        };
        Ok(found.into_iter().collect())
    }

    /// In one snapshot: each begins with a look whether the database has changed, and then with an empty cache.
    fn outcomes(&mut self, ids: &[CallId], bytes_max: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
        let snapshot = self.connection.unchecked_transaction();
        if let Err(error) = snapshot {
            let first = ids.first().map(|_| Err(unread("outcomes")(error)));
            return first.into_iter().collect();
        }
        as_many_as_fit(ids.iter().map(|&id| self.stored_outcome(id).map_err(unread("an outcome"))), bytes_max)
    }

    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        self.stored_attempts(id).map_err(unread("attempts"))
    }

    fn requests(&mut self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError> {
        self.stored_requests(ids).map_err(unread("requests"))
    }

    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        self.stored_response(id).map_err(unread("a response"))
    }

    fn grants(&mut self, limit_key: &str, asked: &[GrantsAsk]) -> Result<Granted, ReadError> {
        grants::granted(&mut self.connection, limit_key, asked).map_err(unread("grants"))
    }

    fn waiting(&mut self, asked: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError> {
        self.stored_waiting(asked).map_err(unread("waiting calls"))
    }

    fn list(&mut self, ask: &ListAsk) -> Result<Listed, ReadError> {
        list::list(&self.connection, ask).map_err(unread("calls"))
    }

    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        self.bodies.remove_unneeded();
        prune::ended(&self.connection, range).map_err(unread("ended calls"))
    }

    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        self.stored_unfiled(name).map_err(unread("calls that are not filed"))
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        self.bodies.free_bytes().map_err(unread("the free space"))
    }

    /// Pages in use and the files of large bodies. The log is not counted: it is as long as is left until it is copied.
    fn stored_bytes(&mut self) -> Result<u64, ReadError> {
        let bodies = self.bodies.stored_bytes().map_err(unread("the size of the bodies"))?;
        let pages = page_bytes(&self.connection).map_err(unread("the size of the store"))?;
        Ok(u64::try_from(pages).unwrap_or(0).saturating_add(bodies))
    }
}

/// Bytes of the pages that are in use.
fn page_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    Ok((number("page_count")? - number("freelist_count")?).saturating_mul(number("page_size")?))
}

const ATTEMPTS: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM attempts WHERE call = (SELECT seq FROM calls WHERE id = ?1) UNION ALL SELECT ",
    open_attempt_columns!(),
    " FROM open_attempts WHERE call = (SELECT seq FROM calls WHERE id = ?1) ORDER BY number"
);

const REQUESTS: &str = "SELECT calls.via, requests.body, requests.sum, calls.trace FROM calls \
    JOIN requests ON requests.call = calls.seq WHERE calls.id = ?1";

const RESPONSE: &str =
    "SELECT status, headers, decoded, body, sum FROM responses WHERE call = (SELECT seq FROM calls WHERE id = ?1)";

/// The row comparison is what lets the key lead to the place.
const WAITING: &str = "SELECT call FROM waiting WHERE limit_key = ?1 AND of_callbacks = ?2 AND priority = ?3 \
     AND tenant_id = ?4 AND (ready_at, id) >= (?5, ?6) ORDER BY ready_at, id LIMIT ?7";

const EXPIRING: &str = "SELECT call FROM expiring ORDER BY deadline, id LIMIT ?1";

const UNFILED: &str = "SELECT id, file_name, file_device, file_inode, file_changed_ns \
    FROM unfiled INDEXED BY unfiled_by_name CROSS JOIN calls ON seq = call WHERE name = ?1 ORDER BY seq";

/// The calls of each range. Where one is damaged each is read by itself.
fn lanes(snapshot: &Connection, ranges: &[LaneRange]) -> rusqlite::Result<Legible<Vec<Vec<CallRecord>>>> {
    match waiting_in_order(snapshot, ranges) {
        Err(error) if is_damage(&error) => {}
        found => return found.map(Legible::whole),
    }
    let mut legible = Legible::whole(Vec::with_capacity(ranges.len()));
    for LaneRange { lane: LaneName { limit_key, of_callbacks, priority, tenant }, ready_at, call, count } in ranges {
        let (tenant, ready_at) = (tenant.0.cast_signed(), ready_at.as_micros());
        let values = params![limit_key, of_callbacks, priority, tenant, ready_at, blob(*call)];
        let Legible { found, damaged } = legible::calls(snapshot, WAITING, values, *count)?;
        legible.found.push(found);
        legible.damaged.extend(damaged);
    }
    Ok(legible)
}

/// The index alone tells who is in the ranges; then the calls are read in the order in which they stand in their table,
/// because those that came at the same time share its pages, and their lanes do not.
fn waiting_in_order(snapshot: &Connection, ranges: &[LaneRange]) -> rusqlite::Result<Vec<Vec<CallRecord>>> {
    let mut places = Vec::new();
    let mut statement = snapshot.prepare_cached(WAITING)?;
    for (lane, range) in ranges.iter().enumerate() {
        let LaneRange { lane: LaneName { limit_key, of_callbacks, priority, tenant }, ready_at, call, count } = range;
        let (tenant, ready_at) = (tenant.0.cast_signed(), ready_at.as_micros());
        let values = params![limit_key, of_callbacks, priority, tenant, ready_at, blob(*call), count];
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            places.push((row.get::<_, i64>(0)?, lane, places.len()));
        }
    }
    places.sort_unstable();
    let mut statement = snapshot.prepare_cached(legible::ONE)?;
    let mut calls = Vec::with_capacity(places.len());
    for (seq, lane, order) in places {
        calls.push((order, lane, statement.query_row([seq], row::call)?));
    }
    calls.sort_unstable_by_key(|&(order, ..)| order);
    let mut lanes: Vec<Vec<CallRecord>> = ranges.iter().map(|_| Vec::new()).collect();
    for (_, lane, call) in calls {
        lanes[lane].push(call);
    }
    Ok(lanes)
}

/// Whether a body file could not be read for want of something that may be there again the next moment.
fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}
