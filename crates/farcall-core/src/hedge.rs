//! Hedges: further attempts of a call whose attempt takes long, made before that has failed. The first success wins.
//!
//! Here stand the policy's words and the budget, pure. Which calls may be hedged is `policy`'s matter, how long an upstream's attempts
//! take is learned in `latency`, and when a hedge is started, and when it is kept back, is decided in the
//! dispatcher. Why each rule is as it is: `docs/design/0040`.

use crate::share::Share;
use std::time::Duration;

use crate::call::{WaitReason, words};

/// The most attempts that one round may add.
pub const EXTRA_MAX: u32 = 10;

/// How attempts of a call are hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgePolicy {
    pub after: HedgeDelay,
    /// Attempts added, all of them at once, for each try of a call: its first, and every retry.
    pub extra: u32,
    /// What part of first attempts may be added at most; nothing for no bound.
    pub budget: Option<Share>,
    /// They are added, too, as soon as all attempts of a try have failed; what those came to decides nothing then.
    pub on_failure: bool,
}

impl HedgePolicy {
    /// The budget of a learned delay when none is given. A fixed one has none then.
    pub const LEARNED_BUDGET: Share = Share::from_permille(100);
}

/// After how long an attempt without success is hedged, counted from its launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeDelay {
    Fixed(Duration),
    /// As long as this part of the upstream's attempts takes; none is hedged before enough is known.
    Learned(Percentile),
}

/// What a call says of its hedges, over its upstream's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedging {
    Never,
    By(HedgePolicy),
}

/// Below which part of the attempts a delay lies: from half of them to 999 in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percentile(u16);

impl Percentile {
    /// The percentile of so many in a thousand, or nothing outside 500 to 999.
    ///
    /// # Example
    /// ```
    /// # use farcall_core::hedge::Percentile;
    /// assert_eq!(Percentile::from_permille(950).map(Percentile::permille), Some(950));
    /// assert_eq!(Percentile::from_permille(1_000), None);
    /// ```
    pub const fn from_permille(permille: u16) -> Option<Self> {
        if permille >= 500 && permille <= 999 { Some(Self(permille)) } else { None }
    }

    /// In thousandths.
    pub const fn permille(self) -> u16 {
        self.0
    }
}

words! {
    /// Why an attempt that takes long is not hedged just now. None of these harms what is out.
    HeldBack {
        /// Calls wait for the same quota: what is spare is theirs.
        Waiting = "waiting",
        RateLimit = "rate_limit",
        Concurrency = "concurrency",
        Cooldown = "cooldown",
        BreakerOpen = "breaker_open",
        Paused = "paused",
        /// As many were made as the budget allows.
        Budget = "budget",
        /// Nothing is started: farcall stops, or the store cannot be written.
        Stopped = "stopped",
    }
}

impl From<WaitReason> for HeldBack {
    fn from(reason: WaitReason) -> Self {
        match reason {
            WaitReason::RateLimit => Self::RateLimit,
            WaitReason::Concurrency => Self::Concurrency,
            WaitReason::Cooldown => Self::Cooldown,
            WaitReason::BreakerOpen => Self::BreakerOpen,
            WaitReason::Paused => Self::Paused,
            WaitReason::NotBefore | WaitReason::Backoff | WaitReason::Fairness => Self::Waiting,
        }
    }
}

/// What an upstream may spend on hedges. Every first attempt that may be hedged adds its share, every hedge takes a whole:
/// the counter of Finagle's `RetryBudget` and tower's `TpsBudget`, without their floor, so that hedges are never more
/// than their share of first attempts. What is saved up is bounded, so that a quiet day buys no storm.
///
/// # Example
/// ```
/// # use farcall_core::hedge::HedgeBudget;
/// # use farcall_core::share::Share;
/// let mut budget = HedgeBudget::default();
/// (0..10).for_each(|_| budget.note_first(Share::from_permille(100)));
/// assert!(budget.take());
/// assert!(!budget.take(), "one in ten");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HedgeBudget {
    /// In parts of a hedge, as [`Share::parts`].
    saved: u32,
}

impl HedgeBudget {
    /// Hedges that can be saved up.
    pub const SAVED_MAX: u32 = 10;

    /// A first attempt was made.
    pub fn note_first(&mut self, share: Share) {
        self.saved = self.saved.saturating_add(share.parts()).min(Self::SAVED_MAX * Share::ALL.parts());
    }

    /// Takes what one hedge costs, if there is enough.
    pub const fn take(&mut self) -> bool {
        let Some(left) = self.saved.checked_sub(Share::ALL.parts()) else { return false };
        self.saved = left;
        true
    }

    /// A hedge that was paid for was not made.
    pub fn give_back(&mut self) {
        self.note_first(Share::ALL);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hedges_are_never_more_than_their_share(
            share in 1u32..=1_000,
            steps in prop::collection::vec(any::<bool>(), 0..2_000),
        ) {
            let mut budget = HedgeBudget::default();
            let (mut firsts, mut hedges) = (0u64, 0u64);
            for is_first in steps {
                if is_first {
                    budget.note_first(Share::from_permille(share));
                    firsts += 1;
                } else {
                    hedges += u64::from(budget.take());
                }
                prop_assert!(hedges * 1_000 <= firsts * u64::from(share), "{hedges} of {firsts}");
            }
        }

        #[test]
        fn what_is_saved_up_is_bounded(firsts in 0u32..100_000, share in 1u32..=1_000) {
            let mut budget = HedgeBudget::default();
            (0..firsts).for_each(|_| budget.note_first(Share::from_permille(share)));
            let burst = (0..1_000).filter(|_| budget.take()).count();
            prop_assert!(burst <= HedgeBudget::SAVED_MAX as usize);
        }
    }

    #[test]
    fn what_was_not_made_costs_nothing() {
        let mut budget = HedgeBudget::default();
        budget.note_first(Share::ALL);
        assert!(budget.take());
        budget.give_back();
        assert!(budget.take());
        assert!(!budget.take());
    }
}
