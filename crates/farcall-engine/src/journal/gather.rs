//! Whether the writer waits for more turns before it commits: a sync costs the same for one call and for sixty.
//!
//! Only settlements are waited for: they come by themselves from attempts that are out, while whoever submits a call
//! waits for the answer. It is done only where many come at a time, never longer than [`WAIT_MAX`], and when a wait
//! did not pay the next commits go at once. PostgreSQL has the same as `commit_delay` and `commit_siblings`.

use std::time::Duration;

use farcall_store::port::Write;

/// The longest wait.
pub(super) const WAIT_MAX: Duration = Duration::from_micros(500);
/// Settlements of the last commit below which nobody waits.
const MANY: usize = 4;
/// Commits that go at once after a wait that did not pay.
const RESTS: u32 = 15;

/// What has been handed over since the last commit, and what the last one was like.
#[derive(Debug, Default)]
pub(super) struct Gather {
    settlements: usize,
    /// Somebody waits for one of the writes.
    is_urgent: bool,
    /// Attempts that are out.
    out: usize,
    /// Settlements of the last commit.
    last: usize,
    /// Those that were there when the wait began; nothing while nobody waits.
    began_with: Option<usize>,
    rests: u32,
}

impl Gather {
    /// A turn was handed over while so many attempts were out.
    pub(super) fn add(&mut self, writes: &[Write], out: usize) {
        self.out = out;
        self.add_left(writes);
    }

    /// A turn has to wait for the commit after the next one.
    pub(super) fn add_left(&mut self, writes: &[Write]) {
        self.settlements += writes.iter().filter(|write| matches!(write, Write::Settle(_))).count();
        self.is_urgent |= writes.iter().any(|write| matches!(write, Write::Insert(_)));
    }

    /// Whether the writer is to wait.
    pub(super) fn begin(&mut self) -> bool {
        let is_resting = self.rests > 0;
        self.rests = self.rests.saturating_sub(1);
        if is_resting || self.last < MANY || self.has_all() {
            return false;
        }
        self.began_with = Some(self.settlements);
        true
    }

    /// Whether the commit may begin: nobody waits for more, or as much is here as is still out.
    pub(super) fn is_enough(&self) -> bool {
        self.began_with.is_none() || self.has_all()
    }

    /// The wait is over.
    pub(super) fn end(&mut self) {
        let Some(began_with) = self.began_with.take() else { return };
        if !self.has_all() && self.settlements < began_with * 2 {
            self.rests = RESTS;
        }
    }

    /// The writer has taken what was handed over.
    pub(super) fn taken(&mut self) {
        self.last = std::mem::take(&mut self.settlements);
        self.is_urgent = false;
    }

    const fn has_all(&self) -> bool {
        self.is_urgent || self.settlements >= self.out
    }
}

#[cfg(test)]
mod tests {
    use farcall_core::id::CallId;
    use farcall_core::steady::Steady;
    use farcall_store::port::Settle;

    use super::*;

    fn settlements(count: usize) -> Vec<Write> {
        let (at, call) = (Steady::from_micros(0), CallId::from_bits(1));
        let settle = Settle { at, call, attempt: None, progress: None, heading: None, response: None };
        (0..count).map(|_| Write::Settle(Box::new(settle.clone()))).collect()
    }

    /// After a commit of many.
    fn busy() -> Gather {
        let mut gather = Gather::default();
        gather.add(&settlements(MANY), 8);
        gather.taken();
        gather
    }

    #[test]
    fn a_commit_waits_until_as_much_is_here_as_is_out() {
        let mut gather = busy();
        gather.add(&settlements(1), 7);
        assert!(gather.begin() && !gather.is_enough());
        gather.add(&settlements(3), 4);
        assert!(gather.is_enough());
        gather.end();
        gather.taken();
        gather.add(&settlements(1), 7);
        assert!(gather.begin(), "a wait that paid is followed by another");
    }

    #[test]
    fn nobody_waits_while_little_is_going_on() {
        let mut gather = Gather::default();
        gather.add(&settlements(MANY - 1), 8);
        gather.taken();
        gather.add(&settlements(1), 7);
        assert!(!gather.begin() && gather.is_enough());
    }

    #[test]
    fn who_submits_a_call_is_not_made_to_wait() {
        let mut gather = busy();
        gather.add(&settlements(1), 7);
        assert!(gather.begin());
        gather.is_urgent = true;
        assert!(gather.is_enough());
    }

    #[test]
    fn after_a_wait_for_nothing_commits_go_at_once_for_a_while() {
        let mut gather = busy();
        gather.add(&settlements(4), 60);
        assert!(gather.begin());
        gather.end();
        for _ in 0..RESTS {
            gather.taken();
            gather.add(&settlements(4), 60);
            assert!(!gather.begin());
        }
        gather.taken();
        gather.add(&settlements(4), 60);
        assert!(gather.begin(), "it may pay by now");
    }
}
