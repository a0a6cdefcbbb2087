//! Taking over what the store holds: the dispatcher is rebuilt from it, and the files of its calls are set right.
//!
//! What an attempt that was out means is decided in the core; here records become what the core knows.
//!
//! What was out when an earlier process died is settled by the dispatcher before anything new is started.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::{Census, Dispatcher, OpenAttempt, Recovered};
use farcall_core::id::CallId;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_crash::{self as crash, Point};
use farcall_store::port::Reader;
use farcall_store::record::{CallRecord, LaneName, LaneRecord, Recovery, RequestRecord, UpstreamRecord};

use super::callbacks::{COMMAND_KEY, OwnCallbacks, OwnWebhook};
use super::control::{Control, Restored};
use super::load::{self, Own};
use super::prune;
use super::start_up::StartError;
use super::submit::overrides;
use crate::config::Config;
use crate::document::{self, Routing, UpstreamRef};
use crate::result_file::Filing;
use crate::upstreams::{Making, Serves, UpstreamError, Upstreams, command_policy};

/// The present, and how stored moments relate to it.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    pub(super) now: Now,
    pub(super) steady: SteadyClock,
}

/// What a rebuild comes to.
pub(super) struct Rebuilt {
    pub(super) dispatcher: Dispatcher,
    pub(super) upstreams: Upstreams,
    pub(super) own_callbacks: OwnCallbacks,
    /// As it holds, with what was patched.
    pub(super) config: Arc<Config>,
    pub(super) control: Control,
}

/// What recovery works on.
struct Rebuild<'a> {
    dispatcher: Dispatcher,
    upstreams: Upstreams,
    own_callbacks: OwnCallbacks,
    reader: &'a mut dyn Reader,
    config: &'a Config,
    clocks: Clocks,
    /// Calls that do not read back.
    damaged: HashSet<CallId>,
}

/// Rebuilds the dispatcher from what the store holds: limits as they were left, calls as they stood.
pub(super) fn rebuild(
    recovery: &Recovery,
    file: &Arc<Config>,
    reader: &mut dyn Reader,
    clocks: Clocks,
    seed: u64,
) -> Result<Rebuilt, UpstreamError> {
    let mut dispatcher = Dispatcher::new(command_policy(), seed);
    dispatcher.restore_census(census(recovery));
    let Restored { control, config, paused, changed } = Restored::of(&recovery.upstreams, file);
    let upstreams = Upstreams::new(Arc::clone(&config), clocks.steady, paused);
    let own_callbacks = OwnCallbacks::default();
    let damaged = recovery.damaged.iter().filter_map(|damaged| damaged.call).collect();
    let mut rebuild = Rebuild { dispatcher, upstreams, own_callbacks, reader, config: &config, clocks, damaged };
    rebuild.with_upstreams(|upstreams, making| upstreams.declare_all(making))?;
    rebuild.restore_settings(&recovery.upstreams, &changed)?;
    rebuild.restore(recovery)?;
    let Rebuild { mut dispatcher, upstreams, own_callbacks, .. } = rebuild;
    if recovery.open_grants > 0 {
        dispatcher.restore_grants(clocks.now);
    }
    dispatcher.set_retention(clocks.now.instant, prune::retention(&config, &clocks.steady));
    crash::reach(Point::Rebuilt);
    Ok(Rebuilt { dispatcher, upstreams, own_callbacks, config, control })
}

/// Sets the names of ended calls that are not filed yet right with their owners. What the inbox still holds of calls that
/// are durable is taken away as the inbox is read (`intake/leftovers.rs`), and before any of them is filed.
pub(super) fn settle_files(filing: &Filing, recovery: &Recovery, reader: &mut dyn Reader) -> Result<(), StartError> {
    filing.make_folders()?;
    for record in &recovery.unfiled {
        let Some(file) = &record.file else { continue };
        for (id, file) in reader.unfiled(&file.name)? {
            filing.claim(&file.name, id);
        }
    }
    crash::reach(Point::FilesSettled);
    Ok(())
}

impl Rebuild<'_> {
    /// Undeclared upstreams at which something is set are there from the start; what no longer holds is taken off the store.
    fn restore_settings(&mut self, records: &[UpstreamRecord], changed: &[String]) -> Result<(), UpstreamError> {
        for record in records {
            let is_origin = record.limit_key.contains("://");
            let key = record.limit_key.clone();
            let reference = if is_origin { UpstreamRef::Undeclared(key) } else { UpstreamRef::Declared(key) };
            if is_origin {
                self.resolve(&reference, Serves::Calls)?;
            }
            let id = self.upstreams.find(&reference, Serves::Calls);
            if let Some(id) = id.filter(|_| changed.contains(&record.limit_key)) {
                self.dispatcher.note_upstream(id, 0);
            }
        }
        Ok(())
    }

    fn restore(&mut self, recovery: &Recovery) -> Result<(), UpstreamError> {
        for LaneRecord { lane, waiting } in &recovery.lanes {
            let upstream = self.upstream_of_lane(lane)?;
            self.dispatcher.restore_lane(upstream, load::lane_id(lane), *waiting);
        }
        let mut open: HashMap<CallId, Vec<OpenAttempt>> = HashMap::new();
        for (call, attempt) in &recovery.open_attempts {
            open.entry(*call).or_default().push(OpenAttempt { number: attempt.number });
        }
        let unfiled: HashSet<CallId> = recovery.unfiled.iter().map(|record| record.id).collect();
        for record in &recovery.engaged {
            let upstream = self.upstream(record)?;
            let is_held = record.callback_of.is_some_and(|parent| unfiled.contains(&parent));
            let hop = self.with_upstreams(|upstreams, making| load::hop(record, upstreams, making))?;
            let own = Own { is_held, hop, ..self.own(record)? };
            let recovered = Recovered {
                open: open.remove(&record.id).unwrap_or_default(),
                ..load::recovered(record, upstream, self.clocks.steady, own)
            };
            self.dispatcher.restore(self.clocks.now, recovered);
        }
        for (call, attempts) in open {
            self.restore_losers(call, attempts)?;
        }
        Ok(())
    }

    /// Attempts that were out though their call had ended.
    fn restore_losers(&mut self, call: CallId, attempts: Vec<OpenAttempt>) -> Result<(), UpstreamError> {
        // One that does not read back was told of when the store was taken over; its attempts stay open.
        let is_damaged = self.damaged.contains(&call);
        let Some(record) = (if is_damaged { None } else { self.reader.call(call)? }) else { return Ok(()) };
        let upstream = self.upstream(&record)?;
        for attempt in attempts {
            self.dispatcher.restore_loser(self.clocks.now, call, upstream, attempt);
        }
        Ok(())
    }

    fn with_upstreams<T>(&mut self, make: impl FnOnce(&mut Upstreams, &mut Making<'_>) -> T) -> T {
        let Self { dispatcher, upstreams, reader, clocks, .. } = self;
        make(upstreams, &mut Making { dispatcher, reader: *reader, now: clocks.now })
    }

    fn upstream(&mut self, record: &CallRecord) -> Result<UpstreamId, UpstreamError> {
        match load::reference(record) {
            Some((reference, serves)) => self.resolve(&reference, serves),
            None => Ok(self.dispatcher.command_upstream()),
        }
    }

    /// A lane has the limit key alone. Names of declared upstreams never look like an origin.
    fn upstream_of_lane(&mut self, lane: &LaneName) -> Result<UpstreamId, UpstreamError> {
        let key = lane.limit_key.clone();
        if lane.of_callbacks && key == COMMAND_KEY {
            return Ok(self.dispatcher.command_upstream());
        }
        let is_origin = key.contains("://");
        let reference = if is_origin { UpstreamRef::Undeclared(key) } else { UpstreamRef::Declared(key) };
        self.resolve(&reference, if lane.of_callbacks { Serves::Webhooks } else { Serves::Calls })
    }

    fn resolve(&mut self, reference: &UpstreamRef, serves: Serves) -> Result<UpstreamId, UpstreamError> {
        self.with_upstreams(|upstreams, making| match serves {
            Serves::Webhooks => upstreams.webhooks_to(reference, making),
            Serves::Calls => upstreams.resolve(reference, making),
        })
    }

    /// The call's own settings, read from its document again. A document that is damaged, or that the present
    /// configuration no longer understands, has none; its attempt will say what is wrong.
    fn own(&mut self, record: &CallRecord) -> Result<Own, UpstreamError> {
        let wanted = record.has_overrides.then_some(record.id);
        let document = self.reader.requests(wanted.as_slice())?.found.pop().flatten();
        let Some(RequestRecord { document: bytes, .. }) = document else { return Ok(Own::default()) };
        let document = document::parse(&bytes, &Routing::from(self.config)).ok();
        let callback = self.callback(record, &bytes)?;
        Ok(Own { overrides: document.and_then(|document| overrides(&document)), callback, ..Own::default() })
    }

    /// Where the call's own callback goes.
    fn callback(&mut self, record: &CallRecord, bytes: &Bytes) -> Result<Option<UpstreamId>, UpstreamError> {
        let Some(own) = document::callback_of(bytes, &Routing::from(self.config)) else { return Ok(None) };
        self.own_callbacks.keep(record.id, OwnWebhook::new(&own, record.via));
        self.with_upstreams(|upstreams, making| upstreams.webhooks_to(&own.upstream, making)).map(Some)
    }
}

fn census(recovery: &Recovery) -> Census {
    let totals = &recovery.totals;
    Census::new(totals.accepted, totals.pruned, totals.calls)
}
