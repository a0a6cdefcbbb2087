//! One window: its slots, those that are held and those that cool.
//!
//! Up to [`EXACT_COUNT_MAX`] slots each is free at its own moment. Above, moments are rounded up to one of
//! [`STEPS`] in a window: a slot is free late by less than a [`STEPS`]th of the window and never early, and however many
//! slots there are, their account stays small.

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use super::Admission;
use super::past::{Ask, Past};
use crate::policy::{LimitSpec, UpstreamPolicy};
use crate::time::Instant;

/// Windows of more slots round.
pub(super) const EXACT_COUNT_MAX: u32 = 10_000;
/// Moments that a rounded window tells apart.
const STEPS: u32 = 256;
/// Windows up to this length may cool from `jitter` after the last byte was sent.
const SENT_PROOF_WINDOW_MAX: Duration = Duration::from_secs(60);
/// Windows up to this length are taken as full at start.
pub(super) const RESTART_FULL_WINDOW_MAX: Duration = Duration::from_secs(1);
/// Windows up to this length count what another boot proved from the beginning of this one.
pub(crate) const DOUBTED_WINDOW_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) spec: LimitSpec,
    /// Cools already at `jitter` after sending.
    sent_is_proof: bool,
    /// Slots of attempts whose arrival is not proved.
    held: u64,
    /// Slots by the moment at which they are free.
    cooling: BTreeMap<Instant, u64>,
    cooling_sum: u64,
    /// Counts above this need to know more of the past than was asked for when it began to count, until then.
    unknown: Option<(u32, Instant)>,
}

/// When the slots that an attempt holds of a window are free; nothing while they do not cool.
pub(super) type FreeAt = Option<Instant>;

impl Window {
    /// All slots free.
    pub(super) fn new(spec: LimitSpec, policy: &UpstreamPolicy) -> Self {
        let sent_is_proof = sent_is_proof(spec, policy);
        Self { spec, sent_is_proof, held: 0, cooling: BTreeMap::new(), cooling_sum: 0, unknown: None }
    }

    /// The same window under another policy: what is in use stays so. Of a lowered count those slots remain that are
    /// free last, because the others are free before there is room again.
    pub(super) fn change(&mut self, spec: LimitSpec, policy: &UpstreamPolicy) {
        self.spec = spec;
        self.sent_is_proof = sent_is_proof(spec, policy);
    }

    /// Whether it knows enough of the past for this count.
    pub(super) fn knows(&self, count: u32, now: Instant) -> bool {
        self.unknown.is_none_or(|(known, until)| count <= known || until <= now)
    }

    /// What it has to be told of the past, if this is the moment from which on it counts.
    pub(super) fn ask(spec: LimitSpec, policy: &UpstreamPolicy, certain_since: Instant, now: Instant) -> Ask {
        let since = now - (spec.window + spec.window / 1_000 + policy.jitter);
        let is_doubted = spec.window <= DOUBTED_WINDOW_MAX && since < certain_since;
        match step_us(spec) {
            _ if spec.window <= RESTART_FULL_WINDOW_MAX => Ask::Nothing,
            // Whatever happened in an earlier boot may have happened just before this one began.
            None if is_doubted => Ask::Latest { since: Instant::MIN, count: spec.count.get() },
            Some(_) if is_doubted => Ask::Nothing,
            None => Ask::Latest { since, count: spec.count.get() },
            Some(step_us) => Ask::Sums { since, step: Duration::from_micros(step_us.unsigned_abs()) },
        }
    }

    /// As the past left it, which has the answers of this window at `place`. An attempt that was still out cools from now and `jitter`, because the kernel may go on
    /// delivering. A window that asked for nothing is taken as full.
    pub(super) fn restore(&mut self, past: &Past, place: usize, jitter: Duration, now: Instant) {
        let (ask, grants) = past.windows.get(place).map_or((Ask::Nothing, &[][..]), |(ask, grants)| (*ask, grants));
        if !matches!(ask, Ask::Sums { .. }) {
            self.unknown = Some((self.spec.count.get(), self.free_at(now + jitter)));
        }
        if ask == Ask::Nothing {
            self.cool(now + jitter, u64::from(self.spec.count.get()));
            return;
        }
        let doubted_before = if self.spec.window <= DOUBTED_WINDOW_MAX { past.certain_since } else { Instant::MIN };
        for grant in grants {
            let from = grant.proved_at.map_or(now + jitter, |at| at.max(doubted_before).min(now + jitter));
            self.cool(from, u64::from(grant.cost));
        }
        self.prune(now);
    }

    /// Slots in use. More than there are, after N was lowered.
    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.held + self.cooling_sum).unwrap_or(u32::MAX)
    }

    pub(super) fn hold(&mut self, slots: u32) {
        self.held += u64::from(slots);
    }

    /// Held slots cool `jitter` after sending, where that is proof: from `from` on.
    pub(super) fn sent(&mut self, slots: u32, free_at: &mut FreeAt, from: Instant) {
        if self.sent_is_proof && free_at.is_none() {
            *free_at = Some(self.hold_to_cool(from, slots));
        }
    }

    /// The arrival is proved to lie before `from`: held slots cool from then, and those that cool from later on do, too.
    pub(super) fn prove(&mut self, slots: u32, free_at: &mut FreeAt, from: Instant) {
        match *free_at {
            None => *free_at = Some(self.hold_to_cool(from, slots)),
            Some(at) if self.free_at(from) < at => {
                self.uncool(at, slots);
                *free_at = Some(self.cool(from, u64::from(slots)));
            }
            Some(_) => {}
        }
    }

    /// The slots are free at once.
    pub(super) fn give_back(&mut self, slots: u32, free_at: FreeAt) {
        match free_at {
            Some(at) => self.uncool(at, slots),
            None => self.held -= u64::from(slots),
        }
    }

    pub(super) fn prune(&mut self, now: Instant) {
        while let Some(entry) = self.cooling.first_entry().filter(|entry| *entry.key() <= now) {
            self.cooling_sum -= entry.remove();
        }
    }

    /// Expects a pruned window.
    pub(super) fn admit(&self, now: Instant, cost: u32) -> Admission {
        let taken = self.held + self.cooling_sum + u64::from(cost);
        let mut missing = taken.saturating_sub(u64::from(self.spec.count.get()));
        if missing == 0 {
            return Admission::Ready;
        }
        for (&at, &slots) in &self.cooling {
            missing = missing.saturating_sub(slots);
            if missing == 0 {
                debug_assert!(at > now, "pruned windows hold no cooled slots");
                return Admission::NotBefore(at);
            }
        }
        Admission::Full
    }

    /// When so many slots more will have been granted, if each is taken as soon as it is free and cools from `latency`
    /// after its grant. Those that attempts hold now are taken to begin to cool after `latency`. Expects a pruned window.
    pub(super) fn forecast(&self, now: Instant, slots: u64, latency: Duration) -> Instant {
        let count = u64::from(self.spec.count.get());
        let used = self.held + self.cooling_sum;
        let free = (now, count.saturating_sub(used));
        let held = (self.free_at(now + latency), self.held);
        // Of a lowered count those slots remain that are free last.
        let mut excess = used.saturating_sub(count);
        let mut round: Vec<(Instant, u64)> = vec![free];
        for (at, slots) in self.cooling.iter().map(|(&at, &slots)| (at, slots)).chain([held]) {
            let gone = excess.min(slots);
            excess -= gone;
            round.push((at, slots - gone));
        }
        let (rounds, mut place) = ((slots - 1) / count, (slots - 1) % count);
        let mut at = now;
        for (free_at, slots) in round {
            at = free_at;
            if place < slots {
                break;
            }
            place -= slots;
        }
        let turn = self.spec.window + self.spec.window / 1_000 + latency;
        at + turn.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// From when on after its grant a slot cools, when an attempt takes so long.
    pub(super) fn cools_after(&self, latency: Duration, jitter: Duration) -> Duration {
        if self.sent_is_proof { latency.min(jitter) } else { latency }
    }

    /// Moments that it tells apart now: what its account costs.
    #[cfg(test)]
    pub(super) fn moments(&self) -> usize {
        self.cooling.len()
    }

    /// Slots it has, and how many cool, by the moment at which they are free.
    pub(super) fn cooling(&self) -> (u64, u64, btree_map::Iter<'_, Instant, u64>) {
        (u64::from(self.spec.count.get()), self.cooling_sum, self.cooling.iter())
    }

    /// A slot that cools from `from` is free then.
    pub(super) fn free_at(&self, from: Instant) -> Instant {
        let exact = from + self.spec.window + self.spec.window / 1_000;
        match step_us(self.spec) {
            None => exact,
            Some(step) => {
                let past_step = exact.as_micros().rem_euclid(step);
                let missing = if past_step == 0 { 0 } else { step - past_step };
                Instant::from_micros(exact.as_micros().saturating_add(missing))
            }
        }
    }

    fn cool(&mut self, from: Instant, slots: u64) -> Instant {
        let free_at = self.free_at(from);
        *self.cooling.entry(free_at).or_default() += slots;
        self.cooling_sum += slots;
        free_at
    }

    fn hold_to_cool(&mut self, from: Instant, slots: u32) -> Instant {
        self.held -= u64::from(slots);
        self.cool(from, u64::from(slots))
    }

    /// Takes cooling slots back; those that have cooled already are gone and stay so. A late report may have put
    /// fewer slots of another attempt at that very moment since: they have cooled as well, so taking them is harmless.
    fn uncool(&mut self, free_at: Instant, slots: u32) {
        if let Some(count) = self.cooling.get_mut(&free_at) {
            let slots = u64::from(slots).min(*count);
            *count -= slots;
            self.cooling_sum -= slots;
            if *count == 0 {
                self.cooling.remove(&free_at);
            }
        }
    }
}

/// The distance of the moments that a rounded window tells apart; nothing for an exact one.
fn step_us(spec: LimitSpec) -> Option<i64> {
    let step = i64::try_from(spec.window.as_micros() / u128::from(STEPS)).unwrap_or(i64::MAX);
    (spec.count.get() > EXACT_COUNT_MAX).then_some(step.max(1))
}

fn sent_is_proof(spec: LimitSpec, policy: &UpstreamPolicy) -> bool {
    !policy.strict && spec.window <= SENT_PROOF_WINDOW_MAX
}
