//! The journal of one process and the disk below it: turns that wait, the transaction being written, and what a crash
//! leaves of them.
//!
//! A correct store keeps everything that it has called durable, and of the rest whole turns in order. The careless ones
//! stand here too: they must be found out.

use std::collections::{BTreeMap, VecDeque};

use farcall_core::dispatcher::{self, Seq};
use farcall_core::id::CallId;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{Store, Write};

use crate::checker::{Check, violation};
use crate::dice::Dice;
use crate::engine::Process;
use crate::log::Line;
use crate::world::{Happening, World};

/// What a store is like that loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Care {
    /// As every store must be.
    #[default]
    Correct,
    /// It keeps any of the unsynced turns, also later ones without earlier ones.
    Reorders,
    /// It keeps the beginning of a turn.
    Tears,
    /// It forgets the last turn that it called durable.
    Forgets,
}

/// A turn's writes.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) seq: Seq,
    pub(crate) writes: Vec<Write>,
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Turns that share the transaction being written.
    writing: Vec<Batch>,
    queue: VecDeque<Batch>,
    /// Nothing certain is known of the transaction, and the store is being opened again.
    pub(crate) is_broken: bool,
    /// Settlements that could not be stored, by call and attempt; they are written again as they are.
    kept: BTreeMap<(CallId, Option<u32>), Write>,
}

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Durable,
    Full,
    /// The disk fails; when the store has been opened again, it is there or not.
    Unknown {
        is_kept: bool,
    },
}

impl Journal {
    pub(crate) fn is_empty(&self) -> bool {
        self.writing.is_empty() && self.queue.is_empty()
    }

    /// The settlement that this stands for, if it was to be written before.
    pub(crate) fn take_kept(&mut self, write: &dispatcher::Write) -> Option<Write> {
        let dispatcher::Write::Settle { call, attempt, .. } = *write else { return None };
        self.kept.remove(&(call, attempt.map(|end| end.number)))
    }

    /// All that is not durable, in order.
    pub(crate) fn take(&mut self) -> Vec<Batch> {
        self.writing.drain(..).chain(self.queue.drain(..)).collect()
    }

    fn merge(&mut self) -> Option<Seq> {
        self.writing.extend(self.queue.drain(..));
        self.writing.last().map(|batch| batch.seq)
    }
}

impl World {
    /// A turn's writes are handed over.
    pub(crate) fn hand_over(&mut self, batch: Batch) {
        let Some(process) = &mut self.process else { return };
        process.journal.queue.push_back(batch);
        self.write_next();
    }

    /// The transaction has been written, or not.
    pub(crate) fn written(&mut self, boot: usize, seq: u64, outcome: Outcome) -> Check {
        let Some(process) = self.process.as_mut().filter(|process| process.boot == boot) else { return Ok(()) };
        if process.journal.writing.last().is_none_or(|batch| batch.seq.0 != seq) {
            return Ok(());
        }
        match outcome {
            Outcome::Durable => self.succeed()?,
            Outcome::Full => self.fail(),
            Outcome::Unknown { is_kept } => {
                process.journal.is_broken = true;
                process.order.end();
                process.hedges.end();
                self.facts.commits_failed += 1;
                self.note(Line::Broken { seq });
                let opened_at = self.now + self.plan.faults.reopen_time(&mut self.dice);
                self.schedule(opened_at, Happening::Reopened { boot, seq, is_kept });
            }
        }
        Ok(())
    }

    pub(crate) fn reopened(&mut self, boot: usize, is_kept: bool) -> Check {
        let Some(process) = self.process.as_mut().filter(|process| process.boot == boot) else { return Ok(()) };
        process.journal.is_broken = false;
        if is_kept {
            return self.succeed();
        }
        self.fail();
        Ok(())
    }

    /// The store takes writes, and the checkers see what it made of them.
    pub(crate) fn make_durable(&mut self, writes: &[Write]) -> Check {
        if self.care == Care::Forgets {
            self.forgetful = Some(self.store.snapshot());
        }
        self.store.commit(writes).map_err(|error| violation(format!("the store refuses what was decided: {error}")))?;
        self.observe(writes)
    }

    /// The process has died: what the disk keeps of what was not durable. Gives back what is lost.
    pub(crate) fn lose_power(&mut self, process: &mut Process) -> Result<Vec<Write>, crate::checker::Violation> {
        let mut batches: VecDeque<Batch> = process.journal.take().into();
        let mut kept = 0;
        while !batches.is_empty() && self.dice.percent(40) {
            kept += 1;
            let batch = batches.pop_front().expect("there is one");
            self.make_durable(&batch.writes)?;
        }
        self.note(Line::Crash { kept });
        self.be_careless(&mut batches);
        Ok(batches.into_iter().flat_map(|batch| batch.writes).collect())
    }

    fn succeed(&mut self) -> Check {
        let Some(process) = &mut self.process else { return Ok(()) };
        let batches = std::mem::take(&mut process.journal.writing);
        let Some(seq) = batches.last().map(|batch| batch.seq) else { return Ok(()) };
        let writes: Vec<Write> = batches.into_iter().flat_map(|batch| batch.writes).collect();
        self.note(Line::Committed { seq: seq.0 });
        self.make_durable(&writes)?;
        self.tell(farcall_core::dispatcher::Event::Committed { seq });
        self.write_next();
        self.check_census()
    }

    /// Nothing that is on its way will be stored.
    fn fail(&mut self) {
        let Some(process) = &mut self.process else { return };
        let failed = process.journal.take();
        process.order.end();
        process.hedges.end();
        let Some(seq) = failed.first().map(|batch| batch.seq) else { return };
        for write in failed.into_iter().flat_map(|batch| batch.writes) {
            if let Write::Settle(settle) = &write {
                let number = settle.attempt.as_ref().map(|end| end.number);
                process.journal.kept.insert((settle.call, number), write);
            }
        }
        self.facts.commits_failed += 1;
        self.note(Line::CommitFailed { seq: seq.0 });
        self.tell(farcall_core::dispatcher::Event::CommitFailed { seq });
    }

    fn write_next(&mut self) {
        let Some(process) = &mut self.process else { return };
        if !process.journal.writing.is_empty() {
            return;
        }
        let Some(seq) = process.journal.merge() else { return };
        let boot = process.boot;
        let after = self.now.since(self.plan.start);
        let latency = self.plan.faults.commit_latency(&mut self.dice, self.healed);
        let outcome = if self.healed { Outcome::Durable } else { self.plan.faults.outcome(&mut self.dice, after) };
        self.schedule(self.now + latency, Happening::Written { boot, seq: seq.0, outcome });
    }

    /// What a store does that must be found out. It tells nobody.
    fn be_careless(&mut self, batches: &mut VecDeque<Batch>) {
        match self.care {
            Care::Correct => {}
            Care::Reorders => {
                for batch in batches.iter().skip(1) {
                    keep_if_possible(&mut self.store, &mut self.dice, &batch.writes);
                }
            }
            Care::Tears => {
                if let Some(batch) = batches.front().filter(|batch| batch.writes.len() > 1) {
                    let half = &batch.writes[..batch.writes.len() / 2];
                    keep_if_possible(&mut self.store, &mut self.dice, half);
                }
            }
            Care::Forgets => {
                if let Some(store) = self.forgetful.take().filter(|_| self.dice.percent(30)) {
                    self.store = store;
                }
            }
        }
    }
}

fn keep_if_possible(store: &mut MemoryStore, dice: &mut Dice, writes: &[Write]) {
    if dice.percent(50) {
        // Even a careless store refuses what makes no sense to it.
        let _ = store.commit(writes);
    }
}
