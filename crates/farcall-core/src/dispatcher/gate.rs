//! Turns on their way to the disk, and the effects that wait for them.
//!
//! Turns are numbered, and several may be under way. An effect goes when every write up to its turn's number is durable.
//! A turn that fails takes all later ones with it: what was written after it may rest on it.

use std::collections::VecDeque;

use super::{Census, Effect, Seq, Write};

/// Holds back what rests on writes that are not durable yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    held: VecDeque<Held>,
}

/// A turn that was handed over and is not durable yet.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) seq: Seq,
    pub(super) writes: Vec<Write>,
    pub(super) effects: Vec<Effect>,
    /// The counts once it is durable.
    pub(super) census: Census,
}

impl Gate {
    /// # Panics
    /// When turns come out of order.
    pub(super) fn hold(&mut self, held: Held) {
        assert!(self.held.back().is_none_or(|last| last.seq < held.seq), "turns come in order");
        self.held.push_back(held);
    }

    /// The next turn that is durable, if every write up to `seq` is.
    pub(super) fn pop_durable(&mut self, seq: Seq) -> Option<Held> {
        self.held.pop_front_if(|held| held.seq <= seq)
    }

    /// The turn `seq` was not made durable: it and all after it, in order.
    pub(super) fn take_failed(&mut self, seq: Seq) -> Vec<Held> {
        let first = self.held.iter().position(|held| held.seq >= seq).unwrap_or(self.held.len());
        self.held.split_off(first).into()
    }

    /// The turn handed over last that is not durable yet.
    pub(super) fn last_mut(&mut self) -> Option<&mut Held> {
        self.held.back_mut()
    }

    /// What is not durable yet.
    pub(super) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.held.iter().flat_map(|held| &held.writes)
    }

    /// Turns under way.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
