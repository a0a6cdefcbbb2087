//! Stored calls that do not read back: each is told of once, and counted, so that nobody waits for its end.
//!
//! They stay as they are in the store, and are never sent: what they say cannot be trusted.

use std::collections::BTreeSet;

use farcall_store::record::Damaged;

/// Those met since the start.
#[derive(Debug, Default)]
pub(super) struct DamagedCalls {
    /// By id, or by what the store said where that is not known.
    met: BTreeSet<String>,
    /// Those that have not ended.
    live: u64,
}

impl DamagedCalls {
    /// Those met at the start, which are told of.
    pub(super) fn met(damaged: Vec<Damaged>) -> Self {
        let mut calls = Self::default();
        calls.note(damaged);
        calls
    }

    /// Tells of those that are new; says whether there are any.
    pub(super) fn note(&mut self, damaged: Vec<Damaged>) -> bool {
        let before = self.met.len();
        for Damaged { call, is_live, what } in damaged {
            let name = call.map_or_else(|| what.clone(), |call| call.to_string());
            if self.met.insert(name.clone()) {
                self.live += u64::from(is_live);
                tracing::error!(call = name, error = what, "a stored call is damaged and is left alone");
            }
        }
        self.met.len() > before
    }

    /// Those that have not ended, and never will.
    pub(super) const fn live(&self) -> u64 {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::id::CallId;

    use super::*;

    #[test]
    fn a_damaged_call_counts_once_however_often_it_is_met() {
        let what = || "no such word".to_owned();
        let one = |n| Damaged { call: Some(CallId::from_bits(n)), is_live: n != 2, what: what() };
        let mut damaged = DamagedCalls::default();
        assert!(damaged.note(vec![one(1), one(2), one(1)]));
        assert!(!damaged.note(vec![one(2)]));
        assert_eq!(damaged.live(), 1, "the other one has ended");
    }
}
