//! What an upstream tells of its quota, reconciled with what we have sent: downward only.
//!
//! An answer says that `remaining` more are taken until some moment, counted by whoever said it when the request came. It
//! has counted every attempt of which we knew that it had arrived before that request left; the others may have been
//! counted or not, so they are taken off what remains until an answer of their own, or one to a later request, settles
//! it. What one answer says is out of date once another comes to a request that left after the first was heard. Until
//! then the two may come in either order, and the lower one holds. Nothing here lets more start than the windows do.
//! Why so: `docs/design/0042`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::remaining::Remaining;
use crate::time::Instant;

/// What was heard that is kept; older bounds are joined.
const HEARD_MAX: usize = 64;
/// Moments of arrival that are told apart; of older ones the later counts.
const ARRIVED_MAX: usize = 1_024;

/// Resets that are no further apart are the same one: they are told in whole seconds.
const SAME_RESET: Duration = Duration::from_secs(2);

/// What is known of one upstream's own account.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// In the order in which it was heard; none follows from a later one.
    heard: Vec<Heard>,
    /// Attempts that have not ended.
    out: u32,
    /// Slots of attempts of which no arrival is proved.
    under_way: u64,
    /// Slots of attempts that have arrived by these moments, in order. What was heard counts those from before its request.
    arrived: VecDeque<(Instant, u64)>,
}

/// At most so many slots more until then, of those that were not counted.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    /// The request that was answered so left then at the earliest.
    sent: Instant,
    remaining: u64,
    /// Slots of that request, as long as they stand among those that may not be counted.
    own: u64,
    until: Instant,
}

/// What the upstream may know of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Nobody knows whether it has arrived.
    UnderWay,
    /// It has arrived by then.
    By(Instant),
    /// What was heard counts it, or it never arrives.
    Settled,
}

impl Told {
    /// An attempt takes so many slots.
    pub(super) fn take(&mut self, cost: u32) -> Counted {
        // Whatever is heard from now on counts all that was.
        if self.out == 0 && self.heard.is_empty() {
            self.arrived.clear();
        }
        self.out += 1;
        self.under_way += cost as u64;
        Counted::UnderWay
    }

    /// Its arrival is proved to lie before `by`. Of two proofs the earlier holds.
    pub(super) fn arrive(&mut self, counted: &mut Counted, cost: u32, by: Instant) {
        match *counted {
            Counted::Settled => return,
            Counted::By(before) if before <= by => return,
            Counted::UnderWay | Counted::By(_) => self.settle(counted, cost),
        }
        *counted = Counted::By(by);
        let place = self.arrived.partition_point(|&(at, _)| at < by);
        match self.arrived.get_mut(place).filter(|(at, _)| *at == by) {
            Some((_, slots)) => *slots += u64::from(cost),
            None => self.arrived.insert(place, (by, u64::from(cost))),
        }
        if self.arrived.len() > ARRIVED_MAX {
            let oldest = self.arrived.pop_front().map_or(0, |(_, slots)| slots);
            self.arrived[0].1 += oldest;
        }
    }

    /// It has ended, and arrived before `by` if it did not before.
    pub(super) fn end(&mut self, counted: &mut Counted, cost: u32, by: Instant) {
        self.arrive(counted, cost, by);
        self.out -= 1;
    }

    /// It has ended, and sent nothing.
    pub(super) fn give_back(&mut self, counted: &mut Counted, cost: u32) {
        self.settle(counted, cost);
        self.out -= 1;
    }

    /// It need not be thought of any more: an answer counts it.
    pub(super) fn settle(&mut self, counted: &mut Counted, cost: u32) {
        match std::mem::replace(counted, Counted::Settled) {
            Counted::UnderWay => self.under_way -= u64::from(cost),
            Counted::By(at) => self.take_back(at, u64::from(cost)),
            Counted::Settled => {}
        }
    }

    /// One that was joined with another, or counted, is not there any more.
    fn take_back(&mut self, at: Instant, cost: u64) {
        let Ok(place) = self.arrived.binary_search_by_key(&at, |&(at, _)| at) else { return };
        let (_, slots) = &mut self.arrived[place];
        *slots = slots.saturating_sub(cost);
        if *slots == 0 {
            self.arrived.remove(place);
        }
    }

    /// The answer to an attempt whose request left at `sent` at the earliest says how much remains. Nothing of it is
    /// believed for longer than `longest`.
    pub(super) fn hear(
        &mut self,
        (counted, cost): (&mut Counted, u32),
        now: Instant,
        sent: Instant,
        said: &Remaining,
        longest: Duration,
    ) {
        let covered = said.bounds().iter().map(|bound| now + bound.resets_in().min(longest)).max().unwrap_or(now);
        let is_covered = |heard: &Heard| heard.until <= covered + SAME_RESET;
        self.heard.retain(|heard| heard.until > now && !(heard.at < sent && is_covered(heard)));
        // What holds for longer, or comes and does, may not count the attempt.
        let is_cut = said.bounds().iter().any(|bound| bound.resets_in() > longest);
        let own = if !is_cut && self.heard.iter().all(is_covered) { 0 } else { u64::from(cost) };
        if own == 0 {
            self.settle(counted, cost);
        }
        for bound in said.bounds() {
            let (remaining, until) = (u64::from(bound.remaining()), now + bound.resets_in().min(longest));
            self.heard.retain(|heard| heard.remaining < remaining || heard.until > until);
            self.heard.push(Heard { at: now, sent, remaining, own, until });
        }
        if self.heard.len() > HEARD_MAX {
            let oldest = self.heard.remove(0);
            self.heard[0].join(oldest);
        }
        let first = self.heard.iter().map(|heard| heard.sent).min().unwrap_or(sent);
        while self.arrived.pop_front_if(|(at, _)| *at < first).is_some() {}
    }

    /// Until when so many slots more are not to be taken, if what was heard says so. Answers that come may allow it
    /// earlier.
    pub(super) fn not_before(&mut self, now: Instant, slots: u64) -> Option<Instant> {
        if self.heard.is_empty() {
            return None;
        }
        self.heard.retain(|heard| heard.until > now);
        let is_short = |heard: &&Heard| self.left_of(heard).is_none_or(|left| left < slots);
        self.heard.iter().filter(is_short).map(|heard| heard.until).max()
    }

    /// How much more may start now, and until when that holds; nothing when nobody said.
    pub(super) fn left(&mut self, now: Instant) -> Option<(u64, Instant)> {
        self.not_before(now, 0);
        let each = self.heard.iter().map(|heard| (self.left_of(heard).unwrap_or(0), heard.until));
        each.min_by_key(|&(left, until)| (left, std::cmp::Reverse(until)))
    }

    /// How much of it is left; nothing when more was taken already than there was.
    fn left_of(&self, heard: &Heard) -> Option<u64> {
        let later = self.arrived.iter().rev().take_while(|(at, _)| *at >= heard.sent).map(|(_, slots)| slots);
        (heard.remaining + heard.own).checked_sub(self.under_way + later.sum::<u64>())
    }

    /// What was heard is not believed any more.
    pub(super) fn forget(&mut self) {
        self.heard.clear();
    }
}

impl Heard {
    /// Stands for both.
    fn join(&mut self, other: Self) {
        self.sent = self.sent.min(other.sent);
        self.remaining = self.remaining.min(other.remaining);
        self.own = self.own.min(other.own);
        self.until = self.until.max(other.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remaining::Bound;

    fn at(ms: i64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn said(remaining: u64, resets_in_ms: u64) -> Remaining {
        Remaining::of([Bound::new(remaining, Duration::from_millis(resets_in_ms))]).expect("a bound")
    }

    /// An upstream's account, and ours of it.
    #[derive(Default)]
    struct Bench {
        told: Told,
        out: Vec<Counted>,
    }

    impl Bench {
        fn take(&mut self, count: u32) -> &mut Self {
            for _ in 0..count {
                self.out.push(self.told.take(1));
            }
            self
        }

        /// This attempt, which left at `sent`, is answered so.
        fn answer(&mut self, place: usize, sent: i64, now: i64, remaining: u64, reset: i64) -> &mut Self {
            let said = said(remaining, u64::try_from(reset - now).expect("resets are ahead"));
            self.told.hear((&mut self.out[place], 1), at(now), at(sent), &said, Duration::from_secs(86_400));
            self
        }

        fn left(&mut self, now: i64) -> Option<u64> {
            self.told.left(at(now)).map(|(left, _)| left)
        }
    }

    #[test]
    fn what_is_out_and_may_not_be_counted_is_taken_off() {
        let mut bench = Bench::default();
        bench.take(4).answer(0, 0, 50, 10, 60_000);
        assert_eq!(bench.left(50), Some(7), "three more may come on top");
        bench.answer(1, 0, 60, 9, 60_000);
        assert_eq!(bench.left(60), Some(7));
        bench.answer(2, 0, 70, 7, 60_000).answer(3, 0, 80, 8, 60_000);
        assert_eq!(bench.left(80), Some(7), "the lowest count is the last, in whichever order they come");
        assert_eq!(bench.told.not_before(at(80), 7), None);
        assert_eq!(bench.told.not_before(at(80), 8), Some(at(60_000)));
        assert_eq!(bench.left(60_000), None, "nobody knows of the next window");
    }

    #[test]
    fn an_answer_to_a_later_request_holds_whatever_was_said_before() {
        let mut bench = Bench::default();
        bench.take(1).answer(0, 0, 50, 2, 60_000);
        bench.take(1).answer(1, 51, 90, 30, 60_000);
        assert_eq!(bench.left(90), Some(30), "a bucket that fills up");
        bench.take(2).answer(2, 80, 120, 40, 60_000);
        assert_eq!(bench.left(120), Some(29), "its request left before the last answer came: neither may be newer");
    }

    #[test]
    fn what_arrived_before_a_request_left_is_counted_by_its_answer() {
        let mut bench = Bench::default();
        bench.take(2);
        bench.told.arrive(&mut bench.out[0], 1, at(110));
        bench.take(1).answer(2, 111, 150, 5, 60_000);
        assert_eq!(bench.left(150), Some(4), "a long poll that was sent before is counted, the other one may not be");
    }

    #[test]
    fn an_end_without_a_word_counts_until_a_later_request_is_answered() {
        let mut bench = Bench::default();
        bench.take(2).answer(0, 0, 50, 5, 60_000);
        bench.told.end(&mut bench.out[1], 1, at(100));
        assert_eq!(bench.left(100), Some(4));
        bench.take(1).answer(2, 90, 150, 4, 60_000);
        assert_eq!(bench.left(150), Some(3), "it may have come later than this one");
        bench.take(1).answer(3, 151, 200, 3, 60_000);
        assert_eq!(bench.left(200), Some(3));
    }

    #[test]
    fn an_end_before_anything_was_heard_counts_as_well() {
        let mut bench = Bench::default();
        bench.take(2);
        bench.told.end(&mut bench.out[1], 1, at(100));
        bench.told.end(&mut bench.out[0], 1, at(150));
        bench.answer(0, 50, 150, 5, 60_000);
        assert_eq!(bench.left(150), Some(4), "it may have come after the request that is answered, the last one out");
    }

    #[test]
    fn what_is_said_of_a_minute_replaces_nothing_that_was_said_of_a_day() {
        let mut bench = Bench::default();
        bench.take(1).answer(0, 0, 50, 3, 86_400_000);
        bench.take(1).answer(1, 51, 90, 9, 60_000);
        assert_eq!(bench.left(90), Some(2), "the second one counts for the day, too");
        bench.told.end(&mut bench.out[1], 1, at(90));
        bench.take(1).answer(2, 91, 150, 1, 86_399_000);
        assert_eq!(bench.left(150), Some(1), "the same day, told in whole seconds");
    }

    #[test]
    fn a_quota_of_a_day_that_was_told_once_does_not_narrow_those_of_its_minutes() {
        let mut bench = Bench::default();
        bench.take(1).answer(0, 0, 50, 1_000, 86_400_000);
        for place in 1..40 {
            let now = i64::try_from(place).expect("small") * 100;
            bench.take(1).answer(place, now, now + 50, 50 - u64::try_from(place).expect("small"), 60_000);
            bench.told.end(&mut bench.out[place], 1, at(now + 50));
        }
        assert_eq!(bench.left(4_000), Some(11));
        assert_eq!(bench.told.not_before(at(61_000), 961), None);
        assert_eq!(bench.told.not_before(at(61_000), 962), Some(at(86_400_000)), "39 of them are used");
    }

    #[test]
    fn a_quota_of_a_month_is_used_to_its_end() {
        let mut bench = Bench::default();
        for place in 0..90 {
            let now = i64::try_from(place).expect("small") * 10;
            bench.take(1);
            bench.told.end(&mut bench.out[place], 1, at(now + 5));
            bench.answer(place, now, now + 5, 99 - u64::try_from(place).expect("small"), 30 * 86_400_000);
        }
        assert_eq!(bench.left(900), Some(10), "though nothing is believed for longer than a day");
    }

    #[test]
    fn what_never_arrives_is_given_back() {
        let mut bench = Bench::default();
        bench.take(3).answer(0, 0, 50, 5, 60_000);
        bench.told.give_back(&mut bench.out[1], 1);
        bench.told.arrive(&mut bench.out[2], 1, at(60));
        bench.told.give_back(&mut bench.out[2], 1);
        assert_eq!(bench.left(60), Some(5));
    }

    #[test]
    fn nothing_is_believed_for_longer_than_the_longest_wait() {
        let mut bench = Bench::default();
        bench.take(1);
        bench.told.hear((&mut bench.out[0], 1), at(0), at(0), &said(0, 1_000_000_000), Duration::from_secs(60));
        assert_eq!(bench.told.not_before(at(59_999), 1), Some(at(60_000)));
        assert_eq!(bench.told.not_before(at(60_000), 1), None);
    }

    #[test]
    fn several_windows_hold_at_once() {
        let bounds = [Bound::new(2, Duration::from_secs(1)), Bound::new(5, Duration::from_secs(60))];
        let said = Remaining::of(bounds).expect("bounds");
        let mut told = Told::default();
        let mut counted = told.take(1);
        told.hear((&mut counted, 1), at(0), at(0), &said, Duration::from_secs(86_400));
        assert_eq!(told.not_before(at(0), 3), Some(at(1_000)));
        assert_eq!(told.not_before(at(0), 6), Some(at(60_000)));
        assert_eq!(told.not_before(at(1_000), 5), None);
    }

    #[test]
    fn however_much_is_told_little_is_kept() {
        let mut bench = Bench::default();
        bench.take(5_000);
        for place in 0..2_000 {
            let now = i64::try_from(place).expect("small") + 1;
            bench.answer(place, 0, now, u64::try_from(place).expect("small") + 10, 100_000 - now);
        }
        assert!(bench.told.heard.len() <= HEARD_MAX);
        for place in 2_000..5_000 {
            let by = at(i64::try_from(place).expect("small"));
            bench.told.end(&mut bench.out[place], 1, by);
        }
        let slots: u64 = bench.told.arrived.iter().map(|(_, slots)| slots).sum();
        assert_eq!((bench.told.arrived.len(), slots), (ARRIVED_MAX, 3_000));
    }
}
