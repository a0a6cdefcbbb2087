//! What was sent before a window began to count: what to ask a store for, and what it answers.
//!
//! Windows that a process starts with and windows that a changed policy adds ask alike.

use std::time::Duration;

use crate::id::AttemptId;
use crate::time::Instant;

/// What one window has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    /// It is there already, or is taken as full.
    #[default]
    Nothing,
    /// All that are open, and of those that were proved at `since` or later the ones that cool longest, at most so many.
    Latest { since: Instant, count: u32 },
    /// The same, however many; those that were proved are summed over times of the length of `step`, and count from the end of
    /// theirs.
    Sums { since: Instant, step: Duration },
}

/// What a store knows of an upstream's grants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// From when on the time between two moments is known for certain. What was proved before (in another boot) may
    /// have been proved just then, for all that a short window may believe.
    pub certain_since: Instant,
    /// What each window asked and was told, in the policy's order. One of which nothing is said is taken as full.
    pub windows: Vec<(Ask, Vec<PastGrant>)>,
}

/// A grant as its store kept it, or several that were summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastGrant {
    pub cost: u32,
    /// When its arrival was proved; nothing when it is still out.
    pub proved_at: Option<Instant>,
    /// Which it is, when it is still out.
    pub open: Option<AttemptId>,
}
