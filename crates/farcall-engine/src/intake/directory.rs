//! The thread that watches the inbox: notices what arrives, reads the directory in full now and then, and hands the
//! names whose turn has come to `batch`.
//!
//! Two batches at a time, see `offered`: what the engine has not answered yet holds up the next, so memory stays bounded
//! and the kernel or the next scan keeps what comes meanwhile. Decisions about single files are the ledger's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Dir};
use tokio::sync::{mpsc, watch as watched};
use tracing::warn;

use super::casualties::Casualties;
use super::ledger::{Ledger, Name};
use super::leftovers::Leftovers;
use super::look;
use super::offered::Offered;
use super::watch::{Notice, Watch};
use super::{Control, OFFER_FILES_MAX, Offer, Settings, Status};
use crate::clock;
use crate::result_file::{Filing, open_dir};

/// Notifications are left in the kernel while this many names wait.
const WAITING_NAMES_MAX: usize = 65_536;
/// Of a batch, what is left to the scan while one is going on.
const SCAN_SHARE: usize = OFFER_FILES_MAX / 4;

/// What an inbox is given, and what of it outlives one that breaks down.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) settings: Settings,
    pub(super) filing: Arc<Filing>,
    pub(super) offers: mpsc::Sender<Offer>,
    pub(super) publish: watched::Sender<Status>,
    pub(super) control: Arc<Control>,
    pub(super) casualties: Arc<Casualties>,
    pub(super) leftovers: Leftovers,
}

pub(super) struct Inbox {
    pub(super) settings: Settings,
    pub(super) filing: Arc<Filing>,
    pub(super) offers: mpsc::Sender<Offer>,
    publish: watched::Sender<Status>,
    control: Arc<Control>,
    pub(super) casualties: Arc<Casualties>,
    pub(super) leftovers: Leftovers,
    pub(super) ledger: Ledger,
    /// What the engine has not answered yet.
    pub(super) offered: Option<Offered>,
    /// Nothing while the directory cannot be opened.
    pub(super) folder: Option<OwnedFd>,
    watch: Option<Watch>,
    scan: Option<Dir>,
    next_scan: Instant,
    /// The owner's requests that the scan answers.
    scan_answers: u64,
    /// The engine refused files; nothing new is looked at before this.
    pub(super) refused_until: Instant,
    pub(super) status: Status,
    warned_of_directory: bool,
    warned_of_watch: bool,
}

impl Inbox {
    pub(super) fn new(owner: Owner) -> Self {
        let Owner { settings, filing, offers, publish, control, casualties, leftovers } = owner;
        // What an earlier one counted, before it broke down.
        let Status { answered, taken, rejected, .. } = *publish.borrow();
        let status = Status { answered, taken, rejected, ..Status::default() };
        Self {
            ledger: Ledger::new(settings.config.now().inbox.settle),
            settings,
            filing,
            offers,
            publish,
            control,
            casualties,
            leftovers,
            offered: None,
            folder: None,
            watch: None,
            scan: None,
            next_scan: Instant::default(),
            scan_answers: 0,
            refused_until: Instant::default(),
            status,
            warned_of_directory: false,
            warned_of_watch: false,
        }
    }

    /// Until it is told to stop, or nobody takes offers any more.
    pub(super) fn run(&mut self) {
        while !self.control.is_stopping() && !self.offers.is_closed() {
            let now = clock::now();
            self.ledger.settle_within(self.settings.config.now().inbox.settle, now.instant);
            self.begin_scan_if_due(now.instant);
            self.note_changes();
            self.end_leftovers();
            let names = self.next_names(now.instant);
            if names.is_empty() {
                if !self.finish_offered() {
                    self.publish_status();
                    self.wait(now.instant);
                }
                continue;
            }
            let batches = self.casualties.batches(names);
            let is_suspicious = batches.len() > 1 || self.casualties.suspects(&batches[0]);
            for names in batches {
                self.handle(&names);
                // Whoever breaks down on a suspect shall have nothing else in hand.
                if is_suspicious {
                    self.finish_offered();
                }
            }
        }
        self.finish_offered();
        self.publish_status();
    }

    fn begin_scan_if_due(&mut self, now: Instant) {
        let asked = self.control.rescans_asked();
        let is_asked = asked > self.scan_answers.max(self.status.answered);
        let is_due = self.scan.is_none() && now >= self.next_scan;
        if !(is_asked || is_due) || now < self.refused_until {
            return;
        }
        self.next_scan = now + self.settings.rescan_interval;
        self.check_directory();
        let Some(folder) = &self.folder else { return };
        match Dir::read_from(folder) {
            Ok(dir) => {
                self.ledger.begin_scan();
                self.scan = Some(dir);
                self.scan_answers = asked;
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
                (self.scan, self.status.is_scanning) = (None, false);
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
                Ok(watch) => (self.watch, self.warned_of_watch) = (Some(watch), false),
                Err(_) if self.warned_of_watch => {}
                Err(error) => {
                    warn!(%error, "no notifications of new files; finding them by reading the inbox");
                    self.warned_of_watch = true;
                }
            }
        }
    }

    /// Takes notifications in, as many as may wait.
    pub(super) fn note_changes(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        let now = clock::instant();
        let mut is_alive = true;
        while is_alive && self.ledger.len() < WAITING_NAMES_MAX {
            match watch.read(|notice| is_alive &= self.note(notice, now)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    warn!(%error, "notifications of new files broke off; watching anew");
                    is_alive = false;
                    self.next_scan = now;
                }
            }
        }
        self.watch = is_alive.then_some(watch);
    }

    /// False when the watch has come to its end.
    fn note(&mut self, notice: Notice<'_>, now: Instant) -> bool {
        match notice {
            Notice::Name(name, change) => self.ledger.note(name, change, now),
            Notice::Lost => {
                self.ledger.notes_lost(now);
                self.next_scan = now;
            }
            Notice::DirectoryGone => {
                self.next_scan = now;
                return false;
            }
        }
        true
    }

    /// Names whose turn has come, and as many from the scan as the batch has room for.
    fn next_names(&mut self, now: Instant) -> Vec<Name> {
        if now < self.refused_until {
            return Vec::new();
        }
        let share = if self.scan.is_some() { SCAN_SHARE } else { 0 };
        let mut names = self.ledger.due(now, OFFER_FILES_MAX - share);
        let due = names.len();
        while names.len() < OFFER_FILES_MAX
            && self.ledger.len() + names.len() < WAITING_NAMES_MAX
            && let Some(scan) = &mut self.scan
        {
            match scan.next() {
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    if look::is_call_name(name)
                        && self.ledger.meets(name)
                        && !names[..due].iter().any(|other| **other == *name)
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
        self.status.answered = self.scan_answers;
    }

    /// A full reading has ended for others when all that it found is dealt with.
    pub(super) fn publish_status(&mut self) {
        self.status.waiting = self.ledger.unsettled();
        let mut status = self.status;
        self.publish.send_if_modified(|published| {
            if self.offered.is_some() {
                let Status { scans, answered, is_scanning, .. } = *published;
                status = Status { scans, answered, is_scanning: is_scanning || status.is_scanning, ..status };
            }
            std::mem::replace(published, status) != status
        });
    }

    /// Sleeps until a notification, a word from the owner, or the next thing to do.
    fn wait(&self, now: Instant) {
        let next =
            self.ledger.next_look().map_or(self.next_scan, |look| look.min(self.next_scan)).max(self.refused_until);
        let left = next.since(now).min(self.settings.rescan_interval) + Duration::from_millis(1);
        let timeout = Timespec::try_from(left).ok();
        let mut fds = vec![PollFd::new(&self.control.wake, PollFlags::IN)];
        // While the engine refuses, or too many wait, arrivals are no reason to wake up.
        let is_open = now >= self.refused_until && self.ledger.len() < WAITING_NAMES_MAX;
        if let Some(watch) = self.watch.as_ref().filter(|_| is_open) {
            fds.push(PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN));
        }
        // An interrupted or failed poll is an early look round.
        let _ = poll(&mut fds, timeout.as_ref());
        let _ = rustix::io::read(&self.control.wake, &mut [0u8; 8]);
    }
}

/// The directory that has the path now; nothing when that is the one already open.
fn open_directory(path: &std::path::Path, open: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let folder = open_dir(CWD, path)?;
    let Some(open) = open else { return Ok(Some(folder)) };
    let (new, old) = (rustix::fs::fstat(&folder)?, rustix::fs::fstat(open)?);
    let is_same = (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino);
    Ok((!is_same).then_some(folder))
}
