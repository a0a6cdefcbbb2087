//! What is known of a batch's lines while it runs, by those who submit them and those who write their results.
//!
//! Bounded: lines that have not ended, and those without a call whose results wait, are held back at
//! [`AHEAD_LINES_MAX`]; of lines that have ended the store knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farcall_core::id::CallId;
use tokio::sync::Notify;

use super::journal::{Exception, Order};
use super::tally::Tally;

/// Lines that are read ahead of those that have ended.
pub const AHEAD_LINES_MAX: usize = 10_000;

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
    /// Those whose idempotency key belongs to another call, and that call.
    pub(super) aliases: BTreeMap<u32, CallId>,
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

    /// A line has ended; false when that was known.
    pub(super) fn end(&mut self, line: u32, order: Order) -> bool {
        let is_news = self.live.remove(&line);
        if is_news && order == Order::Completion {
            self.ready.push_back(line);
        }
        is_news
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
