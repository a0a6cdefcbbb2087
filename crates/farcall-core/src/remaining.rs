//! What an answer says of how much more its upstream takes, and until when.
//!
//! Plain data, small enough to travel with every answer. How it is read from headers is the executor's business, what it
//! keeps from starting that of `limit`.

use std::time::Duration;

/// Bounds that one answer may give: a quota of calls, one of tokens, one of the day.
const BOUNDS_MAX: usize = 3;

/// At most so much more, for so long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bound {
    remaining: u32,
    resets_in_ms: u32,
}

/// All that one answer says, one bound at least.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use farcall_core::remaining::{Bound, Remaining};
///
/// let second = Bound::new(9, Duration::from_secs(1));
/// let day = Bound::new(4, Duration::from_secs(3_600));
/// let said = Remaining::of([second, day]).expect("two bounds");
/// assert_eq!(said.bounds(), [day], "who takes 4 in an hour takes no 9 in its first second");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    bounds: [Bound; BOUNDS_MAX],
    count: u8,
}

impl Bound {
    /// Saturates; times are rounded up to milliseconds.
    pub fn new(remaining: u64, resets_in: Duration) -> Self {
        let resets_in_ms = u32::try_from(resets_in.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        Self { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), resets_in_ms }
    }

    /// Slots that may be taken still, beyond those that whoever said it had counted.
    pub const fn remaining(self) -> u32 {
        self.remaining
    }

    /// From when on it says nothing any more.
    pub const fn resets_in(self) -> Duration {
        Duration::from_millis(self.resets_in_ms as u64)
    }
}

impl Remaining {
    /// What these bounds say together; nothing when none of them holds for any time. One that follows from another is left
    /// out; of more than there is room for the tightest are kept, and the one that holds longest.
    pub fn of(bounds: impl IntoIterator<Item = Bound>) -> Option<Self> {
        let mut bounds: Vec<Bound> = bounds.into_iter().filter(|bound| bound.resets_in_ms > 0).collect();
        bounds.sort_unstable_by_key(|bound| (bound.remaining, std::cmp::Reverse(bound.resets_in_ms)));
        let mut longest = 0;
        bounds.retain(|bound| {
            let says_more = bound.resets_in_ms > longest;
            longest = longest.max(bound.resets_in_ms);
            says_more
        });
        if bounds.len() > BOUNDS_MAX {
            bounds.drain(BOUNDS_MAX - 1..bounds.len() - 1);
        }
        let mut said = Self { bounds: [Bound::default(); BOUNDS_MAX], count: u8::try_from(bounds.len()).ok()? };
        said.bounds[..bounds.len()].copy_from_slice(&bounds);
        (!bounds.is_empty()).then_some(said)
    }

    /// The tightest first; each of the others leaves more, and holds longer.
    pub fn bounds(&self) -> &[Bound] {
        &self.bounds[..usize::from(self.count)]
    }

    /// For how long nothing at all is taken, if the quota is used up.
    pub fn exhausted_for(&self) -> Option<Duration> {
        self.bounds().first().filter(|bound| bound.remaining == 0).map(|bound| bound.resets_in())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(remaining: u64, seconds: u64) -> Bound {
        Bound::new(remaining, Duration::from_secs(seconds))
    }

    fn check(bounds: &[(u64, u64)], expected: &[(u64, u64)]) {
        let said = Remaining::of(bounds.iter().map(|&(remaining, seconds)| bound(remaining, seconds)));
        let expected: Vec<Bound> = expected.iter().map(|&(remaining, seconds)| bound(remaining, seconds)).collect();
        assert_eq!(said.as_ref().map_or(&[][..], Remaining::bounds), expected, "{bounds:?}");
    }

    #[test]
    fn what_follows_from_another_bound_is_left_out() {
        check(&[(5, 10), (5, 60), (7, 30), (9, 90)], &[(5, 60), (9, 90)]);
        check(&[(3, 60), (3, 60)], &[(3, 60)]);
        check(&[(0, 0)], &[]);
        check(&[], &[]);
    }

    #[test]
    fn the_tightest_and_the_one_that_holds_longest_are_kept() {
        check(&[(4, 40), (1, 10), (5, 50), (2, 20), (3, 30)], &[(1, 10), (2, 20), (5, 50)]);
    }

    #[test]
    fn numbers_saturate_and_times_are_rounded_up() {
        let said = Bound::new(u64::MAX, Duration::from_nanos(1));
        assert_eq!((said.remaining(), said.resets_in()), (u32::MAX, Duration::from_millis(1)));
        assert_eq!(Bound::new(0, Duration::MAX).resets_in(), Duration::from_millis(u64::from(u32::MAX)));
    }

    #[test]
    fn a_quota_is_used_up_for_as_long_as_any_bound_of_zero_holds() {
        let said = |bounds: &[Bound]| Remaining::of(bounds.iter().copied()).expect("bounds").exhausted_for();
        assert_eq!(said(&[bound(0, 5), bound(0, 60), bound(8, 90)]), Some(Duration::from_secs(60)));
        assert_eq!(said(&[bound(1, 60)]), None);
    }
}
