//! Effects wait here until the writes they rest on are durable.
//!
//! Turns are numbered; the next may be taken while commits are in flight. An effect without writes goes at once, one
//! with writes when every write up to its number is durable.

use std::collections::VecDeque;

use crate::dispatcher::{Effect, Seq, Turn};

/// Holds back the effects of turns whose writes are not durable yet.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    waiting: VecDeque<(Seq, Vec<Effect>)>,
}

impl Gate {
    /// Takes a turn's effects in; gives back those that rest on nothing.
    ///
    /// # Panics
    /// When turns come out of order.
    pub fn hold(&mut self, turn: &mut Turn) -> Vec<Effect> {
        assert!(self.waiting.back().is_none_or(|(seq, _)| *seq < turn.seq), "turns come in order");
        let after = std::mem::take(&mut turn.effects_after);
        let now = std::mem::take(&mut turn.effects_now);
        if !after.is_empty() {
            self.waiting.push_back((turn.seq, after));
        }
        now
    }

    /// Every write up to `seq` is durable: the effects that may happen now, in order.
    pub fn committed(&mut self, seq: Seq) -> Vec<Effect> {
        let mut released = Vec::new();
        while let Some((_, effects)) = self.waiting.pop_front_if(|(held, _)| *held <= seq) {
            released.extend(effects);
        }
        released
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
