//! What arrived: when, and which of the numbered calls how often.
//!
//! Bounded: beyond [`ARRIVALS_MAX`] arrivals are counted without their time, numbers beyond [`NUMBERS_MAX`] are no
//! number.

use serde_json::{Value, json};

const ARRIVALS_MAX: usize = 4_000_000;
const NUMBERS_MAX: usize = 4_000_000;

/// All arrivals since the last reset.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: u64,
    /// In microseconds, ascending.
    arrivals_us: Vec<u64>,
    seen: Vec<bool>,
    distinct: u64,
    /// Arrivals of a number that had arrived before.
    repeats: u64,
}

impl Tally {
    pub(crate) fn arrived(&mut self, at_us: u64, number: Option<usize>) {
        self.count += 1;
        if self.arrivals_us.len() < ARRIVALS_MAX {
            self.arrivals_us.push(at_us);
        }
        let Some(number) = number.filter(|&number| number < NUMBERS_MAX) else { return };
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        if std::mem::replace(&mut self.seen[number], true) {
            self.repeats += 1;
        } else {
            self.distinct += 1;
        }
    }

    pub(crate) fn summary(&self) -> Value {
        json!({
            "count": self.count,
            "distinct": self.distinct,
            "repeats": self.repeats,
            "first_us": self.arrivals_us.first(),
            "last_us": self.arrivals_us.last(),
        })
    }

    /// The most arrivals in any window of this length, wherever it begins; its end is outside.
    pub(crate) fn worst(&self, window_us: u64) -> usize {
        let mut first = 0;
        let mut worst = 0;
        for (last, &at) in self.arrivals_us.iter().enumerate() {
            while at - self.arrivals_us[first] >= window_us {
                first += 1;
            }
            worst = worst.max(last + 1 - first);
        }
        worst
    }

    /// The first arrival from this moment on.
    pub(crate) fn after(&self, since_us: u64) -> Option<u64> {
        self.arrivals_us.get(self.arrivals_us.partition_point(|&at| at < since_us)).copied()
    }

    /// Arrivals from the first one on, before so many microseconds had passed.
    pub(crate) fn within(&self, span_us: u64) -> usize {
        let Some(first) = self.arrivals_us.first() else { return 0 };
        self.arrivals_us.partition_point(|at| at - first < span_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(arrivals: &[(u64, usize)]) -> Tally {
        let mut tally = Tally::default();
        arrivals.iter().for_each(|&(at, number)| tally.arrived(at, Some(number)));
        tally
    }

    #[test]
    fn calls_that_come_twice_are_told_from_those_that_come_once() {
        let summary = tally(&[(5, 0), (6, 7), (9, 7)]).summary();
        assert_eq!((&summary["count"], &summary["distinct"], &summary["repeats"]), (&3.into(), &2.into(), &1.into()));
        assert_eq!((&summary["first_us"], &summary["last_us"]), (&5.into(), &9.into()));
    }

    #[test]
    fn the_worst_window_may_begin_anywhere() {
        let tally = tally(&[(0, 0), (90, 1), (100, 2), (189, 3), (190, 4)]);
        assert_eq!((tally.worst(100), tally.worst(101), tally.worst(1)), (3, 4, 1));
        assert_eq!((tally.within(100), tally.within(101)), (2, 3));
        assert_eq!((tally.after(90), tally.after(91), tally.after(191)), (Some(90), Some(100), None));
        assert_eq!((Tally::default().worst(100), Tally::default().within(1)), (0, 0));
    }
}
