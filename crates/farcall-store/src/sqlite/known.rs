//! What the writer knows of stored calls without asking: those it wrote or looked up last.
//!
//! A call is written at its insert, its start and its end, and what one write leaves is where the next begins. Only this
//! process writes while its epoch lasts, so what was committed in it still stands; whatever fails empties the memory.
//! It is no authority all the same: every statement that rests on it says in its condition what it takes for granted.

use std::sync::Arc;

use farcall_core::attempt::AttemptKind;
use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;

use super::grants::Account;
use crate::transition::Standing;

/// Calls of one generation. Those that were not met during a whole one are forgotten.
const GENERATION_CALLS_MAX: usize = 2_048;

/// A call as it is stored, as far as its next write asks.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) standing: Standing,
    /// Its place in its lane, while it stands in one.
    pub(super) ready_at: Option<Steady>,
    /// What its attempts are counted by, and as how many.
    pub(super) limit_key: Arc<str>,
    pub(super) cost: u32,
    pub(super) lane: Lane,
    pub(super) deadline: Option<Steady>,
    /// It was accepted with an idempotency key.
    pub(super) is_keyed: bool,
    /// It has a row in `live`.
    pub(super) is_live: bool,
    pub(super) started_at: Option<Timestamp>,
    /// The attempt that was started last, unless that is known to have ended.
    pub(super) open: Option<Open>,
}

/// What of a lane does not depend on where its calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) of_callbacks: bool,
    pub(super) priority: u8,
    /// The signed form in which SQLite has it.
    pub(super) tenant: i64,
}

/// An attempt that is out.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) number: u32,
    pub(super) kind: AttemptKind,
    pub(super) started_at: Timestamp,
    pub(super) granted_at: Steady,
    /// What it is counted by.
    pub(super) limit_key: Arc<str>,
}

/// A bounded memory of stored calls.
#[derive(Debug, Default)]
pub(super) struct Known {
    young: IdMap<CallId, Stored>,
    old: IdMap<CallId, Stored>,
    /// The last limit key that was met: mostly the next one is the same.
    limit_key: Option<Arc<str>>,
    /// How far the attempts that have ended are numbered and summed up.
    pub(super) account: Option<Account>,
    /// Attempts of calls that are not stored, which have ended since old sums were last summed up again.
    pub(super) grant_ends: usize,
}

impl Known {
    /// Takes a call out of memory; who changes it puts back what it has become.
    pub(super) fn take(&mut self, call: CallId) -> Option<Stored> {
        self.young.remove(&call).or_else(|| self.old.remove(&call))
    }

    pub(super) fn put(&mut self, call: CallId, stored: Stored) {
        if self.young.len() >= GENERATION_CALLS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(call, stored);
    }

    /// Something failed, or another epoch begins: nothing is known.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The limit key, shared with the calls that have the same.
    pub(super) fn shared(&mut self, limit_key: &str) -> Arc<str> {
        match &self.limit_key {
            Some(last) if **last == *limit_key => Arc::clone(last),
            _ => Arc::clone(self.limit_key.insert(Arc::from(limit_key))),
        }
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::call::State;

    use super::*;

    fn stored(seq: i64) -> Stored {
        let standing = Standing { state: State::Queued, filed: true, attempts: 0, waits: true };
        let lane = Lane { of_callbacks: false, priority: 3, tenant: 0 };
        Stored {
            seq,
            standing,
            ready_at: None,
            limit_key: Arc::from("a"),
            cost: 1,
            lane,
            deadline: None,
            is_keyed: false,
            is_live: false,
            started_at: None,
            open: None,
        }
    }

    #[test]
    fn calls_that_nobody_meets_are_forgotten_and_others_are_not() {
        let mut known = Known::default();
        let id = |n: usize| CallId::from_bits(n as u128);
        known.put(id(0), stored(0));
        for n in 1..GENERATION_CALLS_MAX * 5 {
            known.put(id(n), stored(1));
            let met = known.take(id(0)).expect("a call that is met is known");
            known.put(id(0), met);
            assert!(known.young.len() + known.old.len() <= 2 * GENERATION_CALLS_MAX);
        }
        assert!(known.take(id(1)).is_none());
        assert!(known.take(id(GENERATION_CALLS_MAX * 5 - 1)).is_some());
    }

    #[test]
    fn calls_of_one_limit_key_share_it() {
        let mut known = Known::default();
        let first = known.shared("a");
        assert!(Arc::ptr_eq(&first, &known.shared("a")));
        assert_eq!(&*known.shared("b"), "b");
    }
}
