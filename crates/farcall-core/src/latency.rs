//! How long an upstream's attempts take, learned as they end: percentiles over the last few thousand.
//!
//! A histogram of logarithmic buckets, each split into sixteen of equal width, as Gil Tene's HdrHistogram has them: what it answers
//! is never less than the exact percentile, and at most a sixteenth more. Two generations are kept and the older one is dropped, as in
//! tower's `RotatingHistogram`, so that it follows an upstream that changes. 2 kB, no I/O, no clock.

use std::time::Duration;

use crate::hedge::Percentile;
use crate::time::Instant;

/// Buckets of equal width in each power of two.
const SPLIT: u64 = 16;
/// The largest time told apart, in microseconds: over an hour.
const MICROS_MAX: u64 = u32::MAX as u64;
const BUCKETS: usize = 464;
/// A generation ends when it has so many samples, or is that old.
const GENERATION_SAMPLES: u16 = 2_000;
const GENERATION_AGE: Duration = Duration::from_secs(3_600);
/// Nothing is answered on fewer samples.
const SAMPLES_MIN: u32 = 20;
/// Nor when fewer of them than that lie beyond the percentile, on average.
const BEYOND_MIN: u32 = 2;

/// What is known of an upstream.
#[derive(Debug, Clone)]
pub struct Latencies {
    recent: Box<Generation>,
    before: Box<Generation>,
    /// When the recent generation began.
    since: Instant,
}

#[derive(Debug, Clone)]
struct Generation {
    count: u16,
    buckets: [u16; BUCKETS],
}

impl Latencies {
    /// Knows nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { recent: Box::default(), before: Box::default(), since: now }
    }

    /// An attempt took this long; one that was cut off took that long at least.
    pub fn note(&mut self, now: Instant, took: Duration) {
        self.forget(now);
        self.recent.note(took);
        if self.recent.count >= GENERATION_SAMPLES {
            self.turn_over(now);
        }
    }

    /// Within which time this part of the attempts ended; nothing while too little is known.
    ///
    /// # Example
    /// ```
    /// # use farcall_core::{hedge::Percentile, latency::Latencies, time::Instant};
    /// # use std::time::Duration;
    /// let (now, p90) = (Instant::from_micros(0), Percentile::from_permille(900).unwrap());
    /// let mut latencies = Latencies::new(now);
    /// (1..=19).for_each(|ms| latencies.note(now, Duration::from_millis(ms)));
    /// assert_eq!(latencies.percentile(now, p90), None);
    /// latencies.note(now, Duration::from_secs(1));
    /// let after = latencies.percentile(now, p90).unwrap();
    /// assert!((Duration::from_millis(18)..Duration::from_millis(20)).contains(&after));
    /// ```
    pub fn percentile(&mut self, now: Instant, percentile: Percentile) -> Option<Duration> {
        self.forget(now);
        let count = u32::from(self.recent.count) + u32::from(self.before.count);
        if count < samples_min(percentile) {
            return None;
        }
        // The nearest rank: the smallest value that so many do not exceed.
        let rank = (count * u32::from(percentile.permille())).div_ceil(1_000);
        let mut seen = 0;
        let both = self.recent.buckets.iter().zip(&self.before.buckets);
        let place = both.map(|(&recent, &before)| u32::from(recent) + u32::from(before)).position(|in_bucket| {
            seen += in_bucket;
            seen >= rank
        });
        place.map(|place| Duration::from_micros(upper_edge(place)))
    }

    /// Drops what is too old.
    fn forget(&mut self, now: Instant) {
        let age = now.since(self.since);
        if age >= GENERATION_AGE {
            self.turn_over(now);
        }
        if age >= GENERATION_AGE * 2 {
            *self.before = Generation::default();
        }
    }

    fn turn_over(&mut self, now: Instant) {
        std::mem::swap(&mut self.recent, &mut self.before);
        *self.recent = Generation::default();
        self.since = now;
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self { count: 0, buckets: [0; BUCKETS] }
    }
}

impl Generation {
    fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
    }
}

/// Samples without which a percentile is a guess.
fn samples_min(percentile: Percentile) -> u32 {
    let beyond = 1_000 - u32::from(percentile.permille());
    SAMPLES_MIN.max((BEYOND_MIN * 1_000).div_ceil(beyond))
}

/// The first sixteen are exact, then sixteen for each power of two.
fn bucket(micros: u64) -> usize {
    let Some(power) = micros.checked_ilog2().filter(|&power| power >= SPLIT.ilog2()) else {
        return usize::try_from(micros).expect("less than sixteen");
    };
    let octave = power - SPLIT.ilog2();
    let within = (micros >> octave) - SPLIT;
    usize::try_from((u64::from(octave) + 1) * SPLIT + within).expect("a few hundred")
}

/// The largest value that belongs to a bucket.
fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SPLIT {
        return bucket;
    }
    let (octave, within) = (bucket / SPLIT - 1, bucket % SPLIT);
    ((SPLIT + within + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Instant = Instant::from_micros(0);

    fn p(permille: u16) -> Percentile {
        Percentile::from_permille(permille).expect("it is one")
    }

    fn of(micros: &[u64]) -> Latencies {
        let mut latencies = Latencies::new(NOW);
        micros.iter().for_each(|&micros| latencies.note(NOW, Duration::from_micros(micros)));
        latencies
    }

    proptest! {
        #[test]
        fn every_time_lies_in_its_bucket(micros in 0..=MICROS_MAX) {
            let edge = upper_edge(bucket(micros));
            prop_assert!(micros <= edge && edge - micros <= micros / SPLIT, "{micros} {edge}");
            prop_assert!(bucket(micros) < BUCKETS);
        }

        #[test]
        fn a_percentile_is_at_most_a_sixteenth_above_the_exact_one(
            mut micros in prop::collection::vec(0u64..100_000_000, 20..1_500),
            permille in 500u16..=999,
        ) {
            let found = of(&micros).percentile(NOW, p(permille));
            if micros.len() < samples_min(p(permille)) as usize {
                prop_assert_eq!(found, None);
                return Ok(());
            }
            micros.sort_unstable();
            let rank = (micros.len() * usize::from(permille)).div_ceil(1_000);
            let exact = micros[rank - 1];
            let found = u64::try_from(found.expect("enough is known").as_micros()).expect("short");
            prop_assert!(exact <= found && found <= exact + exact / SPLIT, "{found}, exactly {exact}");
        }

        #[test]
        fn an_upstream_that_changes_is_followed(before in 1u64..10_000_000, after in 1u64..10_000_000) {
            let mut latencies = of(&vec![before; 10_000]);
            (0..4_000).for_each(|_| latencies.note(NOW, Duration::from_micros(after)));
            let found = latencies.percentile(NOW, p(950)).expect("enough is known");
            let found = u64::try_from(found.as_micros()).expect("short");
            prop_assert!(after <= found && found <= after + after / SPLIT, "{found}, {after}");
        }
    }

    #[test]
    fn too_little_is_no_knowledge() {
        assert_eq!(samples_min(p(500)), 20);
        assert_eq!(samples_min(p(950)), 40);
        assert_eq!(samples_min(p(999)), 2_000);
        assert_eq!(of(&[1_000; 39]).percentile(NOW, p(950)), None);
        assert!(of(&[1_000; 40]).percentile(NOW, p(950)).is_some());
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut latencies = of(&[1_000; 100]);
        let hour = NOW + GENERATION_AGE;
        assert!(latencies.percentile(hour, p(950)).is_some(), "the generation before counts still");
        assert_eq!(latencies.percentile(hour + GENERATION_AGE, p(950)), None);
        assert_eq!(of(&[1_000; 100]).percentile(hour + GENERATION_AGE, p(950)), None, "even when nothing came since");
    }

    #[test]
    fn the_longest_times_count_as_the_longest_told_apart() {
        let mut latencies = Latencies::new(NOW);
        (0..40).for_each(|_| latencies.note(NOW, Duration::MAX));
        assert_eq!(latencies.percentile(NOW, p(950)), Some(Duration::from_micros(MICROS_MAX)));
    }
}
