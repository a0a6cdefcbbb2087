//! A share of something, as people write it in percent: of failures, of retries.
//!
//! Kept in hundredths of a percent and compared in whole numbers, so that no rounding differs from machine to machine.

/// A share between nothing and all, in hundredths of a percent.
///
/// # Example
/// ```
/// # use farcall_core::share::Share;
/// let fifth = Share::from_percent(20.0).expect("between 0 and 100");
/// assert_eq!((fifth.of(99), fifth.of(100)), (19, 20));
/// assert!(fifth.is_reached(20, 100) && !fifth.is_reached(19, 100));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// Of 100 %.
const WHOLE: u32 = 10_000;

impl Share {
    /// 100 %.
    pub const ALL: Self = Self(WHOLE);

    /// So many thousandths; all of it from a thousand on.
    pub const fn from_permille(permille: u32) -> Self {
        if permille < 1_000 { Self(permille * 10) } else { Self::ALL }
    }

    /// In hundredths of a percent.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// Nothing outside 0 to 100; what is finer than a hundredth of a percent is rounded.
    pub fn from_percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        let parts = (percent * 100.0).round() as u32;
        Some(Self(parts))
    }

    /// In percent.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// How much of so many that is, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let parts = u128::from(whole) * u128::from(self.0) / u128::from(WHOLE);
        u64::try_from(parts).unwrap_or(u64::MAX)
    }

    /// Whether `part` is at least this much of `whole`.
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(WHOLE) >= u128::from(whole) * u128::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_share_is_none() {
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::from_percent(percent), None, "{percent}");
        }
    }

    #[test]
    fn fractions_of_a_percent_count() {
        let share = Share::from_percent(12.5).expect("a share");
        assert_eq!((share.percent(), share.of(80), share.of(79)), (12.5, 10, 9));
    }
}
