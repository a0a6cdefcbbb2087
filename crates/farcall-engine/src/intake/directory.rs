//! The thread that watches the inbox: notices what arrives, looks at it, offers it, and clears away what was settled.
//!
//! One batch at a time: what the engine has not answered yet holds up the next, so memory stays bounded and the kernel
//! or the next scan keeps what comes meanwhile. Decisions about single files are the ledger's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_core::time::{Instant, Now};
use farcall_store::record::FileIdentity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot, watch as watched};
use tracing::{info, warn};

use super::ledger::{Decision, Ledger, Name, Oddity, Sight, Stamp};
use super::look::{self, Look};
use super::watch::{Notice, Watch};
use super::{Control, Found, OFFER_BYTES_MAX, OFFER_FILES_MAX, Offer, Settings, Status, Verdict};
use crate::clock;
use crate::document::{self, Document, Rejection, RejectionKind, Routing};
use crate::result_file::{Filing, Rejected, RejectedOutcome, is_file};

/// Notifications are left in the kernel while this many names wait.
const WAITING_NAMES_MAX: usize = 4_096;
/// After the engine refused files, or a file could not be dealt with: when to try again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) struct Inbox {
    settings: Settings,
    filing: Arc<Filing>,
    offers: mpsc::Sender<Offer>,
    publish: watched::Sender<Status>,
    control: Arc<Control>,
    ledger: Ledger,
    /// Nothing while the directory cannot be opened.
    folder: Option<OwnedFd>,
    watch: Option<Watch>,
    scan: Option<Dir>,
    next_scan: Instant,
    /// The engine refused files; nothing new is looked at before this.
    refused_until: Instant,
    status: Status,
    warned_of_directory: bool,
}

/// One file of a batch, looked at.
struct Candidate {
    name: Name,
    sight: Sight,
    contents: Option<(Stamp, Bytes, Result<Document, Rejection>)>,
}

/// A batch, judged.
#[derive(Default)]
struct Judged {
    offered: Vec<Found>,
    rejected: Vec<(FileIdentity, Rejection)>,
}

impl Inbox {
    pub(super) fn new(
        settings: Settings,
        filing: Arc<Filing>,
        offers: mpsc::Sender<Offer>,
        publish: watched::Sender<Status>,
        control: Arc<Control>,
    ) -> Self {
        Self {
            ledger: Ledger::new(settings.config.inbox.settle),
            settings,
            filing,
            offers,
            publish,
            control,
            folder: None,
            watch: None,
            scan: None,
            next_scan: Instant::default(),
            refused_until: Instant::default(),
            status: Status::default(),
            warned_of_directory: false,
        }
    }

    /// Until it is told to stop, or nobody takes offers any more.
    pub(super) fn run(mut self) {
        while !self.control.is_stopping() && !self.offers.is_closed() {
            if self.control.take_rescan() {
                self.next_scan = Instant::default();
            }
            let now = clock::now();
            self.begin_scan_if_due(now.instant);
            self.note_changes();
            let names = self.next_names(now.instant);
            if names.is_empty() {
                self.publish_status();
                self.wait(now.instant);
            } else {
                self.handle(&names);
            }
        }
        self.publish_status();
    }

    fn begin_scan_if_due(&mut self, now: Instant) {
        if self.scan.is_some() || now < self.next_scan || now < self.refused_until {
            return;
        }
        self.next_scan = now + self.settings.rescan_interval;
        self.check_directory();
        let Some(folder) = &self.folder else { return };
        match Dir::read_from(folder) {
            Ok(dir) => {
                self.scan = Some(dir);
                self.status.is_scanning = true;
            }
            Err(error) => warn!(%error, "cannot read the inbox"),
        }
    }

    /// Opens and watches the directory that has the path now, if it is not the one that is open.
    fn check_directory(&mut self) {
        let opened = open_directory(&self.settings.dir, self.folder.as_ref());
        match opened {
            Ok(None) => self.warned_of_directory = false,
            Ok(Some(folder)) => {
                if self.folder.replace(folder).is_some() {
                    warn!(dir = %self.settings.dir.display(), "the working directory was replaced; watching the new one");
                }
                self.warned_of_directory = false;
                self.watch = None;
            }
            Err(error) => {
                if !self.warned_of_directory {
                    warn!(dir = %self.settings.dir.display(), %error, "cannot open the working directory; trying again");
                }
                self.warned_of_directory = true;
                (self.folder, self.watch) = (None, None);
            }
        }
        if self.folder.is_some() && self.watch.is_none() {
            match Watch::new(&self.settings.dir) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => warn!(%error, "no notifications of new files; finding them by reading the inbox"),
            }
        }
    }

    /// Takes notifications in, as many as may wait.
    fn note_changes(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let now = clock::now().instant;
        let (ledger, next_scan) = (&mut self.ledger, &mut self.next_scan);
        let mut is_gone = false;
        let mut note = |notice: Notice<'_>| match notice {
            Notice::Name(name, change) => ledger.note(name, change, now),
            Notice::Lost => {
                ledger.notes_lost(now);
                *next_scan = now;
            }
            Notice::DirectoryGone => {
                is_gone = true;
                *next_scan = now;
            }
        };
        let mut read = watch.read(&mut note);
        while matches!(read, Ok(true)) && self.ledger.len() < WAITING_NAMES_MAX {
            let (ledger, next_scan) = (&mut self.ledger, &mut self.next_scan);
            read = watch.read(|notice| match notice {
                Notice::Name(name, change) => ledger.note(name, change, now),
                Notice::Lost | Notice::DirectoryGone => *next_scan = now,
            });
        }
        if is_gone || read.is_err() {
            self.watch = None;
        }
    }

    /// Names whose turn has come, and as many from the scan as the batch has room for.
    fn next_names(&mut self, now: Instant) -> Vec<Name> {
        if now < self.refused_until {
            return Vec::new();
        }
        let mut names = self.ledger.due(now, OFFER_FILES_MAX);
        while names.len() < OFFER_FILES_MAX
            && let Some(scan) = &mut self.scan
        {
            match scan.next() {
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    if look::is_call_name(name)
                        && self.ledger.meets(name)
                        && !names.iter().any(|other| **other == *name)
                    {
                        names.push(Name::from(name));
                    }
                }
                Some(Err(error)) => {
                    warn!(%error, "cannot read the inbox to its end");
                    self.scan = None;
                    self.status.is_scanning = false;
                }
                None => self.end_scan(now),
            }
        }
        names
    }

    fn end_scan(&mut self, now: Instant) {
        self.scan = None;
        self.ledger.end_scan(now);
        self.status.is_scanning = false;
        self.status.scans += 1;
    }

    /// Looks at a batch of names and does what follows.
    fn handle(&mut self, names: &[Name]) {
        let candidates = self.look_at(names);
        // Whoever was writing while we read is known before anything is decided.
        self.note_changes();
        let mut judged = self.judge(candidates, clock::now());
        if !judged.offered.is_empty() {
            self.offer(std::mem::take(&mut judged.offered), &mut judged.rejected);
        }
        if !judged.rejected.is_empty() {
            self.reject(&judged.rejected);
        }
        self.publish_status();
    }

    fn look_at(&mut self, names: &[Name]) -> Vec<Candidate> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let config = Arc::clone(&self.settings.config);
        let routing = Routing::from(&*config);
        let now = clock::now().instant;
        let mut candidates = Vec::with_capacity(names.len());
        let mut bytes_read = 0;
        for name in names {
            if bytes_read >= OFFER_BYTES_MAX {
                self.ledger.look_again(name, now, Duration::ZERO);
                continue;
            }
            let look = look::look(folder.as_fd(), name, config.server.max_body);
            if let Look::Failed(error) = look {
                warn!(file = %name.escape_ascii(), %error, "cannot read a call file; trying again");
                self.ledger.look_again(name, now, RETRY_DELAY);
                continue;
            }
            if let Look::Read(_, bytes) = &look {
                bytes_read += bytes.len();
            }
            candidates.push(Candidate::new(Arc::clone(name), look, &routing, config.server.max_body));
        }
        candidates
    }

    fn judge(&mut self, candidates: Vec<Candidate>, now: Now) -> Judged {
        let mut judged = Judged::default();
        for Candidate { name, sight, contents } in candidates {
            match (self.ledger.judge(&name, sight, now), contents) {
                (Decision::Offer, Some((stamp, bytes, Ok(document)))) => {
                    judged.offered.push(Found { file: stamp.identity(&name), bytes, document });
                }
                (Decision::Reject, Some((stamp, _, Err(rejection)))) => {
                    judged.rejected.push((stamp.identity(&name), rejection));
                }
                (Decision::Warn(oddity), _) => warn_of(&name, oddity),
                (Decision::Offer | Decision::Reject | Decision::Wait, _) => {}
            }
        }
        judged
    }

    /// Offers a batch, waits for the answer, and does what it says. Rejected files are added to those given.
    fn offer(&mut self, files: Vec<Found>, rejected: &mut Vec<(FileIdentity, Rejection)>) {
        let identities: Vec<FileIdentity> = files.iter().map(|found| found.file.clone()).collect();
        let (verdicts, answer) = oneshot::channel();
        let sent = self.offers.blocking_send(Offer { files, verdicts });
        let answer =
            sent.ok().and_then(|()| answer.blocking_recv().ok()).filter(|answer| answer.len() == identities.len());
        let verdicts = answer.unwrap_or_else(|| vec![Verdict::Refused; identities.len()]);
        let mut taken = Vec::with_capacity(identities.len());
        let now = clock::now().instant;
        for (file, verdict) in identities.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Taken(id) | Verdict::Known(id) => taken.push((file, id)),
                Verdict::Rejected(rejection) => rejected.push((file, rejection)),
                Verdict::Refused => {
                    self.ledger.look_again(&file.name, now, RETRY_DELAY);
                    self.refused_until = now + RETRY_DELAY;
                }
            }
        }
        self.clear(&taken);
    }

    /// Files whose calls are durable make way for their responses and leave the inbox.
    fn clear(&mut self, taken: &[(FileIdentity, CallId)]) {
        let names: Vec<(&[u8], CallId)> = taken.iter().map(|(file, id)| (file.name.as_slice(), *id)).collect();
        if let Err(error) = self.filing.make_way(&names) {
            warn!(%error, "earlier files could not be moved aside; trying again when the responses are filed");
        }
        let now = clock::now().instant;
        for (file, _) in taken {
            match self.remove(file) {
                Ok(true) => self.ledger.forget(&file.name),
                Ok(false) => self.ledger.look_again(&file.name, now, Duration::ZERO),
                Err(error) => {
                    warn!(file = %file.name.escape_ascii(), %error, "a call file cannot be removed; its call is known");
                    self.ledger.look_again(&file.name, now, RETRY_DELAY);
                }
            }
        }
        self.status.taken += taken.len() as u64;
    }

    /// Removes a file; false when another has its name by now.
    fn remove(&self, file: &FileIdentity) -> Result<bool, Errno> {
        let Some(folder) = &self.folder else { return Ok(true) };
        match rustix::fs::statat(folder, &*file.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_file(&stat, file) => {
                rustix::fs::unlinkat(folder, &*file.name, AtFlags::empty()).map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn reject(&mut self, files: &[(FileIdentity, Rejection)]) {
        let batch: Vec<Rejected<'_>> = files.iter().map(|(file, rejection)| Rejected { file, rejection }).collect();
        let now = clock::now().instant;
        for ((file, rejection), outcome) in files.iter().zip(self.filing.reject(&batch)) {
            let name = file.name.escape_ascii();
            match outcome {
                Ok(RejectedOutcome::Filed) => {
                    info!(file = %name, reason = %rejection, "a file was rejected");
                    self.status.rejected += 1;
                    self.ledger.forget(&file.name);
                }
                Ok(RejectedOutcome::Changed) => self.ledger.look_again(&file.name, now, Duration::ZERO),
                Err(error) => {
                    warn!(file = %name, %error, "a rejected file cannot be filed; trying again");
                    self.ledger.look_again(&file.name, now, RETRY_DELAY);
                }
            }
        }
    }

    fn publish_status(&mut self) {
        self.status.waiting = self.ledger.len();
        self.publish.send_if_modified(|published| std::mem::replace(published, self.status) != self.status);
    }

    /// Sleeps until a notification, a word from the owner, or the next thing to do.
    fn wait(&self, now: Instant) {
        let next =
            self.ledger.next_look().map_or(self.next_scan, |look| look.min(self.next_scan)).max(self.refused_until);
        let left = next.since(now).min(self.settings.rescan_interval) + Duration::from_millis(1);
        let timeout = Timespec::try_from(left).ok();
        let mut fds = vec![PollFd::new(&self.control.wake, PollFlags::IN)];
        // While the engine refuses, arrivals are no reason to wake up.
        if let Some(watch) = self.watch.as_ref().filter(|_| now >= self.refused_until) {
            fds.push(PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN));
        }
        // An interrupted or failed poll is an early look round.
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&self.control.wake, &mut [0u8; 8]);
    }
}

impl Candidate {
    fn new(name: Name, look: Look, routing: &Routing<'_>, bytes_max: u64) -> Self {
        let (stamp, bytes, read) = match look {
            Look::Gone => return Self { name, sight: Sight::Gone, contents: None },
            Look::Odd(oddity) => return Self { name, sight: Sight::Odd(oddity), contents: None },
            Look::Changing | Look::Failed(_) => return Self { name, sight: Sight::Changing, contents: None },
            Look::TooLarge(stamp) => (stamp, Bytes::new(), Err(too_large(stamp.size, bytes_max))),
            Look::Read(stamp, bytes) => {
                let read = document::parse(&bytes, routing);
                (stamp, bytes, read)
            }
        };
        let sight = if read.is_ok() { Sight::Valid(stamp) } else { Sight::Invalid(stamp) };
        Self { name, sight, contents: Some((stamp, bytes, read)) }
    }
}

fn too_large(size: u64, bytes_max: u64) -> Rejection {
    let message = format!("the file has {size} bytes; at most {bytes_max} (`server.max_body`) are read");
    Rejection { kind: RejectionKind::Invalid, message, key: None, line: None, column: None }
}

fn warn_of(name: &[u8], oddity: Oddity) {
    let file = name.escape_ascii();
    match oddity {
        Oddity::SymbolicLink => warn!(%file, "ignored in the inbox: a symbolic link"),
        Oddity::Folder => warn!(%file, "ignored in the inbox: a folder"),
        Oddity::Special => warn!(%file, "ignored in the inbox: no regular file"),
        Oddity::Unreadable => warn!(%file, "a call file may not be read; it stays in the inbox"),
    }
}

/// The directory that has the path now; nothing when that is the one already open.
fn open_directory(path: &std::path::Path, open: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let folder = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let Some(open) = open else { return Ok(Some(folder)) };
    let (new, old) = (rustix::fs::fstat(&folder)?, rustix::fs::fstat(open)?);
    let is_same = (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino);
    Ok((!is_same).then_some(folder))
}
