//! How many calls there are, by state: `accepted = pruned + sum of calls` at every moment.
//!
//! Every change of state is counted where it is made; nothing is ever counted anew.

use crate::call::State;

/// Counts of durable calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    pub accepted: u64,
    pub pruned: u64,
    /// In the order of [`State::ALL`].
    calls: [u64; State::ALL.len()],
}

impl Census {
    /// What a store counted.
    pub const fn new(accepted: u64, pruned: u64, calls: [u64; State::ALL.len()]) -> Self {
        Self { accepted, pruned, calls }
    }

    /// Calls in one state.
    pub const fn calls(&self, state: State) -> u64 {
        self.calls[state as usize]
    }

    /// Calls in all states together.
    pub fn sum(&self) -> u64 {
        self.calls.iter().sum()
    }

    pub(super) const fn accept(&mut self, state: State) {
        self.accepted += 1;
        self.calls[state as usize] += 1;
    }

    /// One that was accepted in memory only, and now is in this state, never was.
    pub(super) const fn refuse(&mut self, state: State) {
        self.accepted -= 1;
        self.calls[state as usize] -= 1;
    }

    /// One in this state is forgotten.
    pub(super) const fn prune(&mut self, state: State) {
        self.calls[state as usize] -= 1;
        self.pruned += 1;
    }

    /// One that was forgotten in memory only, and is in this state.
    pub(super) const fn keep(&mut self, state: State) {
        self.calls[state as usize] += 1;
        self.pruned -= 1;
    }

    pub(super) const fn change(&mut self, from: State, to: State) {
        self.calls[from as usize] -= 1;
        self.calls[to as usize] += 1;
    }
}
