//! When slots are granted, one attempt after the other, if everything goes as fast as it can: the earliest that limits allow.
//!
//! Each attempt is granted as soon as every window has its slots, arrives and is answered at that moment, so that its slots
//! cool from then. Slots of attempts that are out now are taken as free: they may have sent nothing. So nothing that truly
//! happens is earlier, unless an attempt on the way sends nothing and gives its slots back. Windows are read, never
//! changed; what is not needed is not looked at.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::iter::Peekable;
use std::time::Duration;

use super::Limits;
use super::window::Window;
use crate::time::Instant;

/// The grants to come.
#[derive(Debug)]
pub struct Schedule<'a> {
    windows: Vec<Line<'a>>,
    /// With `smooth`: when the next grant may be, and how far apart they are.
    spacing: Option<(Instant, Duration)>,
    /// Nothing is granted before the one before it.
    at: Instant,
}

/// The slots of one window by the moment at which they are free.
#[derive(Debug)]
struct Line<'a> {
    window: &'a Window,
    /// Those that were looked at, and those that were granted here and cool again.
    near: BTreeMap<Instant, u64>,
    /// Those that cool now, from the first that was not looked at.
    far: Peekable<Iter<'a, Instant, u64>>,
}

impl Limits {
    /// The grants that can be made from `begins` on.
    pub fn schedule(&self, begins: Instant) -> Schedule<'_> {
        let windows = self.windows.iter().map(|window| Line::of(window, begins)).collect();
        let spacing = self.smooth.map(|spacing| (spacing.next(), spacing.interval));
        Schedule { windows, spacing, at: begins }
    }
}

impl Schedule<'_> {
    /// When an attempt of this cost could start.
    pub fn next(&self, cost: u32) -> Instant {
        let spaced = self.spacing.map_or(self.at, |(next, _)| next.max(self.at));
        self.windows.iter().map(|line| line.free(cost)).fold(spaced, Instant::max)
    }

    /// An attempt of this cost starts then, at the moment that [`Schedule::next`] gave.
    pub fn take(&mut self, cost: u32, at: Instant) {
        self.windows.iter_mut().for_each(|line| line.take(cost, at));
        if let Some((next, interval)) = &mut self.spacing {
            *next = at + *interval * cost;
        }
        self.at = at;
    }
}

impl<'a> Line<'a> {
    fn of(window: &'a Window, begins: Instant) -> Self {
        let (count, cooling, far) = window.cooling();
        let mut near = BTreeMap::new();
        if count > cooling {
            near.insert(begins, count - cooling);
        }
        let mut line = Self { window, near, far: far.peekable() };
        // Of a lowered count those slots remain that are free last.
        line.drop_first(cooling.saturating_sub(count));
        line
    }

    /// When so many are free.
    fn free(&self, cost: u32) -> Instant {
        let (mut near, mut far) = (self.near.iter().peekable(), self.far.clone());
        let mut missing = u64::from(cost);
        let mut at = Instant::MIN;
        while missing > 0 {
            let from_near = match (near.peek(), far.peek()) {
                (Some((one, _)), Some((other, _))) => one <= other,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                // Costs are capped by the smallest window.
                (None, None) => return at,
            };
            let next = if from_near { near.next() } else { far.next() };
            let Some((&free_at, &slots)) = next else { return at };
            (at, missing) = (free_at, missing.saturating_sub(slots));
        }
        at
    }

    fn take(&mut self, cost: u32, at: Instant) {
        self.drop_first(u64::from(cost));
        *self.near.entry(self.window.free_at(at)).or_default() += u64::from(cost);
    }

    /// The first of them are gone.
    fn drop_first(&mut self, mut slots: u64) {
        while slots > 0 {
            let is_far_first = match (self.near.first_key_value(), self.far.peek()) {
                (Some((one, _)), Some((other, _))) => *other < one,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if is_far_first && let Some((&at, &count)) = self.far.next() {
                *self.near.entry(at).or_default() += count;
            }
            let Some(mut first) = self.near.first_entry() else { return };
            let gone = slots.min(*first.get());
            *first.get_mut() -= gone;
            slots -= gone;
            if *first.get() == 0 {
                first.remove();
            }
        }
    }
}
