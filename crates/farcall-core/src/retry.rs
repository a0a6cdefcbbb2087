//! When a call is tried again, and what an unanswered attempt means.
//!
//! [`RetryPolicy`] is the resolved configuration; the dispatcher asks it for delays. The delay forms and their
//! formulas are those of the contract, section 3.

use std::time::Duration;

use crate::call::Method;

/// The longest backoff we ever compute; longer ones are the same to everybody.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Whether an attempt without a complete answer may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// Repeat it: at least once.
    Retry,
    /// End the call `unknown`: at most once.
    Stop,
}

/// Whether a delay is shortened by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Uniform between zero and the delay.
    Full,
    None,
}

/// How long to wait before retry n, n from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backoff {
    /// Always the same: `wait`.
    Constant(Duration),
    /// `base * factor^(n-1)`.
    Geometric { base: Duration, factor: f64 },
    /// `f * 2^(n-2)` seconds: for f = 2 it is 1, 2, 4, 8, 16.
    Factor(f64),
}

/// A number in `[0, 1)`, drawn outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fraction(pub f64);

/// A set of HTTP status codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

/// Which methods may be repeated for a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MethodSet {
    All,
    /// Upper-case names.
    Only(Vec<String>),
}

/// The retry settings of an upstream or a call, all of them resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Retries after the first attempt, per round.
    pub max: u32,
    pub backoff: Backoff,
    /// No delay is longer.
    pub max_delay: Duration,
    pub jitter: Jitter,
    pub statuses: StatusSet,
    pub methods: MethodSet,
    /// Rounds after the first, each from the back of the queue with all retries restored.
    pub requeue: u32,
    /// Waits for Retry-After that do not use up a retry.
    pub throttle_max: u32,
    pub retry_after_max: Duration,
}

impl StatusSet {
    /// The inclusive ranges given; a single code is a range of one.
    pub const fn new(ranges: Vec<(u16, u16)>) -> Self {
        Self(ranges)
    }

    /// 200 to 299.
    pub fn success() -> Self {
        Self(vec![(200, 299)])
    }

    /// 408 425 429 500 502-504 521 522 524.
    pub fn retryable() -> Self {
        Self(
            [408, 425, 429, 500]
                .map(|code| (code, code))
                .into_iter()
                .chain([(502, 504), (521, 522), (524, 524)])
                .collect(),
        )
    }

    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }

    /// The ranges, as given.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }
}

impl MethodSet {
    pub fn contains(&self, method: Method) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => method.name().is_some_and(|own| names.iter().any(|name| name == own)),
        }
    }
}

impl RetryPolicy {
    /// The default of durable calls: 5 retries, 1 s doubling to 1 h, full jitter.
    pub fn durable() -> Self {
        Self {
            max: 5,
            backoff: Backoff::Geometric { base: Duration::from_secs(1), factor: 2.0 },
            max_delay: Duration::from_secs(3_600),
            jitter: Jitter::Full,
            statuses: StatusSet::retryable(),
            methods: MethodSet::All,
            requeue: 0,
            throttle_max: 100,
            retry_after_max: Duration::from_secs(86_400),
        }
    }

    /// The default of ephemeral calls and of kofaf.yml: no retries.
    pub fn none() -> Self {
        Self { max: 0, ..Self::durable() }
    }

    /// Whether an answer to retry is simply the answer.
    pub const fn is_none(&self) -> bool {
        self.max == 0 && self.requeue == 0
    }

    /// The wait before retry `n`, counted from 1 in each round.
    ///
    /// # Example
    /// ```
    /// # use farcall_core::retry::{Backoff, Fraction, Jitter, RetryPolicy};
    /// # use std::time::Duration;
    /// let policy = RetryPolicy { backoff: Backoff::Factor(2.0), jitter: Jitter::None, ..RetryPolicy::durable() };
    /// let waits: Vec<u64> = (1..=5).map(|n| policy.delay(n, Fraction(0.0)).as_secs()).collect();
    /// assert_eq!(waits, [1, 2, 4, 8, 16]);
    /// ```
    pub fn delay(&self, n: u32, chance: Fraction) -> Duration {
        let power = i32::try_from(n.max(1)).unwrap_or(i32::MAX) - 1;
        let seconds = match self.backoff {
            Backoff::Constant(wait) => wait.as_secs_f64(),
            Backoff::Geometric { base, factor } => base.as_secs_f64() * factor.powi(power),
            Backoff::Factor(factor) => factor * 2f64.powi(power - 1),
        };
        let full = Duration::try_from_secs_f64(seconds.min(DELAY_MAX.as_secs_f64())).unwrap_or(DELAY_MAX);
        let capped = full.min(self.max_delay);
        match self.jitter {
            Jitter::None => capped,
            Jitter::Full => capped.mul_f64(chance.0.clamp(0.0, 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(policy: &RetryPolicy, retries: u32) -> Vec<f64> {
        (1..=retries).map(|n| policy.delay(n, Fraction(1.0)).as_secs_f64()).collect()
    }

    #[test]
    fn each_form_follows_its_formula() {
        let with = |backoff| RetryPolicy { backoff, jitter: Jitter::None, ..RetryPolicy::durable() };
        assert_eq!(seconds(&with(Backoff::Constant(Duration::from_secs(2))), 3), [2.0, 2.0, 2.0]);
        assert_eq!(seconds(&with(Backoff::Factor(2.0)), 5), [1.0, 2.0, 4.0, 8.0, 16.0]);
        let geometric = Backoff::Geometric { base: Duration::from_millis(500), factor: 3.0 };
        assert_eq!(seconds(&with(geometric), 4), [0.5, 1.5, 4.5, 13.5]);
    }

    #[test]
    fn no_delay_exceeds_the_cap_and_huge_numbers_saturate() {
        let policy = RetryPolicy { jitter: Jitter::None, ..RetryPolicy::durable() };
        assert_eq!(policy.delay(u32::MAX, Fraction(0.5)), Duration::from_secs(3_600));
        let wild = RetryPolicy { backoff: Backoff::Factor(f64::MAX), max_delay: Duration::MAX, ..policy };
        assert_eq!(wild.delay(40, Fraction(0.5)), DELAY_MAX);
    }

    #[test]
    fn full_jitter_is_uniform_below_the_delay() {
        let policy = RetryPolicy::durable();
        assert_eq!(policy.delay(1, Fraction(0.0)), Duration::ZERO);
        assert_eq!(policy.delay(2, Fraction(0.5)), Duration::from_secs(1));
    }

    #[test]
    fn the_retryable_statuses_are_the_contracts() {
        let statuses = StatusSet::retryable();
        let listed: Vec<u16> = (100..600).filter(|&status| statuses.contains(status)).collect();
        assert_eq!(listed, [408, 425, 429, 500, 502, 503, 504, 521, 522, 524]);
    }
}
