//! Starting: takes over what the store holds, rebuilds the dispatcher from it, and sets the loop up around it.
//!
//! What was out when an earlier process died is settled by the dispatcher before anything new is started.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::{CallSpec, CallbackOf, Method, Priority, UpstreamId};
use farcall_core::dispatcher::{Census, Dispatcher, OpenAttempt, Recovered};
use farcall_core::gate::Gate;
use farcall_core::id::CallId;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retry::{OnUnknown, RetryPolicy};
use farcall_core::settle::Tries;
use farcall_core::time::Now;
use farcall_store::port::{ReadError, Reader, Store};
use farcall_store::record::{CallRecord, Recovery};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::documents::Documents;
use super::submit::{Tenants, overrides};
use super::{Message, Run, Stats};
use crate::clock;
use crate::config::Config;
use crate::document::{self, Routing, UpstreamRef};
use crate::execute::process::Spawner;
use crate::filing::FilingQueue;
use crate::handle::{Handle, Snapshot};
use crate::inbox::left_behind;
use crate::journal::Journal;
use crate::reads::Reads;
use crate::upstreams::{UpstreamError, Upstreams};

/// Messages that may wait for the loop.
const MESSAGES_MAX: usize = 4_096;
/// Readers for everybody but the loop and the filer.
const READERS: usize = 3;
/// Callbacks at a time, and how long each may take.
const CALLBACK_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(60);
const CALLBACK_RETRIES: u32 = 4;

/// What an engine needs besides its store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The working directory, absolute.
    pub directory: PathBuf,
    pub config: Arc<Config>,
    /// This program's own file, which starts callbacks when it is given `__launch`.
    pub launcher: PathBuf,
}

/// Why an engine did not start. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// A loop that is ready to run, and the way to talk to it.
pub(crate) struct Started {
    pub(crate) run: Run,
    pub(crate) handle: Handle,
    pub(crate) messages: mpsc::Sender<Message>,
}

/// What recovery works on.
struct Rebuild<'a> {
    dispatcher: Dispatcher,
    upstreams: Upstreams,
    tenants: Tenants,
    reader: &'a mut dyn Reader,
    config: &'a Config,
    now: Now,
}

/// Takes the store over and makes the loop.
pub(crate) fn start(mut store: Box<dyn Store>, options: Options) -> Result<Started, StartError> {
    let io = |what| move |source| StartError::Io { what, source };
    let recovery = store.take_over()?;
    let mut reader = store.reader()?;
    let now = clock::now();
    let mut rng = fastrand::Rng::new();
    // Before anything is filed: a file whose call is durable must be gone, or it would be a new call next time.
    left_behind(&options.directory, &recovery).map_err(io("remove files of accepted calls from the inbox"))?;

    let config = Arc::clone(&options.config);
    let mut dispatcher = Dispatcher::new(callback_policy(), rng.u64(..));
    dispatcher.restore_census(census(&recovery));
    let upstreams = Upstreams::new(Arc::clone(&config));
    let mut rebuild =
        Rebuild { dispatcher, upstreams, tenants: Tenants::default(), reader: reader.as_mut(), config: &config, now };
    rebuild.upstreams.declare_all(&mut rebuild.dispatcher, rebuild.reader, now)?;
    rebuild.restore(&recovery)?;
    let Rebuild { dispatcher, upstreams, tenants, .. } = rebuild;

    let readers = (0..READERS).map(|_| store.reader()).collect::<Result<Vec<_>, _>>()?;
    let reads = Arc::new(Reads::new(readers, Arc::clone(&config)));
    let (sender, messages) = mpsc::channel(MESSAGES_MAX);
    let filing = FilingQueue::start(options.directory.clone(), store.reader()?, sender.clone())
        .map_err(io("start the filing thread"))?;
    for call in &recovery.unfiled {
        filing.push(call.id);
    }
    let journal = Journal::start(store, sender.clone()).map_err(io("start the store's thread"))?;
    let spawner = Spawner::new(options.launcher).map_err(io("start the spawning thread"))?;
    let (snapshots, watched) = watch::channel(Snapshot { census: dispatcher.census(), ..Snapshot::default() });
    let handle =
        Handle { messages: sender.clone(), snapshots: watched, reads: Arc::clone(&reads), config: Arc::clone(&config) };
    let run = Run {
        config,
        directory: options.directory,
        dispatcher,
        gate: Gate::default(),
        journal,
        in_commit: None,
        messages,
        sender: sender.clone(),
        snapshots,
        upstreams,
        reader,
        reads,
        spawner: Arc::new(spawner),
        filing,
        tasks: TaskTracker::new(),
        rng,
        tenants,
        documents: Documents::default(),
        inserts: HashMap::new(),
        unacknowledged: HashMap::new(),
        keys: HashMap::new(),
        reports: HashMap::new(),
        running: HashMap::new(),
        cut_early: HashSet::new(),
        in_inbox: HashSet::new(),
        ended_in_inbox: HashSet::new(),
        unfiled: u64::try_from(recovery.unfiled.len()).unwrap_or(u64::MAX),
        free_bytes: None,
        stats: Stats::default(),
        is_draining: false,
        store_failure: None,
    };
    Ok(Started { run, handle, messages: sender })
}

impl Rebuild<'_> {
    fn restore(&mut self, recovery: &Recovery) -> Result<(), StartError> {
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
                next_at: progress.next_at,
                is_throttled: matches!(progress.status, Some(429 | 503)) && progress.throttles > 0,
                open: open.remove(&record.id).unwrap_or_default(),
            };
            self.dispatcher.restore(self.now, recovered);
        }
        Ok(())
    }

    fn upstream(&mut self, record: &CallRecord) -> Result<UpstreamId, UpstreamError> {
        if record.callback_of.is_some() {
            return Ok(self.dispatcher.callback_upstream());
        }
        let reference = match &record.upstream {
            Some(name) => UpstreamRef::Declared(name.clone()),
            None => UpstreamRef::Undeclared(record.limit_key.clone()),
        };
        self.upstreams.resolve(&reference, &mut self.dispatcher, self.reader, self.now)
    }

    fn spec(
        &mut self,
        record: &CallRecord,
        upstream: UpstreamId,
        unfiled: &HashSet<CallId>,
    ) -> Result<CallSpec, ReadError> {
        let overrides = if record.has_overrides { self.overrides(record)? } else { None };
        Ok(CallSpec {
            id: record.id,
            upstream,
            source: record.source,
            method: Method::of(&record.method),
            priority: Priority::new(record.priority).unwrap_or_default(),
            tenant: self.tenants.id(record.tenant.as_deref()),
            cost: NonZeroU32::new(record.cost).unwrap_or(NonZeroU32::MIN),
            accepted_at: record.accepted_at,
            not_before: record.not_before,
            deadline: record.deadline,
            overrides,
            has_file: record.file.is_some(),
            callback_of: record.callback_of.map(|parent| CallbackOf { parent, held: unfiled.contains(&parent) }),
        })
    }

    /// The call's own settings, read from its document again. A document that the present configuration no longer
    /// understands has none; its attempt will say what is wrong.
    fn overrides(&mut self, record: &CallRecord) -> Result<Option<Box<farcall_core::call::Overrides>>, ReadError> {
        let bytes = self.reader.request(record.id)?.unwrap_or_default();
        let document = document::parse(&bytes, &Routing::from(self.config)).ok();
        Ok(document.and_then(|document| overrides(&document)).map(Box::new))
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
