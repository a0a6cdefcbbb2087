//! The inbox: call files dropped into the working directory become calls.
//!
//! [`Intake`] watches the directory on a thread of its own and offers what it finds to the engine in batches. A file
//! leaves the inbox only when the engine says that its call is durable; files that are no valid call go to `rejected/`.
//! When to look at a file, and when to give it up, is decided in `ledger`; whether a call is accepted, by the engine.

mod batch;
mod casualties;
mod directory;
mod ledger;
mod leftovers;
mod look;
mod offered;
mod watch;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_store::port::Reader;
use farcall_store::record::FileIdentity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use tokio::sync::{mpsc, oneshot, watch as watched};

use crate::config::Live;
use crate::document::{Document, Rejection};
use crate::result_file::Filing;
use casualties::Casualties;
use directory::{Inbox, Owner};
use leftovers::Leftovers;

/// How often the directory is read in full, whatever the notifications said.
pub const RESCAN_INTERVAL: Duration = Duration::from_secs(5);
/// After a mistake of ours: when to begin anew.
const BROKE_DOWN_DELAY: Duration = Duration::from_secs(1);
/// The most files offered at once.
pub const OFFER_FILES_MAX: usize = 256;
/// The most bytes offered at once, unless a single file is larger.
pub const OFFER_BYTES_MAX: usize = 4 << 20;

/// What the inbox needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The working directory, an absolute path.
    pub dir: PathBuf,
    /// How often it is read in full; [`RESCAN_INTERVAL`] but in tests.
    pub rescan_interval: Duration,
    /// Upstreams, and the inbox's own settings.
    pub config: Live,
}

/// A valid call file.
#[derive(Debug)]
pub struct Found {
    pub file: FileIdentity,
    /// The file, as it is.
    pub bytes: Bytes,
    /// What it says.
    pub document: Document,
}

/// Files found together, and where to say what became of them.
#[derive(Debug)]
pub struct Offer {
    /// At most [`OFFER_FILES_MAX`].
    pub files: Vec<Found>,
    /// One verdict for each, in order. Dropped, or with another number of verdicts, all count as refused.
    pub verdicts: oneshot::Sender<Vec<Verdict>>,
}

/// What the engine made of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a call now, and durable: the file leaves the inbox.
    Taken(CallId),
    /// It was taken before a crash: it leaves the inbox too.
    Known(CallId),
    /// It is a valid document, and yet no valid call.
    Rejected(Rejection),
    /// An earlier call with its idempotency key has not ended yet: it alone stays, and is offered again.
    Awaited,
    /// Not now (no space, shutting down): it stays and is offered again.
    Refused,
}

/// How the inbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// How often the directory has been read in full.
    pub scans: u64,
    /// The last request of [`Intake::rescan`] that was made before the last full reading began.
    pub answered: u64,
    /// It is being read in full.
    pub is_scanning: bool,
    /// Files seen that are neither taken nor rejected yet, of those that will be.
    pub waiting: usize,
    pub taken: u64,
    pub rejected: u64,
    /// The engine cannot store what it was offered last; the files stay, and are offered again.
    pub is_refused: bool,
}

/// The watching thread, as its owner sees it.
#[derive(Debug)]
pub struct Intake {
    control: Arc<Control>,
    status: watched::Receiver<Status>,
    thread: JoinHandle<()>,
}

/// Makes the thread look round at once, for whatever may have changed.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<Control>);

impl Waker {
    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

/// What the owner tells the thread.
#[derive(Debug)]
struct Control {
    wake: OwnedFd,
    stop: AtomicBool,
    rescans_asked: AtomicU64,
}

impl Status {
    /// Nothing is left that the inbox could do by itself before another file arrives.
    pub const fn is_quiet(&self) -> bool {
        self.scans > 0 && !self.is_scanning && self.waiting == 0
    }
}

impl Intake {
    /// Begins to watch. Files already there are found by the first scan; those that the store, if there is one, knows as
    /// calls are taken away, the others offered.
    ///
    /// # Errors
    /// When the thread cannot be started. A directory that cannot be read is tried again, with a warning.
    pub fn spawn(
        settings: Settings,
        filing: Arc<Filing>,
        offers: mpsc::Sender<Offer>,
        store: Option<Box<dyn Reader>>,
    ) -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = Arc::new(Control { wake, stop: AtomicBool::new(false), rescans_asked: AtomicU64::new(0) });
        let (publish, status) = watched::channel(Status::default());
        let watched = Arc::clone(&control);
        let watch = move || {
            let casualties = Arc::new(Casualties::default());
            let (control, leftovers) = (Arc::clone(&watched), Leftovers::of(store));
            let owner = Owner { settings, filing, offers, publish, control, casualties, leftovers };
            // A mistake of ours costs what the thread had in mind, and no file: the next scan finds them all.
            loop {
                let mut inbox = Inbox::new(owner.clone());
                let is_done = catch_unwind(AssertUnwindSafe(|| inbox.run())).is_ok();
                // What the engine was offered before may be calls by now, and would be taken again.
                let _ = catch_unwind(AssertUnwindSafe(|| inbox.finish_offered()));
                if is_done || watched.is_stopping() {
                    break;
                }
                owner.casualties.break_down();
                tracing::error!("watching the inbox broke down, beginning anew");
                watched.wait(BROKE_DOWN_DELAY);
            }
        };
        let thread = std::thread::Builder::new().name("farcall-inbox".to_owned()).spawn(watch)?;
        Ok(Self { control, status, thread })
    }

    /// How the inbox stands, now and later.
    pub fn status(&self) -> watched::Receiver<Status> {
        self.status.clone()
    }

    /// Asks for a full reading at once; it is done when [`Status::answered`] has reached the number given.
    pub fn rescan(&self) -> u64 {
        let request = self.control.rescans_asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.control.wake();
        request
    }

    /// A way to make it look round at once.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.control))
    }

    /// Tells the thread to end. It does so after the offer it waits on is answered or dropped.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Release);
        self.control.wake();
    }

    /// Waits for the thread after [`Intake::stop`], or after the engine dropped its end of the offers. Blocks.
    ///
    /// # Panics
    /// When the thread panicked.
    pub fn join(self) {
        self.thread.join().expect("the inbox's thread does not panic");
    }
}

impl Control {
    fn wake(&self) {
        // Full means that a wake-up is on its way already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Sleeps so long, or until the owner says something.
    fn wait(&self, time: Duration) {
        let timeout = Timespec::try_from(time).ok();
        // An interrupted or failed poll is an early look round.
        let _ = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], timeout.as_ref());
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn rescans_asked(&self) -> u64 {
        self.rescans_asked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
