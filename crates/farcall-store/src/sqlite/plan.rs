//! The steps of a batch: what is written in one go though it was decided as two.
//!
//! The start of a call that the same batch inserts is made part of its insert, so that the row is written once.

use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_core::steady::Steady;

use crate::port::{Insert, Mark, Prune, Settle, Start, Write};
use crate::record::CallRecord;
use crate::transition::Standing;

/// A write, or two of one call that need one row only.
pub(super) enum Step<'w> {
    Insert { insert: &'w Insert, first: Option<&'w Start> },
    Start(&'w Start),
    Settle(&'w Settle),
    Close { call: CallId, until: Steady },
    Release { call: CallId, ready_at: Steady },
    Filed(CallId),
    Mark { call: CallId, mark: Mark },
    Prune(&'w Prune),
    FreeKey(CallId),
}

/// The steps of a batch: a start goes with the insert of its call when nothing stands between the two.
pub(super) fn plan(writes: &[Write]) -> Vec<Step<'_>> {
    let mut steps = Vec::with_capacity(writes.len());
    let mut untouched: IdMap<CallId, usize> = IdMap::default();
    for write in writes {
        let inserted = untouched.remove(&write.call());
        match write {
            Write::Insert(insert) => {
                untouched.insert(insert.call.id, steps.len());
                steps.push(Step::Insert { insert, first: None });
            }
            Write::Start(start) => match inserted.and_then(|place| steps.get_mut(place)) {
                Some(Step::Insert { insert, first }) if may_start(&insert.call, start) => *first = Some(start),
                _ => steps.push(Step::Start(start)),
            },
            Write::Settle(settle) => steps.push(Step::Settle(settle)),
            Write::Close { call, until } => steps.push(Step::Close { call: *call, until: *until }),
            Write::Release { call, ready_at } => steps.push(Step::Release { call: *call, ready_at: *ready_at }),
            Write::Filed(call) => steps.push(Step::Filed(*call)),
            Write::Mark { call, mark } => steps.push(Step::Mark { call: *call, mark: *mark }),
            Write::Prune(prune) => steps.push(Step::Prune(prune)),
            Write::FreeKey(call) => steps.push(Step::FreeKey(*call)),
        }
    }
    steps
}

fn may_start(call: &CallRecord, start: &Start) -> bool {
    let progress = &call.progress;
    let waits = progress.ready_at.is_some();
    let standing = Standing { state: progress.state, filed: call.filed, attempts: call.attempts, waits };
    standing.start(start).is_ok()
}
