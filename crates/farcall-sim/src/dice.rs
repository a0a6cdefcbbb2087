//! All chance of a run, from its seed. The same seed throws the same dice.
//!
//! Nobody else in this crate may throw any.

use std::time::Duration;

/// A seeded source of choices.
#[derive(Debug, Clone)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Dice of their own, so that what one part throws does not shift what another gets.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    pub(crate) fn seed(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub(crate) fn bits(&mut self) -> u128 {
        self.0.u128(..)
    }

    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    /// Between the two, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..=high.max(low))
    }

    /// A count between the two, both included.
    pub(crate) fn count(&mut self, low: u32, high: u32) -> u32 {
        self.0.u32(low..=high.max(low))
    }

    /// Between the two, both included; every order of magnitude is as likely as the next.
    pub(crate) fn spread(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (low.as_secs_f64().max(1e-6), high.as_secs_f64().max(1e-6));
        let exponent = low.ln() + (high.ln() - low.ln()).max(0.0) * self.0.f64();
        micros(Duration::from_secs_f64(exponent.exp()))
    }

    /// A count between the two; small ones are as likely as large ones.
    pub(crate) fn spread_count(&mut self, low: u32, high: u32) -> u32 {
        let (low, high) = (f64::from(low.max(1)), f64::from(high) + 0.99);
        (low.ln() + (high.ln() - low.ln()) * self.0.f64()).exp() as u32
    }

    /// Between zero and this, evenly.
    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.between(0, u64::try_from(longest.as_micros()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.0.usize(..from.len())]
    }

    /// The index of one of these weights, in proportion to them.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.0.u32(..weights.iter().sum::<u32>());
        for (index, &weight) in weights.iter().enumerate() {
            if left < weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("the weights sum to more than was drawn")
    }
}

/// The simulated clocks count whole microseconds.
const fn micros(duration: Duration) -> Duration {
    Duration::from_micros(duration.as_micros() as u64)
}
