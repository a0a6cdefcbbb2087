//! Bringing in calls that wait in the store alone, when the dispatcher asks for them.
//!
//! They are read on a blocking thread, with their documents, so that their attempts need no read of their own. From
//! records to what the core knows is here too, for recovery and loads alike.

use std::num::NonZeroU32;
use std::sync::Arc;

use farcall_core::call::{CallSpec, CallbackOf, Method, Overrides, Priority, UpstreamId};
use farcall_core::dispatcher::{Event, LaneLoad, Loaded, Recovered, Wanted};
use farcall_core::id::CallId;
use farcall_core::lane::LaneId;
use farcall_core::settle::Tries;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{LaneRange, ReadError, Reader};
use farcall_store::record::{CallRecord, LaneName, RequestRecord};

use super::callbacks::{COMMAND_KEY, OwnWebhook};
use super::documents::Kept;
use super::submit::overrides;
use super::{Message, Run};
use crate::cause::chain;
use crate::clock;
use crate::config::Config;
use crate::document::{self, OwnCallback, Routing, UpstreamRef};
use crate::upstreams::{Making, Serves, UpstreamError, limit_key};

/// What was read for the dispatcher.
#[derive(Debug)]
pub(crate) struct Found {
    lanes: Vec<Vec<Waiting>>,
    deadlines: Vec<Waiting>,
    calls: Vec<Waiting>,
}

/// What is to be read, in the words of the store.
struct Asked {
    ranges: Vec<LaneRange>,
    deadlines: u32,
    calls: Vec<CallId>,
}

/// A call that waits, and its document with its length, unless it is a callback or not understood any more.
#[derive(Debug)]
struct Waiting {
    record: CallRecord,
    document: Option<(Arc<Kept>, usize)>,
    callback: Option<OwnCallback>,
}

/// What a call sets for itself.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) overrides: Option<Overrides>,
    /// Where its own callback goes.
    pub(super) callback: Option<UpstreamId>,
    /// It is a callback whose parent is not filed yet.
    pub(super) is_held: bool,
}

impl Run {
    /// Begins to read what the dispatcher wants.
    pub(super) fn load(&mut self) {
        let Some(wanted) = self.dispatcher.wanted() else { return };
        let (deadlines, calls) = (wanted.deadlines, wanted.calls.clone());
        let asked = Asked { ranges: self.ranges(wanted), deadlines, calls };
        let (reads, config) = (Arc::clone(&self.load_reads), Arc::clone(&self.config));
        let messages = self.sender.clone();
        self.tasks.spawn(async move {
            let reading = async move { reads.with(move |reader| read(reader, &config, &asked)).await };
            let found = tokio::spawn(reading).await.unwrap_or_else(|_| Err(broke_down()));
            // A loop that is gone needs nothing more.
            let _ = messages.send(Message::Loaded(found)).await;
        });
    }

    pub(super) fn loaded(&mut self, found: Result<Found, ReadError>) {
        let now = clock::now();
        let loaded = found.map_err(UpstreamError::from).and_then(|found| self.take_in(now, found));
        let event = match loaded {
            Ok(loaded) => Event::Loaded(Box::new(loaded)),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read waiting calls, trying again");
                Event::LoadFailed
            }
        };
        self.dispatcher.handle(now, event);
    }

    fn ranges(&self, wanted: &Wanted) -> Vec<LaneRange> {
        let range = |asked: &LaneLoad| {
            let known = self.upstreams.get(asked.upstream);
            let lane = LaneName {
                limit_key: known.map_or(COMMAND_KEY, |known| limit_key(&known.reference)).to_owned(),
                of_callbacks: known.is_none_or(|known| known.serves == Serves::Webhooks),
                priority: asked.lane.priority.level(),
                tenant: asked.lane.tenant,
            };
            let ready_at = self.steady.steady(asked.from.ready_at);
            LaneRange { lane, ready_at, call: asked.from.call, count: asked.count }
        };
        wanted.lanes.iter().map(range).collect()
    }

    fn take_in(&mut self, now: Now, found: Found) -> Result<Loaded, UpstreamError> {
        let Found { lanes, deadlines, calls } = found;
        let mut all = |calls: Vec<Waiting>| -> Result<Vec<Recovered>, UpstreamError> {
            calls.into_iter().filter_map(|waiting| self.take_in_one(now, waiting).transpose()).collect()
        };
        let lanes = lanes.into_iter().map(&mut all).collect::<Result<_, _>>()?;
        Ok(Loaded { lanes, deadlines: all(deadlines)?, calls: all(calls)? })
    }

    /// Nothing for a call whose upstream is not known, which cannot be: its lane is.
    fn take_in_one(&mut self, now: Now, waiting: Waiting) -> Result<Option<Recovered>, UpstreamError> {
        let Waiting { record, document, callback } = waiting;
        let upstream = match reference(&record) {
            Some((reference, serves)) => self.upstreams.find(&reference, serves),
            None => Some(self.dispatcher.command_upstream()),
        };
        let Some(upstream) = upstream else { return Ok(None) };
        let mut own = Own::default();
        if let Some(callback) = callback {
            let mut making = Making { dispatcher: &mut self.dispatcher, reader: self.reader.as_mut(), now };
            own.callback = Some(self.upstreams.webhooks_to(&callback.upstream, &mut making)?);
            self.own_callbacks.keep(record.id, OwnWebhook::new(&callback, record.via));
        }
        if let Some((kept, text_bytes)) = document {
            own.overrides = overrides(&kept.document).filter(|_| record.has_overrides);
            self.documents.keep(record.id, kept, text_bytes);
        }
        Ok(Some(recovered(&record, upstream, self.steady, own)))
    }
}

/// A call as the core knows it, without the attempts that were out.
pub(super) fn recovered(record: &CallRecord, upstream: UpstreamId, steady: SteadyClock, own: Own) -> Recovered {
    let progress = &record.progress;
    let Own { overrides, callback, is_held } = own;
    let spec = CallSpec {
        id: record.id,
        upstream,
        source: record.source,
        method: Method::of(&record.method),
        priority: Priority::new(record.priority).unwrap_or_default(),
        tenant: record.tenant_id,
        cost: NonZeroU32::new(record.cost).unwrap_or(NonZeroU32::MIN),
        accepted_at: record.accepted_at,
        not_before: record.not_before.map(|at| steady.instant(at)),
        deadline: record.deadline.map(|at| steady.instant(at)),
        overrides: overrides.map(Box::new),
        has_file: record.file.is_some(),
        callback,
        callback_of: record.callback_of.map(|parent| CallbackOf { parent, held: is_held }),
    };
    Recovered {
        spec,
        state: progress.state,
        tries: Tries { retries: progress.retries, requeues: progress.requeues, throttles: progress.throttles },
        attempts: record.attempts,
        ready_at: progress.ready_at.map(|at| steady.instant(at)),
        open: Vec::new(),
    }
}

/// Where a call goes, and as what; nothing for a callback that runs a command.
pub(crate) fn reference(record: &CallRecord) -> Option<(UpstreamRef, Serves)> {
    let is_callback = record.callback_of.is_some();
    if is_callback && record.url.is_empty() {
        return None;
    }
    let reference = match &record.upstream {
        Some(name) => UpstreamRef::Declared(name.clone()),
        None => UpstreamRef::Undeclared(record.limit_key.clone()),
    };
    Some((reference, if is_callback { Serves::Webhooks } else { Serves::Calls }))
}

pub(super) fn lane_id(lane: &LaneName) -> LaneId {
    LaneId { priority: Priority::new(lane.priority).unwrap_or_default(), tenant: lane.tenant }
}

fn read(reader: &mut dyn Reader, config: &Config, asked: &Asked) -> Result<Found, ReadError> {
    let Asked { ranges, deadlines, calls } = asked;
    let routing = Routing::from(config);
    let lanes = reader.waiting(ranges)?;
    let deadlines = if *deadlines > 0 { reader.expiring(*deadlines)? } else { Vec::new() };
    let calls = calls.iter().map(|&call| reader.call(call)).collect::<Result<Vec<_>, _>>()?;
    let calls = calls.into_iter().flatten().collect();
    let mut all = |records: Vec<CallRecord>| -> Result<Vec<Waiting>, ReadError> {
        let ids: Vec<CallId> = records.iter().map(|record| record.id).collect();
        let requests = reader.requests(&ids)?;
        Ok(records
            .into_iter()
            .zip(requests)
            .map(|(record, request)| with_document(&routing, record, request))
            .collect())
    };
    Ok(Found {
        lanes: lanes.into_iter().map(&mut all).collect::<Result<_, _>>()?,
        deadlines: all(deadlines)?,
        calls: all(calls)?,
    })
}

/// A read that panicked has failed like one that says so, or nothing would be loaded ever again.
fn broke_down() -> ReadError {
    ReadError { what: "waiting calls", source: "the read broke down".into() }
}

fn with_document(routing: &Routing<'_>, record: CallRecord, request: Option<RequestRecord>) -> Waiting {
    let Some(RequestRecord { via, document: bytes }) = request.filter(|_| record.callback_of.is_none()) else {
        return Waiting { record, document: None, callback: None };
    };
    let kept = |document| (Arc::new(Kept { document, via }), bytes.len());
    let document = document::parse(&bytes, routing).ok().map(kept);
    let callback = if record.has_overrides { document::callback_of(&bytes, routing) } else { None };
    Waiting { record, document, callback }
}
