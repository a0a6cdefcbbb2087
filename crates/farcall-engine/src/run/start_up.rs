//! Setting the loop up: its threads, its channels, its state as recovery left it.
//!
//! Nothing is sent before the loop runs: what recovery decided is written first.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use farcall_core::dispatcher::Dispatcher;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_crash::{self as crash, Point};
use farcall_store::port::{ReadError, Reader, Store};
use farcall_store::record::Recovery;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::announce::{Announcer, SpaceAnnouncer};
use super::attempts::Surroundings;
use super::counts::Counts;
use super::damage::DamagedCalls;
use super::documents::Documents;
use super::forwards::{Forwards, Leaving};
use super::news::News;
use super::pending::Pending;
use super::recover::{self, Clocks, Rebuilt};
use super::runners::Runners;
use super::storage::Storage;
use super::watchers::Watchers;
use super::{Message, Run, Stats};
use crate::clock;
use crate::config::{Config, Live};
use crate::execute::process::Spawner;
use crate::filing::FilingQueue;
use crate::forward::Places;
use crate::handle::{Handle, Snapshot};
use crate::journal::Journal;
use crate::keeper::{Keeper, Keeping};
use crate::metrics::Metrics;
use crate::reads::Reads;
use crate::result_file::{FileError, Filing};
use crate::upstreams::UpstreamError;

/// Messages that may wait for the loop.
const MESSAGES_MAX: usize = 4_096;
/// Ends that may wait for whoever is told of them; who lags behind looks calls up.
const ENDS_MAX: usize = 16_384;
/// Readers for everybody but the loop and the filer.
const READERS: usize = 3;

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
    #[error(transparent)]
    File(#[from] FileError),
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
    pub(crate) filing: Arc<Filing>,
    /// Tells the inbox which files an earlier process took.
    pub(crate) taken_before: Box<dyn Reader>,
}

/// Whether the working directory has files of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallFiles {
    Kept,
    /// It is somebody else's, and left as it is.
    None,
}

/// Takes the store over and makes the loop.
pub(crate) fn start(store: Box<dyn Store>, options: Options) -> Result<Started, StartError> {
    start_with(store, options, CallFiles::Kept)
}

/// The same for a store that holds no call from a file.
pub(crate) fn start_without_files(store: Box<dyn Store>, options: Options) -> Result<Started, StartError> {
    start_with(store, options, CallFiles::None)
}

fn start_with(mut store: Box<dyn Store>, options: Options, files: CallFiles) -> Result<Started, StartError> {
    let recovery = store.take_over()?;
    let (mut reader, mut rng, now) = (store.reader()?, fastrand::Rng::new(), clock::now());
    let steady = go_on(store.as_mut(), &recovery, now)?;
    let filing = settled_filing(&options, now, &recovery, (reader.as_mut(), files))?;
    let Rebuilt { dispatcher, upstreams, own_callbacks, config, control } =
        recover::rebuild(&recovery, &options.config, reader.as_mut(), Clocks { now, steady }, rng.u64(..))?;
    let (live, (sender, messages)) = (Live::new(Arc::clone(&config)), mpsc::channel(MESSAGES_MAX));
    let reads = |count| Ok::<_, ReadError>(Arc::new(Reads::new(readers(store.as_ref(), count)?, live.clone(), steady)));
    let (reads, load_reads, prune_reads) = (reads(READERS)?, reads(1)?, reads(1)?);
    let filing_queue = filing_queue(&filing, store.reader()?, &sender, &recovery)?;
    let (taken_before, kept) = (store.reader()?, store.reader()?);
    let keeper = (files == CallFiles::Kept).then(|| keeper(&filing, kept, &live, steady)).transpose()?;
    let (journal, counts) = journal(store, &sender)?;
    let (spawner, damaged) = (spawner(options.launcher)?, DamagedCalls::met(recovery.damaged));
    let first = first_snapshot(&dispatcher, recovery.unfiled.len(), damaged.live());
    let around = Surroundings {
        directory: options.directory,
        filing: Arc::clone(&filing),
        config: Arc::clone(&config),
        reads,
        news: Arc::new(News::new(journal.writing().clone())),
    };
    let run = Run {
        config,
        live,
        around: Arc::new(around),
        heard: Vec::new(),
        dispatcher,
        journal,
        storage: Storage::default(),
        is_unpublished: true,
        unfiled: first.unfiled,
        messages,
        sender,
        snapshots: watch::Sender::new(first),
        ends: broadcast::Sender::new(ENDS_MAX),
        last_overview: Arc::new(OnceLock::new()),
        upstreams,
        control,
        steady,
        reader,
        load_reads,
        prune_reads,
        spawner,
        filing: Arc::clone(&filing),
        filing_queue,
        keeper,
        tasks: TaskTracker::new(),
        runners: Runners::default(),
        rng,
        documents: Documents::default(),
        own_callbacks,
        pending: Pending::default(),
        forwards: Forwards::default(),
        free_bytes: None,
        space_announcer: SpaceAnnouncer::default(),
        pruned_at: now.instant,
        stats: Stats::default(),
        counts,
        watchers: Watchers::default(),
        announcer: Announcer::default(),
        damaged,
        drains_until: None,
        store_failure: None,
    };
    Ok(Started { handle: handle_to(&run), run, filing, taken_before })
}

fn handle_to(run: &Run) -> Handle {
    Handle {
        messages: run.sender.clone(),
        snapshots: run.snapshots.subscribe(),
        news: run.watchers.events.sender(),
        operations: Arc::default(),
        reads: Arc::clone(&run.around.reads),
        config: run.live.clone(),
        ends: run.ends.downgrade(),
        last_overview: Arc::clone(&run.last_overview),
        metrics: Arc::clone(run.counts.metrics()),
        inbox: None,
        places: Places::default(),
        leaving: Leaving(Arc::clone(&run.around.news)),
        inbox_waker: None,
    }
}

/// The files of calls, as an earlier process left them.
fn settled_filing(
    options: &Options,
    now: Now,
    recovery: &Recovery,
    (reader, files): (&mut dyn Reader, CallFiles),
) -> Result<Arc<Filing>, StartError> {
    let filing = Filing::new(&options.directory, now.timestamp.as_micros().unsigned_abs());
    if files == CallFiles::Kept {
        recover::settle_files(&filing, recovery, reader)?;
    }
    Ok(Arc::new(filing))
}

fn no_thread(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

fn spawner(launcher: PathBuf) -> Result<Arc<Spawner>, StartError> {
    Spawner::new(launcher).map(Arc::new).map_err(no_thread("start the spawning thread"))
}

fn first_snapshot(dispatcher: &Dispatcher, unfiled: usize, damaged: u64) -> Snapshot {
    let unfiled = u64::try_from(unfiled).unwrap_or(u64::MAX);
    Snapshot { census: dispatcher.durable_census(), unfiled, damaged, ..Snapshot::default() }
}

/// The writer's thread, and what counts how it does.
fn journal(store: Box<dyn Store>, sender: &mpsc::Sender<Message>) -> Result<(Journal, Counts), StartError> {
    let metrics = Arc::new(Metrics::new());
    let journal = Journal::start(store, sender.clone(), metrics.store_commit_seconds.clone());
    Ok((journal.map_err(no_thread("start the store's thread"))?, Counts::new(metrics)))
}

/// The filer, with what an earlier process did not file.
fn filing_queue(
    filing: &Arc<Filing>,
    reader: Box<dyn Reader>,
    sender: &mpsc::Sender<Message>,
    recovery: &Recovery,
) -> Result<FilingQueue, StartError> {
    let queue = FilingQueue::start(Arc::clone(filing), reader, sender.clone());
    let queue = queue.map_err(no_thread("start the filing thread"))?;
    recovery.unfiled.iter().for_each(|call| queue.push_again(call.id));
    Ok(queue)
}

fn keeper(
    filing: &Arc<Filing>,
    reader: Box<dyn Reader>,
    live: &Live,
    steady: SteadyClock,
) -> Result<Keeper, StartError> {
    let keeping = Keeping { filing: Arc::clone(filing), reader, config: live.clone(), steady };
    Keeper::start(keeping).map_err(no_thread("start the keeper's thread"))
}

/// Steady time goes on where the store left it; what says how is durable before anything is stored by it.
fn go_on(store: &mut dyn Store, recovery: &Recovery, now: Now) -> Result<SteadyClock, ReadError> {
    let boot = clock::boot();
    let steady = SteadyClock::go_on(recovery.clock.as_ref(), recovery.latest, boot.as_deref(), now);
    let kept = steady.keep(boot.as_deref());
    if recovery.clock.as_ref() != Some(&kept) {
        store.keep_clock(&kept)?;
    }
    crash::reach(Point::ClockKept);
    Ok(steady)
}

fn readers(store: &dyn Store, count: usize) -> Result<Vec<Box<dyn Reader>>, ReadError> {
    (0..count).map(|_| store.reader()).collect()
}
