//! Cooling slots: at most N arrivals at the upstream in any window of length W, wherever it begins.
//!
//! A window of N is N slots. An attempt holds `cost` slots of every window until its arrival is known to lie in the
//! past; from that moment a slot cools for W (and 0.1 % for the rate of clocks) and is then free. Two arrivals through
//! one slot are at least W apart, because the second is sent only W after the first was proved to have arrived: so any
//! half-open window of length W holds at most one arrival per slot. Concurrency is the same with a cool-down of zero and
//! is counted by the dispatcher. Proof that this bounds the window and token buckets do not: `docs/design/0002`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy::{LimitSpec, UpstreamPolicy};
use crate::time::Instant;

/// Windows up to this length may cool from `jitter` after the last byte was sent.
const SENT_PROOF_WINDOW_MAX: Duration = Duration::from_secs(60);
/// Windows up to this length count what another boot proved from the beginning of this one.
const DOUBTED_WINDOW_MAX: Duration = Duration::from_secs(60);
/// Windows up to this length are taken as full at start.
const RESTART_FULL_WINDOW_MAX: Duration = Duration::from_secs(1);

/// Whether an attempt may start; never a bare no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Ready,
    /// Slots that already cool will be free then.
    NotBefore(Instant),
    /// Attempts that are out hold too many slots; the next proof of arrival tells more.
    Full,
}

/// All windows of one upstream.
#[derive(Debug, Clone)]
pub struct Limits {
    windows: Vec<Window>,
    jitter: Duration,
    smooth: Option<Spacing>,
}

/// The slots that one attempt holds in every window of its upstream.
#[derive(Debug, Clone)]
pub struct Grant {
    cost: u32,
    /// With `smooth`: before when nothing was to start until this was granted.
    spaced_until: Option<Instant>,
    /// Per window: from when its slots cool, once that is known.
    cooling: Vec<Option<Instant>>,
    /// When the arrival was proved, or is taken as proved.
    proved: Option<Instant>,
}

/// What an earlier process left of an upstream's limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// From when on the time between two moments is known for certain. What was proved before (in another boot) may
    /// have been proved just then, for all that a short window may believe.
    pub certain_since: Instant,
    pub grants: Vec<PastGrant>,
}

/// Which grants matter to the limits of a policy: at most `count`, those that cool longest, proved at `since` or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookBack {
    pub since: Instant,
    pub count: u32,
}

/// A grant of an earlier process, as its store kept it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastGrant {
    pub cost: u32,
    /// When its arrival was proved; nothing when it was still out.
    pub proved_at: Option<Instant>,
}

/// How much of one window is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub spec: LimitSpec,
    pub used: u32,
}

#[derive(Debug, Clone)]
struct Window {
    spec: LimitSpec,
    /// Cools already at `jitter` after sending.
    sent_is_proof: bool,
    /// Slots of attempts whose arrival is not proved.
    held: u32,
    /// Slots by the moment at which they are free.
    cooling: BTreeMap<Instant, u32>,
    cooling_sum: u32,
}

#[derive(Debug, Clone)]
struct Spacing {
    interval: Duration,
    next: Instant,
}

impl Limits {
    /// The windows of a policy, all slots free.
    pub fn new(policy: &UpstreamPolicy) -> Self {
        let windows = policy.limits.iter().map(|&spec| Window::new(spec, policy.strict)).collect();
        let interval = policy.limits.iter().map(|spec| spec.window / spec.count.get()).max();
        let smooth = interval.filter(|_| policy.smooth).map(|interval| Spacing { interval, next: Instant::MIN });
        Self { windows, jitter: policy.jitter, smooth }
    }

    /// The windows of a policy as an earlier process left them. An attempt that was still out cools from now and
    /// `jitter`, because the kernel may go on delivering; windows of at most a second are taken as full.
    pub fn restore(policy: &UpstreamPolicy, past: &Past, now: Instant) -> Self {
        let mut limits = Self::new(policy);
        let jitter = limits.jitter;
        for window in &mut limits.windows {
            if window.spec.window <= RESTART_FULL_WINDOW_MAX {
                window.cool(now + jitter, window.spec.count.get());
                continue;
            }
            let doubted_before =
                if window.spec.window <= DOUBTED_WINDOW_MAX { past.certain_since } else { Instant::MIN };
            for grant in &past.grants {
                let from = grant.proved_at.map_or(now + jitter, |at| at.max(doubted_before).min(now + jitter));
                window.cool(from, grant.cost);
            }
            window.prune(now);
        }
        if let Some(spacing) = &mut limits.smooth {
            spacing.next = now + spacing.interval;
        }
        limits
    }

    /// What of the past [`Limits::restore`] has to know; nothing when nothing is limited.
    pub fn look_back(policy: &UpstreamPolicy, certain_since: Instant, now: Instant) -> Option<LookBack> {
        let reach = |spec: &LimitSpec| now - (spec.window + spec.window / 1_000 + policy.jitter);
        let since = policy.limits.iter().map(reach).min()?;
        let is_doubted = |spec: &LimitSpec| spec.window <= DOUBTED_WINDOW_MAX && reach(spec) < certain_since;
        let since = if policy.limits.iter().any(is_doubted) { Instant::MIN } else { since };
        let count = policy.limits.iter().map(|spec| spec.count.get()).max()?;
        Some(LookBack { since, count })
    }

    /// No cost above what the smallest window holds: such an attempt takes the whole window.
    pub fn cap(&self, cost: u32) -> u32 {
        self.windows.iter().map(|window| window.spec.count.get()).fold(cost, u32::min)
    }

    /// How much the network's delay may vary.
    pub const fn jitter(&self) -> Duration {
        self.jitter
    }

    /// Whether `cost` slots of every window are free, all or nothing.
    pub fn admit(&mut self, now: Instant, cost: u32) -> Admission {
        let mut not_before = now;
        for window in &mut self.windows {
            window.prune(now);
            match window.admit(now, cost) {
                Admission::Ready => {}
                Admission::NotBefore(at) => not_before = not_before.max(at),
                Admission::Full => return Admission::Full,
            }
        }
        if let Some(spacing) = &self.smooth {
            not_before = not_before.max(spacing.next);
        }
        if not_before > now { Admission::NotBefore(not_before) } else { Admission::Ready }
    }

    /// Takes `cost` slots of every window.
    ///
    /// # Panics
    /// When `admit` did not just answer [`Admission::Ready`] for this cost: a slot would be used twice.
    pub fn grant(&mut self, now: Instant, cost: u32) -> Grant {
        assert_eq!(self.admit(now, cost), Admission::Ready, "a grant without free slots");
        for window in &mut self.windows {
            window.held += cost;
        }
        let spaced_until = self.smooth.as_ref().map(|spacing| spacing.next);
        if let Some(spacing) = &mut self.smooth {
            spacing.next = now + spacing.interval * cost;
        }
        Grant { cost, spaced_until, cooling: vec![None; self.windows.len()], proved: None }
    }

    /// The last byte of the request left our buffers at `at`: short windows cool from `jitter` later.
    pub fn sent(&mut self, grant: &mut Grant, at: Instant) {
        let from = at + self.jitter;
        for (window, cooling) in self.windows.iter_mut().zip(&mut grant.cooling) {
            if window.sent_is_proof && cooling.is_none() {
                window.hold_to_cool(from, grant.cost);
                *cooling = Some(from);
            }
        }
    }

    /// The first byte of an answer came at `at`: the arrival lies before it.
    pub fn answered(&mut self, grant: &mut Grant, at: Instant) {
        if grant.proved.is_none() {
            self.prove(grant, at);
        }
    }

    /// The attempt ended at `at`. Without an answer what was sent may still be delivered for `jitter`.
    pub fn ended(&mut self, grant: &mut Grant, at: Instant) {
        if grant.proved.is_none() {
            self.prove(grant, at + self.jitter);
        }
    }

    /// The attempt wrote nothing: its slots are free at once.
    pub fn give_back(&mut self, grant: &Grant) {
        for (window, cooling) in self.windows.iter_mut().zip(&grant.cooling) {
            match cooling {
                Some(from) => window.uncool(*from, grant.cost),
                None => window.held -= grant.cost,
            }
        }
    }

    /// The attempt was never made, nor any granted after it: all is as it was before the grant.
    pub fn undo(&mut self, grant: &Grant) {
        self.give_back(grant);
        if let (Some(spacing), Some(next)) = (&mut self.smooth, grant.spaced_until) {
            spacing.next = next;
        }
    }

    /// Use and capacity of every window.
    pub fn usage(&mut self, now: Instant) -> Vec<Usage> {
        self.windows
            .iter_mut()
            .map(|window| {
                window.prune(now);
                Usage { spec: window.spec, used: window.held + window.cooling_sum }
            })
            .collect()
    }

    fn prove(&mut self, grant: &mut Grant, at: Instant) {
        grant.proved = Some(at);
        for (window, cooling) in self.windows.iter_mut().zip(&mut grant.cooling) {
            match *cooling {
                None => window.hold_to_cool(at, grant.cost),
                Some(from) if at < from => {
                    window.uncool(from, grant.cost);
                    window.cool(at, grant.cost);
                }
                Some(_) => continue,
            }
            *cooling = Some(at);
        }
    }
}

impl Grant {
    /// When the arrival was proved to lie in the past, or is taken to.
    pub const fn proved_at(&self) -> Option<Instant> {
        self.proved
    }

    /// Slots taken of every window.
    pub const fn cost(&self) -> u32 {
        self.cost
    }
}

impl Window {
    const fn new(spec: LimitSpec, strict: bool) -> Self {
        let sent_is_proof = !strict && spec.window.as_micros() <= SENT_PROOF_WINDOW_MAX.as_micros();
        Self { spec, sent_is_proof, held: 0, cooling: BTreeMap::new(), cooling_sum: 0 }
    }

    /// A slot that cools from `from` is free then.
    fn free_at(&self, from: Instant) -> Instant {
        from + self.spec.window + self.spec.window / 1_000
    }

    fn cool(&mut self, from: Instant, slots: u32) {
        *self.cooling.entry(self.free_at(from)).or_default() += slots;
        self.cooling_sum = self.cooling_sum.saturating_add(slots);
    }

    fn hold_to_cool(&mut self, from: Instant, slots: u32) {
        self.held -= slots;
        self.cool(from, slots);
    }

    /// Takes cooling slots back; those that have cooled already are gone and stay so. A late report may have put
    /// fewer slots of another attempt at that very moment since: they have cooled as well, so taking them is harmless.
    fn uncool(&mut self, from: Instant, slots: u32) {
        let at = self.free_at(from);
        if let Some(count) = self.cooling.get_mut(&at) {
            let slots = slots.min(*count);
            *count -= slots;
            self.cooling_sum -= slots;
            if *count == 0 {
                self.cooling.remove(&at);
            }
        }
    }

    fn prune(&mut self, now: Instant) {
        while let Some(entry) = self.cooling.first_entry().filter(|entry| *entry.key() <= now) {
            self.cooling_sum -= entry.remove();
        }
    }

    /// Expects a pruned window. More slots may be in use than there are, after N was lowered.
    fn admit(&self, now: Instant, cost: u32) -> Admission {
        let taken = self.held.saturating_add(self.cooling_sum).saturating_add(cost);
        let Some(mut missing) = taken.checked_sub(self.spec.count.get()).filter(|&missing| missing > 0) else {
            return Admission::Ready;
        };
        for (&at, &slots) in &self.cooling {
            missing = missing.saturating_sub(slots);
            if missing == 0 {
                debug_assert!(at > now, "pruned windows hold no cooled slots");
                return Admission::NotBefore(at);
            }
        }
        Admission::Full
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn policy(limits: &[(u32, u64)]) -> UpstreamPolicy {
        let spec = |&(count, window_ms): &(u32, u64)| LimitSpec {
            count: NonZeroU32::new(count).expect("tests give no zero limits"),
            window: Duration::from_millis(window_ms),
        };
        UpstreamPolicy { limits: limits.iter().map(spec).collect(), ..UpstreamPolicy::default() }
    }

    fn at(ms: i64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn past(proved_ms: &[Option<i64>]) -> Past {
        let grants = proved_ms.iter().map(|ms| PastGrant { cost: 1, proved_at: ms.map(at) }).collect();
        Past { certain_since: Instant::MIN, grants }
    }

    #[test]
    fn slots_cool_from_the_answer_and_not_from_the_grant() {
        let mut limits = Limits::new(&policy(&[(1, 1_000)]));
        let mut grant = limits.grant(at(0), 1);
        assert_eq!(limits.admit(at(5_000), 1), Admission::Full);
        limits.answered(&mut grant, at(5_000));
        assert_eq!(limits.admit(at(5_500), 1), Admission::NotBefore(at(6_001)));
        assert_eq!(limits.admit(at(6_001), 1), Admission::Ready);
    }

    #[test]
    fn short_windows_cool_jitter_after_sending_and_long_ones_only_by_proof() {
        let mut limits = Limits::new(&policy(&[(1, 1_000), (5, 3_600_000)]));
        let mut grant = limits.grant(at(0), 1);
        limits.sent(&mut grant, at(10));
        assert_eq!(limits.admit(at(10), 1), Admission::NotBefore(at(1_111)));
        assert_eq!(limits.usage(at(2_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [0, 1]);
        limits.ended(&mut grant, at(30_000));
        assert_eq!(limits.usage(at(3_633_600)).get(1).map(|usage| usage.used), Some(1));
        assert_eq!(limits.usage(at(3_633_701)).get(1).map(|usage| usage.used), Some(0));
    }

    #[test]
    fn an_early_answer_replaces_the_guess_made_at_sending() {
        let mut limits = Limits::new(&policy(&[(1, 1_000)]));
        let mut grant = limits.grant(at(0), 1);
        limits.sent(&mut grant, at(1));
        limits.answered(&mut grant, at(3));
        assert_eq!(limits.admit(at(3), 1), Admission::NotBefore(at(1_004)));
    }

    #[test]
    fn all_windows_or_none() {
        let mut limits = Limits::new(&policy(&[(10, 1_000), (2, 60_000)]));
        for _ in 0..2 {
            let mut grant = limits.grant(at(0), 1);
            limits.answered(&mut grant, at(1));
        }
        assert_eq!(limits.admit(at(2_000), 1), Admission::NotBefore(at(60_061)));
        assert_eq!(limits.usage(at(2_000))[0].used, 0, "the refused attempt took nothing of the short window");
    }

    #[test]
    fn cost_takes_that_many_slots_and_what_wrote_nothing_gives_them_back() {
        let mut limits = Limits::new(&policy(&[(5, 1_000)]));
        let grant = limits.grant(at(0), 3);
        assert_eq!(limits.admit(at(0), 3), Admission::Full);
        assert_eq!(limits.admit(at(0), 2), Admission::Ready);
        limits.give_back(&grant);
        assert_eq!(limits.admit(at(0), 5), Admission::Ready);
    }

    #[test]
    fn strict_windows_ignore_sending() {
        let mut limits = Limits::new(&UpstreamPolicy { strict: true, ..policy(&[(1, 1_000)]) });
        let mut grant = limits.grant(at(0), 1);
        limits.sent(&mut grant, at(1));
        assert_eq!(limits.admit(at(100_000), 1), Admission::Full);
    }

    #[test]
    fn smooth_spaces_by_the_largest_interval() {
        let mut limits = Limits::new(&UpstreamPolicy { smooth: true, ..policy(&[(10, 1_000), (60, 60_000)]) });
        let mut grant = limits.grant(at(0), 1);
        limits.answered(&mut grant, at(1));
        assert_eq!(limits.admit(at(1), 1), Admission::NotBefore(at(1_000)));
    }

    #[test]
    fn what_was_never_made_leaves_no_trace() {
        let mut limits = Limits::new(&UpstreamPolicy { smooth: true, ..policy(&[(2, 1_000)]) });
        let first = limits.grant(at(0), 1);
        let second = limits.grant(at(500), 1);
        limits.undo(&second);
        assert_eq!(limits.admit(at(500), 1), Admission::Ready);
        limits.undo(&first);
        assert_eq!(limits.admit(at(0), 2), Admission::Ready);
    }

    #[test]
    fn a_restart_counts_what_was_sent_and_what_may_still_arrive() {
        let past = past(&[Some(1_000), None, Some(-80_000)]);
        let mut limits = Limits::restore(&policy(&[(3, 60_000), (4, 1_000)]), &past, at(2_000));
        assert_eq!(limits.usage(at(2_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(limits.admit(at(2_000), 1), Admission::NotBefore(at(3_101)));
        assert_eq!(limits.admit(at(3_101), 2), Admission::NotBefore(at(61_060)));
        assert_eq!(limits.admit(at(61_060), 3), Admission::NotBefore(at(62_160)));
    }

    #[test]
    fn in_another_boot_short_windows_count_everything_from_its_beginning() {
        let limits = policy(&[(2, 60_000), (2, 61_000)]);
        let past = Past { certain_since: at(5_000), ..past(&[Some(-200_000), Some(-1_000), Some(6_000)]) };
        let mut restored = Limits::restore(&limits, &past, at(7_000));
        assert_eq!(restored.usage(at(7_000)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(restored.usage(at(65_060)).iter().map(|usage| usage.used).collect::<Vec<_>>(), [1, 1]);
        let look = |certain_since, now| Limits::look_back(&limits, at(certain_since), at(now));
        assert_eq!(look(5_000, 7_000), Some(LookBack { since: Instant::MIN, count: 2 }));
        assert_eq!(look(5_000, 70_000), Some(LookBack { since: at(70_000 - 61_161), count: 2 }));
        assert_eq!(Limits::look_back(&UpstreamPolicy::default(), at(5_000), at(7_000)), None);
    }

    #[test]
    fn a_lowered_limit_waits_for_the_slots_that_free_up_last() {
        let past = past(&(0..10).map(|n| Some(n * 100)).collect::<Vec<_>>());
        let mut limits = Limits::restore(&policy(&[(2, 60_000)]), &past, at(1_000));
        assert_eq!(limits.admit(at(1_000), 1), Admission::NotBefore(at(60_860)));
    }

    #[test]
    fn a_very_late_report_takes_no_slots_from_others() {
        let mut limits = Limits::new(&policy(&[(5, 1_000)]));
        let (mut early, mut late) = (limits.grant(at(0), 3), limits.grant(at(0), 1));
        limits.sent(&mut early, at(1));
        assert_eq!(limits.admit(at(5_000), 4), Admission::Ready);
        // The same moment, told after both would have cooled; then the first is found to have been answered sooner.
        limits.sent(&mut late, at(1));
        limits.answered(&mut early, at(2));
        assert_eq!(limits.admit(at(5_000), 5), Admission::Ready);
    }

    #[test]
    fn a_cost_above_the_limit_never_fits() {
        let mut limits = Limits::new(&policy(&[(5, 1_000)]));
        assert_eq!(limits.admit(at(0), 6), Admission::Full);
    }
}
