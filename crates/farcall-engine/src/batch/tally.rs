//! What a batch's lines have come to: how many results of each state.
//!
//! Blank lines have none. What was read back from an output counts like what is written now.

use std::collections::BTreeMap;

use farcall_core::call::State;
use serde::{Deserialize, Serialize};

/// The state that a line has which was no valid call.
pub(super) const REJECTED: &str = "rejected";

/// Results by state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Counts a result.
    pub fn add(&mut self, state: &str) {
        match self.0.get_mut(state) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(state.to_owned(), 1)),
        }
    }

    /// All results.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Results that are neither `succeeded` nor `cancelled`.
    pub fn failed(&self) -> u64 {
        let is_failed = |state: &str| ![State::Succeeded, State::Cancelled].iter().any(|end| end.as_str() == state);
        self.0.iter().filter(|(state, _)| is_failed(state)).map(|(_, count)| count).sum()
    }

    /// Results of lines that were no valid calls.
    pub fn rejected(&self) -> u64 {
        self.0.get(REJECTED).copied().unwrap_or(0)
    }

    /// States and counts, without those that did not occur: the good one first, then by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        let good = State::Succeeded.as_str();
        let first = self.0.get_key_value(good);
        let others = self.0.iter().filter(move |(state, _)| state.as_str() != good);
        first.into_iter().chain(others).map(|(state, &count)| (state.as_str(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_two_ends_are_failures() {
        let mut tally = Tally::default();
        for state in ["failed", "succeeded", "cancelled", "rejected", "succeeded", "unknown"] {
            tally.add(state);
        }
        assert_eq!((tally.total(), tally.failed(), tally.rejected()), (6, 3, 1));
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!(counts, [("succeeded", 2), ("cancelled", 1), ("failed", 1), ("rejected", 1), ("unknown", 1)]);
    }
}
