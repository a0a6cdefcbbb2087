//! What is known of a batch's lines while it runs, by those who submit them and those who write their results.
//!
//! Bounded: lines that have not ended, and those without a call whose results wait, are held back at
//! [`AHEAD_LINES_MAX`]; of lines that have ended the store knows.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farcall_core::id::CallId;
use tokio::sync::Notify;

use super::journal::{Exception, Order};
use super::line_ids::LineIds;
use super::tally::Tally;

/// Lines that are read ahead of those that have ended.
pub const AHEAD_LINES_MAX: usize = 10_000;
/// Ends of unknown calls that are kept while lines are offered; with more, the lines are looked at afterwards.
const EARLY_MAX: usize = 20_000;

/// How a batch stands, for people who watch.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Lines read and submitted.
    pub lines: u32,
    /// The bytes of those.
    pub bytes: u64,
    /// There are no more.
    pub is_read: bool,
    /// Lines submitted that have not ended.
    pub live: usize,
    /// Results written, also by earlier processes.
    pub tally: Tally,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    lines: Mutex<Lines>,
    /// There may be something to write.
    pub(super) to_write: Notify,
    /// There may be room for more lines.
    pub(super) room: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Submitted, and not known to have ended.
    pub(super) live: BTreeSet<u32>,
    /// Of those, the ones whose id does not follow from the batch's.
    given: BTreeSet<(CallId, u32)>,
    /// Lines are being offered, and some may be calls whose ids nobody has told yet.
    is_offering: bool,
    /// Ends heard meanwhile of calls that are none of ours, as far as is known.
    early: HashSet<CallId>,
    /// Ends were missed meanwhile.
    has_missed: bool,
    /// All that are live are to be looked at.
    pub(super) must_look: bool,
    pub(super) exceptions: BTreeMap<u32, Exception>,
    /// In the order of completion: what is to be written next.
    pub(super) ready: VecDeque<u32>,
    /// Every line up to this one is submitted or an exception.
    pub(super) submitted: u32,
    pub(super) bytes: u64,
    pub(super) is_read: bool,
    pub(super) tally: Tally,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more lines may be read.
    pub(super) async fn wait_for_room(&self) {
        while self.lock().held() >= AHEAD_LINES_MAX {
            self.room.notified().await;
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let lines = self.lock();
        Standing {
            lines: lines.submitted,
            bytes: lines.bytes,
            is_read: lines.is_read,
            live: lines.live.len(),
            tally: lines.tally.clone(),
        }
    }
}

impl Lines {
    fn held(&self) -> usize {
        self.live.len() + self.exceptions.len() + self.ready.len()
    }

    /// Every line has ended, and nothing waits to be written but in the order of the input.
    pub(super) fn is_done(&self) -> bool {
        self.is_read && self.live.is_empty() && self.ready.is_empty() && self.exceptions.is_empty()
    }

    /// A line that is a call has not ended, as far as is known.
    pub(super) fn take_up(&mut self, line: u32, call: CallId, own: LineIds) {
        self.live.insert(line);
        if own.id(line) != call {
            self.given.insert((call, line));
        }
    }

    /// Lines are about to be calls; their ends may be heard of before that.
    pub(super) fn begin_offer(&mut self, lines: impl Iterator<Item = u32>) {
        self.live.extend(lines);
        self.is_offering = true;
    }

    /// These lines that were offered are these calls.
    pub(super) fn give(&mut self, calls: &[(u32, CallId)], order: Order) {
        for &(line, call) in calls {
            self.given.insert((call, line));
            if self.early.contains(&call) {
                self.end(line, call, order);
            }
        }
    }

    /// Of every line that was offered it is known which call it is, if any.
    pub(super) fn end_offer(&mut self) {
        self.is_offering = false;
        self.early.clear();
        self.must_look |= std::mem::take(&mut self.has_missed);
    }

    /// A call has ended, ours or not.
    pub(super) fn heard(&mut self, call: CallId, own: LineIds, order: Order) {
        let lines = self.given.range((call, 0)..=(call, u32::MAX)).map(|(_, line)| *line);
        let lines: Vec<u32> = lines.chain(own.line(call)).collect();
        for &line in &lines {
            self.end(line, call, order);
        }
        if lines.is_empty() && self.is_offering {
            self.early.insert(call);
            if self.early.len() > EARLY_MAX {
                self.early.clear();
                self.has_missed = true;
            }
        }
    }

    /// Ends were missed.
    pub(super) const fn missed(&mut self) {
        self.must_look = true;
        self.has_missed = self.is_offering;
    }

    /// A line has ended; nothing happens when that was known.
    pub(super) fn end(&mut self, line: u32, call: CallId, order: Order) {
        self.given.remove(&(call, line));
        if self.live.remove(&line) && order == Order::Completion {
            self.ready.push_back(line);
        }
    }

    /// A line that is no call has its result.
    pub(super) fn except(&mut self, line: u32, exception: Exception, order: Order) {
        self.live.remove(&line);
        self.exceptions.insert(line, exception);
        if order == Order::Completion {
            self.ready.push_back(line);
        }
    }
}
