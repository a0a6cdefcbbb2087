//! Bringing in calls that wait in the store alone, when the dispatcher asks for them.
//!
//! They are read on a blocking thread, with their documents, so that their attempts need no read of their own. From
//! records to what the core knows is here too, for recovery and loads alike.

use std::num::NonZeroU32;
use std::sync::Arc;

use farcall_core::call::{CallSpec, CallbackOf, Method, Priority, UpstreamId};
use farcall_core::dispatcher::{Event, Loaded, Recovered, Wanted};
use farcall_core::lane::LaneId;
use farcall_core::settle::Tries;
use farcall_core::steady::SteadyClock;
use farcall_store::port::{LaneRange, ReadError, Reader};
use farcall_store::record::{CallRecord, LaneName};

use super::documents::Kept;
use super::submit::overrides;
use super::writes::CALLBACK_KEY;
use super::{Message, Run};
use crate::cause::chain;
use crate::clock;
use crate::config::Config;
use crate::document::{self, Document, Routing, UpstreamRef};
use crate::upstreams::limit_key;

/// What was read for the dispatcher.
#[derive(Debug)]
pub(crate) struct Found {
    lanes: Vec<Vec<Waiting>>,
    deadlines: Vec<CallRecord>,
}

/// A call that waits, and its document with its length, unless it is a callback.
#[derive(Debug)]
struct Waiting {
    record: CallRecord,
    document: Option<(Document, usize)>,
}

impl Run {
    /// Begins to read what the dispatcher wants.
    pub(super) fn load(&mut self) {
        let Some(wanted) = self.dispatcher.wanted() else { return };
        let ranges = self.ranges(wanted);
        let deadlines = wanted.deadlines;
        let (reads, config) = (Arc::clone(&self.load_reads), Arc::clone(&self.config));
        let messages = self.sender.clone();
        self.tasks.spawn(async move {
            let reading = async move { reads.with(move |reader| read(reader, &config, &ranges, deadlines)).await };
            let found = tokio::spawn(reading).await.unwrap_or_else(|_| Err(broke_down()));
            // A loop that is gone needs nothing more.
            let _ = messages.send(Message::Loaded(found)).await;
        });
    }

    pub(super) fn loaded(&mut self, found: Result<Found, ReadError>) {
        let now = clock::now();
        match found {
            Ok(found) => {
                let loaded = self.take_in(found);
                self.dispatcher.handle(now, Event::Loaded(Box::new(loaded)));
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read waiting calls, trying again");
                self.dispatcher.handle(now, Event::LoadFailed);
            }
        }
    }

    fn ranges(&self, wanted: &Wanted) -> Vec<LaneRange> {
        let key = |id: UpstreamId| self.upstreams.get(id).map_or(CALLBACK_KEY, |known| limit_key(&known.reference));
        let lanes = wanted.lanes.iter();
        lanes
            .map(|asked| {
                let lane = LaneName {
                    limit_key: key(asked.upstream).to_owned(),
                    of_callbacks: asked.upstream == self.dispatcher.command_upstream(),
                    priority: asked.lane.priority.level(),
                    tenant: asked.lane.tenant,
                };
                let ready_at = self.steady.steady(asked.from.ready_at);
                LaneRange { lane, ready_at, call: asked.from.call, count: asked.count }
            })
            .collect()
    }

    fn take_in(&mut self, found: Found) -> Loaded {
        let Found { lanes, deadlines } = found;
        let mut loaded = Loaded::default();
        for lane in lanes {
            loaded.lanes.push(lane.into_iter().filter_map(|waiting| self.take_in_one(waiting)).collect());
        }
        let due = deadlines.into_iter().map(|record| Waiting { record, document: None });
        loaded.deadlines = due.filter_map(|waiting| self.take_in_one(waiting)).collect();
        loaded
    }

    /// Nothing for a call whose upstream is not known, which cannot be: its lane is.
    fn take_in_one(&mut self, waiting: Waiting) -> Option<Recovered> {
        let Waiting { record, document } = waiting;
        let upstream = match reference(&record) {
            Some(reference) => self.upstreams.find(&reference)?,
            None => self.dispatcher.command_upstream(),
        };
        let own = document.as_ref().map(|(document, _)| document);
        let recovered = recovered(&record, upstream, self.steady, own, false);
        if let Some((document, text_bytes)) = document {
            self.documents.keep(record.id, Kept { document, via: record.via }, text_bytes);
        }
        Some(recovered)
    }
}

/// A call as the core knows it, without the attempts that were out.
pub(super) fn recovered(
    record: &CallRecord,
    upstream: UpstreamId,
    steady: SteadyClock,
    document: Option<&Document>,
    is_held: bool,
) -> Recovered {
    let progress = &record.progress;
    let own = document.filter(|_| record.has_overrides).and_then(overrides);
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
        overrides: own.map(Box::new),
        has_file: record.file.is_some(),
        callback: None,
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

/// The upstream of a call; nothing for a callback.
pub(crate) fn reference(record: &CallRecord) -> Option<UpstreamRef> {
    if record.callback_of.is_some() {
        return None;
    }
    Some(match &record.upstream {
        Some(name) => UpstreamRef::Declared(name.clone()),
        None => UpstreamRef::Undeclared(record.limit_key.clone()),
    })
}

pub(super) fn lane_id(lane: &LaneName) -> LaneId {
    LaneId { priority: Priority::new(lane.priority).unwrap_or_default(), tenant: lane.tenant }
}

fn read(reader: &mut dyn Reader, config: &Config, ranges: &[LaneRange], deadlines: u32) -> Result<Found, ReadError> {
    let routing = Routing::from(config);
    let mut lanes = Vec::with_capacity(ranges.len());
    for records in reader.waiting(ranges)? {
        let mut lane = Vec::with_capacity(records.len());
        for record in records {
            let document = if record.callback_of.is_some() { None } else { parsed(reader, &routing, &record)? };
            lane.push(Waiting { record, document });
        }
        lanes.push(lane);
    }
    let deadlines = if deadlines > 0 { reader.expiring(deadlines)? } else { Vec::new() };
    Ok(Found { lanes, deadlines })
}

/// A read that panicked has failed like one that says so, or nothing would be loaded ever again.
fn broke_down() -> ReadError {
    ReadError { what: "waiting calls", source: "the read broke down".into() }
}

fn parsed(
    reader: &mut dyn Reader,
    routing: &Routing<'_>,
    record: &CallRecord,
) -> Result<Option<(Document, usize)>, ReadError> {
    let bytes = reader.request(record.id)?.unwrap_or_default();
    Ok(document::parse(&bytes, routing).ok().map(|document| (document, bytes.len())))
}
