//! Bringing in calls that wait in the store alone, when the dispatcher asks for them.
//!
//! They are read on a blocking thread, with as many documents as fit, so that few attempts need a read of their own. From
//! records to what the core knows is here too, for recovery and loads alike.

use std::num::NonZeroU32;
use std::sync::Arc;

use farcall_core::call::{CallSpec, CallbackOf, Durability, Method, Overrides, Priority, UpstreamId};
use farcall_core::dispatcher::{Event, LaneLoad, Loaded, Recovered, Wanted};
use farcall_core::hop::Hop;
use farcall_core::id::CallId;
use farcall_core::lane::LaneId;
use farcall_core::settle::Tries;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{LaneRange, Legible, ReadError, Reader, WaitingAsk};
use farcall_store::record::{CallRecord, Damaged, LaneName, RequestRecord};

use super::callbacks::{COMMAND_KEY, OwnWebhook};
use super::documents::{Kept, kept_bytes};
use super::submit::overrides;
use super::{Message, Run};
use crate::cause::chain;
use crate::clock;
use crate::config::Config;
use crate::document::{self, OwnCallback, Routing, UpstreamRef};
use crate::upstreams::{Making, Serves, UpstreamError, Upstreams, limit_key};

/// Documents read in one snapshot.
const DOCUMENTS_TOGETHER: usize = 256;

/// What was read for the dispatcher.
#[derive(Debug)]
pub(crate) struct Found {
    lanes: Vec<Vec<Waiting>>,
    deadlines: Vec<Waiting>,
    calls: Vec<Waiting>,
    damaged: Vec<Damaged>,
}

/// What is to be read, in the words of the store.
struct Asked {
    ranges: Vec<LaneRange>,
    deadlines: u32,
    calls: Vec<CallId>,
    /// Bytes of documents that can be kept.
    room: usize,
}

/// A call that waits, and its document with its length, unless it is a callback, or not understood any more, or there is
/// no room for it.
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
    /// Where redirects have led it.
    pub(super) hop: Option<Hop>,
}

impl Run {
    /// Begins to read what the dispatcher wants.
    pub(super) fn load(&mut self) {
        let Some(wanted) = self.dispatcher.wanted() else { return };
        let (deadlines, calls) = (wanted.deadlines, wanted.calls.clone());
        let asked = Asked { ranges: self.ranges(wanted), deadlines, calls, room: self.documents.room() };
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
        self.forget_left();
        let mut called_back = Vec::new();
        let loaded = found.map_err(UpstreamError::from).and_then(|found| self.take_in(now, found, &mut called_back));
        let event = match loaded {
            Ok(loaded) => Event::Loaded(Box::new(loaded)),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read waiting calls, trying again");
                Event::LoadFailed
            }
        };
        self.dispatcher.handle(now, event);
        for call in called_back {
            if !self.dispatcher.is_loaded(call) && !self.dispatcher.is_ending(call) {
                self.own_callbacks.forget(call);
            }
        }
    }

    fn ranges(&self, wanted: &Wanted) -> Vec<LaneRange> {
        let range = |asked: &LaneLoad| {
            let lane = self.lane_name(asked.upstream, asked.lane);
            let ready_at = self.steady.steady(asked.from.ready_at);
            LaneRange { lane, ready_at, call: asked.from.call, count: asked.count }
        };
        wanted.lanes.iter().map(range).collect()
    }

    /// A lane in the words of the store.
    pub(super) fn lane_name(&self, upstream: UpstreamId, lane: LaneId) -> LaneName {
        let known = self.upstreams.get(upstream);
        LaneName {
            limit_key: known.map_or(COMMAND_KEY, |known| limit_key(&known.reference)).to_owned(),
            of_callbacks: known.is_none_or(|known| known.serves == Serves::Webhooks),
            priority: lane.priority.level(),
            tenant: lane.tenant,
        }
    }

    /// Adds the calls whose own callbacks it remembers.
    fn take_in(&mut self, now: Now, found: Found, called_back: &mut Vec<CallId>) -> Result<Loaded, UpstreamError> {
        let Found { lanes, deadlines, calls, damaged } = found;
        let has_gaps = !damaged.is_empty();
        if self.damaged.note(damaged) {
            self.publish();
        }
        let mut all = |calls: Vec<Waiting>| -> Result<Vec<Recovered>, UpstreamError> {
            calls.into_iter().filter_map(|waiting| self.take_in_one(now, waiting, called_back).transpose()).collect()
        };
        let lanes = lanes.into_iter().map(&mut all).collect::<Result<_, _>>()?;
        Ok(Loaded { lanes, deadlines: all(deadlines)?, calls: all(calls)?, has_gaps })
    }

    /// Nothing for a call whose upstream is not known, which cannot be: its lane is.
    fn take_in_one(
        &mut self,
        now: Now,
        waiting: Waiting,
        called_back: &mut Vec<CallId>,
    ) -> Result<Option<Recovered>, UpstreamError> {
        let Waiting { record, document, callback } = waiting;
        let mut making = Making { dispatcher: &mut self.dispatcher, reader: self.reader.as_mut(), now };
        let upstream = match reference(&record) {
            // Of one that redirects have led away the lane is another's.
            Some((reference, _)) if record.hop.is_some() => Some(self.upstreams.resolve(&reference, &mut making)?),
            Some((reference, serves)) => self.upstreams.find(&reference, serves),
            None => Some(making.dispatcher.command_upstream()),
        };
        let Some(upstream) = upstream else { return Ok(None) };
        let mut own = Own { hop: hop(&record, &mut self.upstreams, &mut making)?, ..Own::default() };
        if let Some(callback) = callback {
            own.callback = Some(self.upstreams.webhooks_to(&callback.upstream, &mut making)?);
            if self.own_callbacks.keep(record.id, OwnWebhook::new(&callback, record.via)) {
                called_back.push(record.id);
            }
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
    let Own { overrides, callback, is_held, hop } = own;
    let spec = CallSpec {
        id: record.id,
        upstream,
        source: record.source,
        durability: Durability::Durable,
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
        hop,
        tries: Tries {
            retries: progress.retries,
            requeues: progress.requeues,
            throttles: progress.throttles,
            deaths: progress.deaths,
            orphaned: progress.orphaned,
        },
        attempts: record.attempts,
        ready_at: progress.ready_at.map(|at| steady.instant(at)),
        is_cancel_requested: record.cancel_requested,
        open: Vec::new(),
    }
}

/// The upstream that a call belongs to, and as what; nothing for a callback that runs a command.
pub(super) fn reference(record: &CallRecord) -> Option<(UpstreamRef, Serves)> {
    let is_callback = record.callback_of.is_some();
    if is_callback && record.url.is_empty() {
        return None;
    }
    let reference = match &record.upstream {
        Some(name) => UpstreamRef::Declared(name.clone()),
        None => UpstreamRef::Undeclared(record.home_key().to_owned()),
    };
    Some((reference, if is_callback { Serves::Webhooks } else { Serves::Calls }))
}

/// The upstream that it goes to next: its own, or that of where redirects have led it.
pub(crate) fn next_reference(record: &CallRecord) -> Option<(UpstreamRef, Serves)> {
    match hop_reference(record) {
        Some(there) => Some((there, Serves::Calls)),
        None => reference(record),
    }
}

/// Where redirects have led a call.
pub(super) fn hop(
    record: &CallRecord,
    upstreams: &mut Upstreams,
    making: &mut Making<'_>,
) -> Result<Option<Hop>, UpstreamError> {
    let (Some(there), Some(hop)) = (hop_reference(record), &record.hop) else { return Ok(None) };
    let upstream = upstreams.resolve(&there, making)?;
    Ok(Some(Hop { upstream, method: Method::of(&hop.method), count: hop.count }))
}

fn hop_reference(record: &CallRecord) -> Option<UpstreamRef> {
    let declared = record.hop.as_ref()?.upstream.clone();
    Some(declared.map_or_else(|| UpstreamRef::Undeclared(record.limit_key.clone()), UpstreamRef::Declared))
}

pub(super) fn lane_id(lane: &LaneName) -> LaneId {
    LaneId { priority: Priority::new(lane.priority).unwrap_or_default(), tenant: lane.tenant }
}

fn read(reader: &mut dyn Reader, config: &Config, asked: &Asked) -> Result<Found, ReadError> {
    let Asked { ranges, deadlines, calls, room } = asked;
    let Legible { found, mut damaged } = reader.waiting(WaitingAsk { lanes: ranges, expiring: *deadlines })?;
    let mut single = |&call: &CallId| {
        let gone = |error: ReadError| Damaged { call: Some(call), is_live: true, what: chain(&error) };
        reader.call(call).unwrap_or_else(|error| {
            damaged.push(gone(error));
            None
        })
    };
    let calls = calls.iter().filter_map(&mut single).collect();
    let mut found = Found {
        lanes: found.lanes.into_iter().map(waiting).collect(),
        deadlines: waiting(found.expiring),
        calls: waiting(calls),
        damaged,
    };
    found.read_documents(reader, &Routing::from(config), *room)?;
    Ok(found)
}

fn waiting(records: Vec<CallRecord>) -> Vec<Waiting> {
    records.into_iter().map(|record| Waiting { record, document: None, callback: None }).collect()
}

impl Found {
    /// Reads the documents that the calls' own settings are in, and of the others as many as will be kept. In the order
    /// of their ids they are nearly in that of the store, where neighbours share a page.
    fn read_documents(&mut self, reader: &mut dyn Reader, routing: &Routing<'_>, room: usize) -> Result<(), ReadError> {
        let lanes = self.lanes.iter_mut().flatten();
        let all = lanes.chain(&mut self.deadlines).chain(&mut self.calls);
        let mut all: Vec<&mut Waiting> = all.filter(|waiting| waiting.record.callback_of.is_none()).collect();
        all.sort_unstable_by_key(|waiting| waiting.record.id);
        let mut kept_bytes = 0;
        for together in all.chunks_mut(DOCUMENTS_TOGETHER) {
            let has_room = kept_bytes < room;
            let mut wanted: Vec<&mut Waiting> = together
                .iter_mut()
                .map(|waiting| &mut **waiting)
                .filter(|waiting| has_room || waiting.record.has_overrides)
                .collect();
            let ids: Vec<CallId> = wanted.iter().map(|waiting| waiting.record.id).collect();
            for (waiting, stored) in wanted.iter_mut().zip(reader.requests(&ids)?.found) {
                kept_bytes += stored.map_or(0, |stored| waiting.understand(stored, routing));
            }
        }
        Ok(())
    }
}

impl Waiting {
    /// Gives what it takes to keep the document.
    fn understand(&mut self, request: RequestRecord, routing: &Routing<'_>) -> usize {
        let kept = Kept::read(&request, routing).ok();
        let bytes = request.document;
        self.document = kept.map(|kept| (Arc::new(kept), bytes.len()));
        if self.record.has_overrides {
            self.callback = document::callback_of(&bytes, routing);
        }
        kept_bytes(bytes.len())
    }
}

/// A read that panicked has failed like one that says so, or nothing would be loaded ever again.
fn broke_down() -> ReadError {
    ReadError { what: "waiting calls", source: "the read broke down".into() }
}
