//! Taking over what the store holds: the dispatcher is rebuilt from it, and the files of its calls are set right.
//!
//! What an attempt that was out means is decided in the core; here records become what the core knows.
//!
//! What was out when an earlier process died is settled by the dispatcher before anything new is started.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::{CallSpec, CallbackOf, Method, Overrides, Priority, UpstreamId};
use farcall_core::dispatcher::{Census, Dispatcher, OpenAttempt, Recovered};
use farcall_core::id::CallId;
use farcall_core::settle::Tries;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_crash::{self as crash, Point};
use farcall_store::port::Reader;
use farcall_store::record::{CallRecord, Recovery};

use super::callbacks::{OwnCallbacks, OwnWebhook};
use super::submit::{Tenants, overrides};
use crate::config::Config;
use crate::document::{self, Routing, UpstreamRef};
use crate::result_file::{FileError, Filing};
use crate::upstreams::{Making, UpstreamError, Upstreams, command_policy};

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
    pub(super) tenants: Tenants,
    pub(super) own_callbacks: OwnCallbacks,
}

/// What recovery works on.
struct Rebuild<'a> {
    dispatcher: Dispatcher,
    upstreams: Upstreams,
    tenants: Tenants,
    own_callbacks: OwnCallbacks,
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
    let mut dispatcher = Dispatcher::new(command_policy(), seed);
    dispatcher.restore_census(census(recovery));
    let upstreams = Upstreams::new(Arc::clone(config), clocks.steady);
    let (tenants, own_callbacks) = (Tenants::default(), OwnCallbacks::default());
    let mut rebuild = Rebuild { dispatcher, upstreams, tenants, own_callbacks, reader, config, clocks };
    rebuild.with_upstreams(|upstreams, making| upstreams.declare_all(making))?;
    rebuild.restore(recovery)?;
    let Rebuild { dispatcher, upstreams, tenants, own_callbacks, .. } = rebuild;
    crash::reach(Point::Rebuilt);
    Ok(Rebuilt { dispatcher, upstreams, tenants, own_callbacks })
}

/// Sets the files of calls that are not filed yet right: out of the inbox, and every name with its owner.
///
/// A file whose call is durable must be gone before anything is filed, or it would be a new call next time.
pub(super) fn settle_files(filing: &Filing, recovery: &Recovery) -> Result<(), FileError> {
    let mut unfiled: Vec<&CallRecord> = recovery.live.iter().chain(&recovery.unfiled).collect();
    unfiled.sort_unstable_by_key(|record| record.id);
    let files: Vec<_> = unfiled.iter().filter_map(|record| Some((record.file.as_ref()?, record.id))).collect();
    filing.clear_inbox(files.iter().map(|&(file, _)| file))?;
    filing.sweep()?;
    for (file, id) in files {
        filing.claim(&file.name, id);
    }
    crash::reach(Point::FilesSettled);
    Ok(())
}

impl Rebuild<'_> {
    fn restore(&mut self, recovery: &Recovery) -> Result<(), UpstreamError> {
        let mut open: HashMap<CallId, Vec<OpenAttempt>> = HashMap::new();
        for (call, attempt) in &recovery.open_attempts {
            open.entry(*call).or_default().push(OpenAttempt { number: attempt.number });
        }
        let unfiled: HashSet<CallId> = recovery.unfiled.iter().map(|record| record.id).collect();
        for record in &recovery.live {
            let upstream = self.upstream(record)?;
            let spec = self.spec(record, upstream, &unfiled)?;
            let progress = &record.progress;
            let tries = Tries { retries: progress.retries, requeues: progress.requeues, throttles: progress.throttles };
            let recovered = Recovered {
                spec,
                state: progress.state,
                tries,
                attempts: record.attempts,
                next_at: progress.next_at.map(|at| self.clocks.steady.instant(at)),
                open: open.remove(&record.id).unwrap_or_default(),
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
        let Some(record) = self.reader.call(call)? else { return Ok(()) };
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
        let is_callback = record.callback_of.is_some();
        if is_callback && record.url.is_empty() {
            return Ok(self.dispatcher.command_upstream());
        }
        let reference = match &record.upstream {
            Some(name) => UpstreamRef::Declared(name.clone()),
            None => UpstreamRef::Undeclared(record.limit_key.clone()),
        };
        self.with_upstreams(|upstreams, making| match is_callback {
            true => upstreams.webhooks_to(&reference, making),
            false => upstreams.resolve(&reference, making),
        })
    }

    fn spec(
        &mut self,
        record: &CallRecord,
        upstream: UpstreamId,
        unfiled: &HashSet<CallId>,
    ) -> Result<CallSpec, UpstreamError> {
        let document = if record.has_overrides { self.reader.request(record.id)? } else { None };
        Ok(CallSpec {
            id: record.id,
            upstream,
            source: record.source,
            method: Method::of(&record.method),
            priority: Priority::new(record.priority).unwrap_or_default(),
            tenant: self.tenants.id(record.tenant.as_deref()),
            cost: NonZeroU32::new(record.cost).unwrap_or(NonZeroU32::MIN),
            accepted_at: record.accepted_at,
            not_before: record.not_before.map(|at| self.clocks.steady.instant(at)),
            deadline: record.deadline.map(|at| self.clocks.steady.instant(at)),
            overrides: document.as_ref().and_then(|bytes| self.overrides(bytes)).map(Box::new),
            has_file: record.file.is_some(),
            callback: document.as_ref().map(|bytes| self.callback(record, bytes)).transpose()?.flatten(),
            callback_of: record.callback_of.map(|parent| CallbackOf { parent, held: unfiled.contains(&parent) }),
        })
    }

    /// The call's own settings, read from its document again. A document that the present configuration no longer
    /// understands has none; its attempt will say what is wrong.
    fn overrides(&self, bytes: &Bytes) -> Option<Overrides> {
        document::parse(bytes, &Routing::from(self.config)).ok().and_then(|document| overrides(&document))
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
