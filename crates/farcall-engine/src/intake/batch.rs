//! One batch of names: looked at, judged, and rejected or offered to the engine; what becomes of those is `offered`'s.
//!
//! What is looked at, and when, is decided in `ledger` and `directory`.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::time::Now;
use farcall_crash::{self as crash, Point};
use farcall_store::record::FileIdentity;
use tracing::{info, warn};

use super::casualties;
use super::directory::Inbox;
use super::ledger::{APPEARANCE_DELAY, Decision, Name, Oddity, Sight, Stamp};
use super::look::{self, Look};
use super::{Found, OFFER_BYTES_MAX};
use crate::clock;
use crate::document::{self, Document, Rejection, RejectionKind, Routing};
use crate::result_file::{Cleared, Rejected, RejectedOutcome};

/// After the engine refused files or made one wait, or one could not be read: when to try again.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(1);

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
    /// Looks at a batch of names and does what follows. What is offered is left to [`Inbox::finish_offered`].
    pub(super) fn handle(&mut self, names: &[Name]) {
        self.casualties.begin(names);
        let mut offered = Vec::new();
        if self.clear_leftovers(names) && !matches!(names, [name] if self.gives_up(name)) {
            let candidates = self.look_at(names);
            // Whoever was writing while we read is known before anything is decided.
            self.note_changes();
            let judged = self.judge(candidates, clock::now());
            if !judged.rejected.is_empty() {
                self.reject(&judged.rejected);
            }
            offered = judged.offered;
        }
        // Offered are some of the names, in their order.
        let mut still_in_hand = offered.iter().peekable();
        let is_done = |name: &&[u8]| still_in_hand.next_if(|found| found.file.name == *name).is_none();
        self.casualties.end(names.iter().map(|name| &**name).filter(is_done));
        if !offered.is_empty() {
            self.offer(offered);
        }
        self.publish_status();
    }

    /// Whether our handling broke down on this file too often; then it is rejected, or left where it is.
    fn gives_up(&mut self, name: &Name) -> bool {
        let file = name.escape_ascii();
        match self.casualties.judge(name) {
            casualties::Verdict::Handle => return false,
            casualties::Verdict::Leave { is_news: true } => {
                tracing::error!(%file, "farcall's handling of a call file breaks down, it stays in the inbox");
            }
            casualties::Verdict::Leave { is_news: false } => {}
            casualties::Verdict::GiveUp => {
                let Some(folder) = &self.folder else { return true };
                match look::look(folder.as_fd(), name, self.settings.config.now().server.max_body) {
                    Look::Read(stamp, _) | Look::TooLarge(stamp) => {
                        self.reject(&[(stamp.identity(name), broke_down())]);
                    }
                    Look::Gone => self.ledger.forget(name),
                    Look::Odd(_) | Look::Changing | Look::Failed(_) => {
                        self.ledger.look_again(name, clock::instant(), RETRY_DELAY);
                    }
                }
            }
        }
        true
    }

    fn look_at(&mut self, names: &[Name]) -> Vec<Candidate> {
        let config = self.settings.config.now();
        let routing = Routing::from(&*config);
        let now = clock::instant();
        let mut candidates = Vec::with_capacity(names.len());
        let mut bytes_read = 0;
        for name in names {
            if bytes_read >= OFFER_BYTES_MAX {
                self.ledger.look_again(name, now, Duration::ZERO);
                continue;
            }
            let Some(folder) = &self.folder else { break };
            let look = look::look(folder.as_fd(), name, config.server.max_body);
            if let Look::Failed(error) = look {
                warn!(file = %name.escape_ascii(), %error, "cannot read a call file; trying again");
                self.ledger.look_again(name, now, RETRY_DELAY);
                continue;
            }
            if let Look::Read(stamp, _) | Look::TooLarge(stamp) = look
                && self.was_taken(name, stamp)
            {
                continue;
            }
            if let Look::Read(_, bytes) = &look {
                crash::reach_at(Point::FileRead, name);
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

    /// Whether the file was taken already and only its removal is left, which is done here if it can be. One that was
    /// written to since is a new one.
    fn was_taken(&mut self, name: &Name, stamp: Stamp) -> bool {
        let inode = (stamp.device, stamp.inode);
        let Some(&read_ns) = self.filing.stuck().get(&inode) else { return false };
        let Some(folder) = self.folder.as_ref().filter(|_| stamp.modified_ns <= read_ns) else {
            self.filing.stuck().remove(&inode);
            return false;
        };
        if let Cleared::Stuck(_) = self.filing.clear_stuck(folder.as_fd(), name, inode) {
            self.ledger.look_again(name, clock::instant(), self.settings.rescan_interval);
        } else {
            self.filing.stuck().remove(&inode);
            self.ledger.look_again(name, clock::instant(), Duration::ZERO);
        }
        true
    }

    pub(super) fn reject(&mut self, files: &[(FileIdentity, Rejection)]) {
        let batch: Vec<Rejected<'_>> = files.iter().map(|(file, rejection)| Rejected { file, rejection }).collect();
        let now = clock::instant();
        for ((file, rejection), outcome) in files.iter().zip(self.filing.reject(&batch)) {
            let name = file.name.escape_ascii();
            match outcome {
                Ok(RejectedOutcome::Filed) => {
                    info!(file = %name, reason = %rejection, "a file was rejected");
                    self.status.rejected += 1;
                    self.ledger.forget(&file.name);
                }
                Ok(RejectedOutcome::Changed) => self.ledger.look_again(&file.name, now, APPEARANCE_DELAY),
                Err(error) => {
                    warn!(file = %name, %error, "a rejected file cannot be filed; trying again");
                    self.ledger.look_again(&file.name, now, self.settings.rescan_interval);
                }
            }
        }
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

fn broke_down() -> Rejection {
    let message =
        "farcall's handling of this file broke down three times, which is a mistake in farcall; its log tells \
                   more"
            .to_owned();
    Rejection { kind: RejectionKind::Invalid, message, key: None, line: None, column: None }
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
