//! Cooling slots: at most N arrivals at the upstream in any window of length W, wherever it begins.
//!
//! A window of N is N slots. An attempt holds `cost` slots of every window until its arrival is known to lie in the
//! past; from that moment a slot cools for W (and 0.1 % for the rate of clocks) and is then free. Two arrivals through
//! one slot are at least W apart, because the second is sent only W after the first was proved to have arrived: so any
//! half-open window of length W holds at most one arrival per slot. Concurrency is the same with a cool-down of zero and
//! is counted by the dispatcher. Proof that this bounds the window and token buckets do not: `docs/design/0002`.

mod past;
mod schedule;
#[cfg(test)]
mod tests;
mod told;
mod window;

use std::time::Duration;

use crate::policy::{LimitSpec, UpstreamPolicy};
use crate::remaining::Remaining;
use crate::time::Instant;

pub use past::{Ask, Past, PastGrant};
pub use schedule::Schedule;
use told::{Counted, Told};
pub(crate) use window::DOUBTED_WINDOW_MAX;
use window::{FreeAt, RESTART_FULL_WINDOW_MAX, Window};

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
    /// Only an answer proves an arrival.
    strict: bool,
    smooth: Option<Spacing>,
    told: Told,
}

/// The slots that one attempt holds in every window of its upstream.
#[derive(Debug, Clone)]
pub struct Grant {
    cost: u32,
    /// With `smooth`: the grant before it.
    spaced_after: Option<(Instant, u32)>,
    /// By the length of the window.
    slots: Vec<(Duration, FreeAt)>,
    /// When the arrival was proved, or is taken as proved.
    proved: Option<Instant>,
    /// What the upstream may know of it.
    counted: Counted,
}

/// How much of one window is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub spec: LimitSpec,
    /// Slots that are held or cool; more than there are, after their number was lowered.
    pub used: u32,
    /// Whether a slot is free, or when the next one will be.
    pub next: Admission,
}

/// How `smooth` keeps grants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spacing {
    pub interval: Duration,
    /// The last grant, and its cost.
    last: (Instant, u32),
}

impl Limits {
    /// The windows of a policy, all slots free.
    pub fn new(policy: &UpstreamPolicy) -> Self {
        let windows = policy.limits.iter().map(|&spec| Window::new(spec, policy)).collect();
        let smooth = Spacing::new(policy, (Instant::MIN, 0));
        Self { windows, jitter: policy.jitter, strict: policy.strict, smooth, told: Told::default() }
    }

    /// What each window of a policy has to know of the past, for [`Limits::restore`].
    pub fn asks(policy: &UpstreamPolicy, certain_since: Instant, now: Instant) -> Vec<Ask> {
        policy.limits.iter().map(|&spec| Window::ask(spec, policy, certain_since, now)).collect()
    }

    /// The windows of a policy as an earlier process left them. An attempt that was still out cools from now and
    /// `jitter`, because the kernel may go on delivering; windows of at most a second are taken as full.
    pub fn restore(policy: &UpstreamPolicy, past: &Past, now: Instant) -> Self {
        let mut limits = Self::new(policy);
        for (place, window) in limits.windows.iter_mut().enumerate() {
            window.restore(past, place, policy.jitter, now);
        }
        limits.smooth = Spacing::new(policy, (now, 1));
        limits
    }

    /// What each window of a changed policy has to know of the past, for [`Limits::change`]: those that go on know all.
    pub fn asks_of_change(&self, policy: &UpstreamPolicy, certain_since: Instant, now: Instant) -> Vec<Ask> {
        let ask = |spec: &LimitSpec| match self.windows.iter().any(|window| goes_on(window, *spec, now)) {
            true => Ask::Nothing,
            false => Window::ask(*spec, policy, certain_since, now),
        };
        policy.limits.iter().map(ask).collect()
    }

    /// From now on the windows of another policy hold. One of the same length goes on with what is in use; another counts
    /// what was sent before: what `past` tells, and `live`, the grants that are out. So does one whose count is raised
    /// soon after it was restored for a lower one.
    pub fn change<'g>(
        &mut self,
        policy: &UpstreamPolicy,
        past: &Past,
        live: impl IntoIterator<Item = &'g mut Grant>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.windows);
        let mut added = Vec::new();
        for (place, &spec) in policy.limits.iter().enumerate() {
            let window = match before.iter().position(|window| goes_on(window, spec, now)) {
                Some(kept) => {
                    let mut window = before.swap_remove(kept);
                    window.change(spec, policy);
                    window
                }
                None => {
                    let mut window = Window::new(spec, policy);
                    window.restore(past, place, policy.jitter, now);
                    added.push(place);
                    window
                }
            };
            self.windows.push(window);
        }
        for grant in live {
            grant.slots.retain(|(length, _)| !before.iter().any(|gone| gone.spec.window == *length));
            for &place in &added {
                grant.join(&mut self.windows[place]);
            }
        }
        let last = self.smooth.as_ref().map_or((now, 1), |spacing| spacing.last);
        (self.jitter, self.strict, self.smooth) = (policy.jitter, policy.strict, Spacing::new(policy, last));
    }

    /// Whether a window reaches back over a restart: what it counts must be stored before it is used.
    pub fn outlast_restarts(&self) -> bool {
        self.windows.iter().any(|window| window.spec.window > RESTART_FULL_WINDOW_MAX)
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
            not_before = not_before.max(spacing.next());
        }
        if let Some(until) = self.told.not_before(now, u64::from(cost)) {
            not_before = not_before.max(until);
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
            window.hold(cost);
        }
        let spaced_after = self.smooth.as_mut().map(|spacing| std::mem::replace(&mut spacing.last, (now, cost)));
        let slots = self.windows.iter().map(|window| (window.spec.window, None)).collect();
        Grant { cost, spaced_after, slots, proved: None, counted: self.told.take(cost) }
    }

    /// The last byte of the request left our buffers at `at`: short windows cool from `jitter` later.
    pub fn sent(&mut self, grant: &mut Grant, at: Instant) {
        let from = at + self.jitter;
        if !self.strict {
            self.told.arrive(&mut grant.counted, grant.cost, from);
        }
        self.each(grant, |window, cost, free_at| window.sent(cost, free_at, from));
    }

    /// The first byte of an answer came at `at`: the arrival lies before it.
    pub fn answered(&mut self, grant: &mut Grant, at: Instant) {
        if grant.proved.is_none() {
            self.told.arrive(&mut grant.counted, grant.cost, at);
            self.prove(grant, at);
        }
    }

    /// The attempt ended at `at`. Without an answer what was sent may still be delivered for `jitter`.
    pub fn ended(&mut self, grant: &mut Grant, at: Instant) {
        self.told.end(&mut grant.counted, grant.cost, at + self.jitter);
        if grant.proved.is_none() {
            self.prove(grant, at + self.jitter);
        }
    }

    /// An answer to an attempt that left at `sent` at the earliest says how much remains. Less is started accordingly, and
    /// never more; nothing of it is believed for longer than `longest`.
    pub fn hear(&mut self, grant: &mut Grant, now: Instant, sent: Instant, said: &Remaining, longest: Duration) {
        self.told.hear((&mut grant.counted, grant.cost), now, sent, said, longest);
    }

    /// What answers said of how much remains is not believed any more.
    pub fn forget_told(&mut self) {
        self.told.forget();
    }

    /// How much more may start by what answers said, and until when that holds.
    pub fn told(&mut self, now: Instant) -> Option<(u64, Instant)> {
        self.told.left(now)
    }

    /// The attempt wrote nothing: its slots are free at once.
    pub fn give_back(&mut self, grant: &mut Grant) {
        self.told.give_back(&mut grant.counted, grant.cost);
        for (length, free_at) in &grant.slots {
            if let Some(window) = self.windows.iter_mut().find(|window| window.spec.window == *length) {
                window.give_back(grant.cost, *free_at);
            }
        }
    }

    /// The attempt was never made, nor any granted after it: all is as it was before the grant.
    pub fn undo(&mut self, grant: &mut Grant) {
        self.give_back(grant);
        if let (Some(spacing), Some(last)) = (&mut self.smooth, grant.spaced_after) {
            spacing.last = last;
        }
    }

    /// Use and capacity of every window.
    pub fn usage(&mut self, now: Instant) -> Vec<Usage> {
        self.windows
            .iter_mut()
            .map(|window| {
                window.prune(now);
                Usage { spec: window.spec, used: window.used(), next: window.admit(now, 1) }
            })
            .collect()
    }

    /// When slots of this cost will have been granted, each as soon as the windows allow it. Attempts take `latency` until
    /// their answer comes.
    pub fn forecast(&mut self, now: Instant, cost: u64, latency: Duration) -> Instant {
        let mut at = now;
        for window in &mut self.windows {
            window.prune(now);
            let cools_after = window.cools_after(latency, self.jitter);
            at = at.max(window.forecast(now, cost.max(1), cools_after));
        }
        at = self.told.not_before(now, cost).map_or(at, |until| at.max(until));
        match self.smooth {
            Some(spacing) => {
                let apart = u32::try_from(cost.saturating_sub(1)).unwrap_or(u32::MAX);
                at.max(spacing.next().max(now) + spacing.interval.saturating_mul(apart))
            }
            None => at,
        }
    }

    /// With `smooth`: how far apart grants are.
    pub const fn spacing(&self) -> Option<Spacing> {
        self.smooth
    }

    fn prove(&mut self, grant: &mut Grant, at: Instant) {
        grant.proved = Some(at);
        self.each(grant, |window, cost, free_at| window.prove(cost, free_at, at));
    }

    /// Every window of which a grant has slots, with their number and when they are free.
    fn each(&mut self, grant: &mut Grant, mut act: impl FnMut(&mut Window, u32, &mut FreeAt)) {
        for (length, free_at) in &mut grant.slots {
            if let Some(window) = self.windows.iter_mut().find(|window| window.spec.window == *length) {
                act(window, grant.cost, free_at);
            }
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

    /// Takes its slots of a window that came after it was granted.
    fn join(&mut self, window: &mut Window) {
        let mut free_at = None;
        window.hold(self.cost);
        if let Some(at) = self.proved {
            window.prove(self.cost, &mut free_at, at);
        }
        self.slots.push((window.spec.window, free_at));
    }
}

impl Spacing {
    /// A cost from before a change of the limits is capped by the new ones, like that of any grant.
    fn new(policy: &UpstreamPolicy, (at, cost): (Instant, u32)) -> Option<Self> {
        let interval = policy.limits.iter().map(|spec| spec.window / spec.count.get()).max();
        let capped = policy.limits.iter().fold(cost, |cost, spec| cost.min(spec.count.get()));
        interval.filter(|_| policy.smooth).map(|interval| Self { interval, last: (at, capped) })
    }

    /// When the next attempt may be.
    pub fn next(&self) -> Instant {
        self.last.0 + self.interval * self.last.1
    }
}

/// Whether a window is the one that a changed policy means, and has what that needs.
fn goes_on(window: &Window, spec: LimitSpec, now: Instant) -> bool {
    window.spec.window == spec.window && window.knows(spec.count.get(), now)
}
