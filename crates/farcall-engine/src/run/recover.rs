//! Taking over what the store holds: the dispatcher is rebuilt from it, and the files of its calls are set right.
//!
//! What an attempt that was out means is decided in the core; here records become what the core knows.
//!
//! What was out when an earlier process died is settled by the dispatcher before anything new is started.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::{Census, Dispatcher, OpenAttempt, Recovered};
use farcall_core::id::CallId;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retry::{OnUnknown, RetryPolicy};
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_crash::{self as crash, Point};
use farcall_store::port::{ReadError, Reader};
use farcall_store::record::{CallRecord, LaneName, LaneRecord, Recovery};

use super::load;
use super::start_up::StartError;
use crate::config::Config;
use crate::document::{self, Document, Routing, UpstreamRef};
use crate::result_file::Filing;
use crate::upstreams::{UpstreamError, Upstreams};

/// Callbacks at a time, and how long each may take.
const CALLBACK_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(60);
const CALLBACK_RETRIES: u32 = 4;

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
}

/// What recovery works on.
struct Rebuild<'a> {
    dispatcher: Dispatcher,
    upstreams: Upstreams,
    reader: &'a mut dyn Reader,
    config: &'a Config,
    clocks: Clocks,
}

/// Rebuilds the dispatcher from what the store holds: limits as they were left, calls as they stood.
pub(super) fn rebuild(
    recovery: &Recovery,
    config: &Arc<Config>,
    reader: &mut dyn Reader,
    clocks: Clocks,
    seed: u64,
) -> Result<Rebuilt, UpstreamError> {
    let mut dispatcher = Dispatcher::new(callback_policy(), seed);
    dispatcher.restore_census(census(recovery));
    let upstreams = Upstreams::new(Arc::clone(config), clocks.steady);
    let mut rebuild = Rebuild { dispatcher, upstreams, reader, config, clocks };
    rebuild.upstreams.declare_all(&mut rebuild.dispatcher, rebuild.reader, clocks.now)?;
    rebuild.restore(recovery)?;
    let Rebuild { dispatcher, upstreams, .. } = rebuild;
    crash::reach(Point::Rebuilt);
    Ok(Rebuilt { dispatcher, upstreams })
}

/// Sets the files of calls that are not filed yet right: out of the inbox, and the names of ended ones with their
/// owners. The inbox is looked at and not the calls, however many there are.
///
/// A file whose call is durable must be gone before anything is filed, or it would be a new call next time.
pub(super) fn settle_files(filing: &Filing, recovery: &Recovery, reader: &mut dyn Reader) -> Result<(), StartError> {
    let mut left = Vec::new();
    for name in filing.inbox_names()? {
        left.extend(reader.unfiled(&name)?.into_iter().map(|(_, file)| file));
    }
    filing.clear_inbox(&left)?;
    filing.sweep()?;
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
            let document = if record.has_overrides { self.document(record)? } else { None };
            let is_held = record.callback_of.is_some_and(|parent| unfiled.contains(&parent));
            let recovered = Recovered {
                open: open.remove(&record.id).unwrap_or_default(),
                ..load::recovered(record, upstream, self.clocks.steady, document.as_ref(), is_held)
            };
            self.dispatcher.restore(self.clocks.now, recovered);
        }
        Ok(())
    }

    fn upstream(&mut self, record: &CallRecord) -> Result<UpstreamId, UpstreamError> {
        match load::reference(record) {
            Some(reference) => self.resolve(&reference),
            None => Ok(self.dispatcher.command_upstream()),
        }
    }

    /// A lane has the limit key alone. Names of declared upstreams never look like an origin.
    fn upstream_of_lane(&mut self, lane: &LaneName) -> Result<UpstreamId, UpstreamError> {
        if lane.of_callbacks {
            return Ok(self.dispatcher.command_upstream());
        }
        let key = lane.limit_key.clone();
        let is_origin = key.contains("://");
        self.resolve(&if is_origin { UpstreamRef::Undeclared(key) } else { UpstreamRef::Declared(key) })
    }

    fn resolve(&mut self, reference: &UpstreamRef) -> Result<UpstreamId, UpstreamError> {
        self.upstreams.resolve(reference, &mut self.dispatcher, self.reader, self.clocks.now)
    }

    /// The call's document, read again. One that the present configuration no longer understands is nothing; its
    /// attempt will say what is wrong.
    fn document(&mut self, record: &CallRecord) -> Result<Option<Document>, ReadError> {
        let bytes = self.reader.request(record.id)?.unwrap_or_default();
        Ok(document::parse(&bytes, &Routing::from(self.config)).ok())
    }
}

/// Callbacks: 5 tries with the default backoff, 60 s each, 4 at a time, at least once.
fn callback_policy() -> UpstreamPolicy {
    UpstreamPolicy {
        concurrency: Some(CALLBACK_CONCURRENCY),
        timeout: CALLBACK_TIMEOUT,
        retry: RetryPolicy { max: CALLBACK_RETRIES, ..RetryPolicy::durable() },
        on_unknown: Some(OnUnknown::Retry),
        ..UpstreamPolicy::default()
    }
}

fn census(recovery: &Recovery) -> Census {
    let totals = &recovery.totals;
    Census::new(totals.accepted, totals.pruned, totals.calls)
}
