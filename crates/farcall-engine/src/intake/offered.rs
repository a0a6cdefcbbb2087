//! Batches that the engine was offered: sent, answered for, and taken out of the inbox or left as the answer says.
//!
//! The next batch is read while the engine makes the last one durable, and is offered before the files of that are
//! cleared away: so reading, the commit and clearing go on side by side. Two are out at most.

use std::os::fd::AsFd;

use bytes::Bytes;
use farcall_core::id::CallId;
use farcall_store::record::FileIdentity;
use tokio::sync::oneshot;
use tracing::warn;

use super::batch::RETRY_DELAY;
use super::directory::Inbox;
use super::ledger::{APPEARANCE_DELAY, Name};
use super::{Found, Offer, Verdict};
use crate::clock;
use crate::result_file::{Cleared, Taken};

/// A batch whose answer has not been looked at.
#[derive(Debug)]
pub(super) struct Offered {
    files: Vec<(FileIdentity, Bytes)>,
    answer: oneshot::Receiver<Vec<Verdict>>,
}

impl Inbox {
    /// Offers a batch, then finishes the one before it.
    pub(super) fn offer(&mut self, files: Vec<Found>) {
        let offered = files.iter().map(|found| (found.file.clone(), found.bytes.clone())).collect();
        for found in &files {
            self.ledger.offer(Name::from(found.file.name.as_slice()));
        }
        let (verdicts, answer) = oneshot::channel();
        // An offer that nobody takes has no answer.
        let _ = self.offers.blocking_send(Offer { files, verdicts });
        let before = self.offered.replace(Offered { files: offered, answer });
        if let Some(before) = before {
            self.finish(before);
        }
    }

    /// Waits for the answer to what is offered, and does what it says; false when nothing is.
    pub(super) fn finish_offered(&mut self) -> bool {
        let Some(offered) = self.offered.take() else { return false };
        self.finish(offered);
        self.publish_status();
        true
    }

    fn finish(&mut self, Offered { files, answer }: Offered) {
        let answer = answer.blocking_recv().ok().filter(|answer| answer.len() == files.len());
        for (file, _) in &files {
            self.ledger.answered(&file.name);
        }
        match answer {
            Some(verdicts) => {
                self.obey(&files, verdicts);
                self.casualties.end(files.iter().map(|(file, _)| file.name.as_slice()));
            }
            None => {
                if !self.offers.is_closed() {
                    // Whoever was to answer broke down on one of these files.
                    self.casualties.break_down_on(files.iter().map(|(file, _)| file.name.as_slice()));
                }
                self.obey(&files, vec![Verdict::Refused; files.len()]);
            }
        }
    }

    fn obey(&mut self, files: &[(FileIdentity, Bytes)], verdicts: Vec<Verdict>) {
        self.status.is_refused = verdicts.contains(&Verdict::Refused);
        let mut taken = Vec::with_capacity(files.len());
        let mut rejected = Vec::new();
        let now = clock::instant();
        for ((file, bytes), verdict) in files.iter().zip(verdicts) {
            match verdict {
                Verdict::Taken(id) | Verdict::Known(id) => {
                    taken.push(Taken { file: file.clone(), bytes: bytes.clone(), id });
                }
                Verdict::Rejected(rejection) => rejected.push((file.clone(), rejection)),
                Verdict::Awaited => self.ledger.look_again(&file.name, now, RETRY_DELAY),
                Verdict::Refused => {
                    self.ledger.look_again(&file.name, now, RETRY_DELAY);
                    self.refused_until = now + RETRY_DELAY;
                }
            }
        }
        self.clear(&taken);
        if !rejected.is_empty() {
            self.reject(&rejected);
        }
    }

    /// Files whose calls are durable make way for their responses and leave the inbox.
    fn clear(&mut self, taken: &[Taken]) {
        let Some(folder) = self.folder.as_ref().filter(|_| !taken.is_empty()) else { return };
        let names: Vec<(&[u8], CallId)> = taken.iter().map(|taken| (taken.file.name.as_slice(), taken.id)).collect();
        if let Err(error) = self.filing.make_way(&names) {
            warn!(%error, "earlier files could not be moved aside; trying again when the responses are filed");
        }
        let now = clock::instant();
        for (taken, cleared) in taken.iter().zip(self.filing.clear(folder.as_fd(), taken)) {
            let file = &taken.file;
            match cleared {
                Cleared::Gone => self.ledger.forget(&file.name),
                Cleared::Changed => self.ledger.look_again(&file.name, now, APPEARANCE_DELAY),
                Cleared::Stuck(error) => {
                    warn!(file = %file.name.escape_ascii(), %error, "a call file cannot be removed; its call is known");
                    self.filing.stuck().insert((file.device, file.inode), file.changed_ns);
                    self.ledger.look_again(&file.name, now, self.settings.rescan_interval);
                }
            }
        }
        self.status.taken += taken.len() as u64;
    }
}
