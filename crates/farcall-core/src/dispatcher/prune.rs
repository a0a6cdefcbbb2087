//! Pruning: forgetting calls that ended longer ago than they are kept, few at a time, beside everything else.
//!
//! The store is asked for those of one kind, oldest first; what nothing holds goes with the writes of a turn. The next
//! question rests on these writes, so one batch is under way at a time. How long that takes says how large the next
//! batch is and how long it waits: a disk that is busy with sends is left to them.
//!
//! When what is left is more than the store may hold, calls go before their time, as many as it takes: those that ended
//! as somebody wanted first, the oldest of each state first.

use std::time::Duration;

use super::{Dispatcher, Effect, Timer, Write};
use crate::call::State;
use crate::id::CallId;
use crate::retention::{KEY_KEPT, Retention, SPARED};
use crate::time::{Instant, Now};

/// Calls of the smallest batch and of the largest.
const BATCH_MIN: u32 = 32;
const BATCH_MAX: u32 = 512;
/// A batch that took less may be followed by a larger one, one that took more by a smaller one.
const BATCH_QUICK: Duration = Duration::from_millis(10);
const BATCH_SLOW: Duration = Duration::from_millis(40);
/// The shortest and the longest wait between two batches; between, as long as the last one took.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// How often is looked when there was nothing more to do: an eighth of the shortest retention, within these.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(60);
/// How often at least while the store may hold only so much.
const LOOK_AT_SIZE: Duration = Duration::from_secs(5);
/// When is looked again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What of ended calls is pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The idempotency keys of calls that ended long ago; the calls stay.
    Keys,
    /// Calls in this state without a key.
    Calls(State),
}

/// A question to the store: what ended at `until` or before, from behind `after` on, at most `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleAsk {
    pub of: Stale,
    pub until: Instant,
    pub after: Option<(Instant, CallId)>,
    pub count: u32,
}

/// A call that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleCall {
    pub call: CallId,
    pub ended_at: Instant,
    /// An attempt or a callback of it is not over.
    pub is_held: bool,
}

/// Where pruning stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Pruning {
    retention: Option<Retention>,
    phase: Phase,
    /// The kind that is looked for, by its place in [`KINDS`], and how far that has come.
    kind: usize,
    after: Option<(Instant, CallId)>,
    batch: u32,
    timer: Option<Instant>,
    /// What the store held when it was asked last.
    stored_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default)]
enum Phase {
    #[default]
    Rests,
    /// Asked then.
    Asks { ask: StaleAsk, since: Instant },
    /// These go when the pause is over.
    Pauses { of: Stale, found: Vec<StaleCall> },
}

/// Keys first, because a call that has one is kept for its sake.
const KINDS: [Stale; 7] = [
    Stale::Keys,
    Stale::Calls(State::Succeeded),
    Stale::Calls(State::Cancelled),
    Stale::Calls(State::Failed),
    Stale::Calls(State::Expired),
    Stale::Calls(State::Unknown),
    Stale::Calls(State::Poisoned),
];

/// In which order calls go for want of room, after all kinds that go by their age.
const FOR_ROOM: [State; 6] =
    [State::Succeeded, State::Cancelled, State::Failed, State::Expired, State::Unknown, State::Poisoned];

impl Pruning {
    pub(super) const fn stored(&mut self, bytes: u64) {
        self.stored_bytes = Some(bytes);
    }

    /// Whether calls are looked for that would be kept if there were room.
    const fn is_for_room(&self) -> bool {
        self.kind >= KINDS.len()
    }

    /// How many of so many calls are too many for what the store may hold, taking all to be of one size.
    fn too_many(&self, calls: u64) -> u32 {
        let most = self.retention.and_then(|retention| retention.bytes_max);
        let Some((stored, most)) = self.stored_bytes.zip(most) else { return 0 };
        let excess = stored.saturating_sub(most);
        let count = (u128::from(excess) * u128::from(calls)).div_ceil(u128::from(stored.max(1)));
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl Dispatcher {
    /// From now on calls are kept so long after their end. Without a word nothing is ever pruned.
    pub fn set_retention(&mut self, now: Instant, retention: Retention) {
        self.pruning.retention = Some(retention);
        self.rest(now);
    }

    /// What the last `Effect::FindStale` asks for; nothing when it has been answered.
    pub const fn stale_wanted(&self) -> Option<&StaleAsk> {
        match &self.pruning.phase {
            Phase::Asks { ask, .. } => Some(ask),
            Phase::Rests | Phase::Pauses { .. } => None,
        }
    }

    /// The time for the next step of pruning has come.
    pub(super) fn prune_on(&mut self, now: Now) {
        self.pruning.timer = None;
        if self.draining {
            return;
        }
        if self.is_held_up() {
            return self.rest(now.instant + RETRY_AFTER);
        }
        if !self.may_write() {
            return self.set_prune_timer(now.instant + PAUSE_MIN);
        }
        match std::mem::take(&mut self.pruning.phase) {
            Phase::Asks { .. } => {}
            Phase::Rests => {
                (self.pruning.kind, self.pruning.after) = (0, None);
                self.pruning.batch = self.pruning.batch.max(BATCH_MIN);
            }
            Phase::Pauses { of, found } => self.prune_found(now, of, &found),
        }
        self.ask_for_stale(now);
    }

    /// An answer to a question that nobody asks any more means nothing.
    pub(super) fn stale_found(&mut self, now: Now, answered: StaleAsk, mut found: Vec<StaleCall>) {
        let Phase::Asks { ask, since } = self.pruning.phase else { return };
        if answered != ask {
            return;
        }
        let took = now.instant.since(since);
        self.pruning.batch = match took {
            _ if took > BATCH_SLOW => ask.count / 2,
            _ if took < BATCH_QUICK => ask.count * 2,
            _ => ask.count,
        }
        .clamp(BATCH_MIN, BATCH_MAX);
        let mut is_last = u32::try_from(found.len()).unwrap_or(u32::MAX) < ask.count;
        if self.pruning.is_for_room() {
            // What was asked rests on an earlier size.
            let wanted = self.pruning.too_many(self.durable_census.sum());
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            is_last &= found.len() <= wanted;
            found.truncate(wanted);
        }
        self.pruning.after = found.last().map(|last| (last.ended_at, last.call));
        if is_last {
            self.pruning.kind += 1;
            self.pruning.after = None;
        }
        let pause = if found.is_empty() { Duration::ZERO } else { took.clamp(PAUSE_MIN, PAUSE_MAX) };
        self.pruning.phase = Phase::Pauses { of: ask.of, found };
        self.set_prune_timer(now.instant + pause);
    }

    pub(super) fn stale_unread(&mut self, now: Now) {
        if matches!(self.pruning.phase, Phase::Asks { .. }) {
            self.rest(now.instant + RETRY_AFTER);
        }
    }

    /// A question that was asked never will be answered: what it rests on was not made durable.
    pub(super) fn cancel_stale(&mut self, now: Now) {
        self.stale_unread(now);
    }

    /// From when on what attempts count in limits is kept.
    pub(super) fn grants_since(&self, now: Instant) -> Instant {
        self.pruning.retention.map_or(Instant::MIN, |retention| retention.grants_since(now))
    }

    fn prune_found(&mut self, now: Now, of: Stale, found: &[StaleCall]) {
        let Some(retention) = self.pruning.retention else { return };
        let grants_since = retention.grants_since(now.instant);
        for &StaleCall { call, is_held, .. } in found {
            match of {
                Stale::Keys => self.writes.push(Write::FreeKey { call }),
                Stale::Calls(state) if !is_held && !self.calls.contains_key(&call) => {
                    self.writes.push(Write::Prune { call, state, grants_since });
                    self.census.prune(state);
                }
                Stale::Calls(_) => {}
            }
        }
    }

    /// Asks for the next kind of which something may have become old; rests when there is none left.
    fn ask_for_stale(&mut self, now: Now) {
        let Some(retention) = self.pruning.retention else { return };
        while let Some(&of) = KINDS.get(self.pruning.kind) {
            let kept = match of {
                Stale::Keys => Some(KEY_KEPT),
                Stale::Calls(state) => retention.of(state).filter(|_| self.durable_census.calls(state) > 0),
            };
            if let Some(kept) = kept {
                let Pruning { after, batch: count, .. } = self.pruning;
                let ask = StaleAsk { of, until: now.instant - kept, after, count };
                self.pruning.phase = Phase::Asks { ask, since: now.instant };
                return self.push_after_all(Effect::FindStale);
            }
            self.pruning.kind += 1;
            self.pruning.after = None;
        }
        if let Some(ask) = self.ask_for_room(now) {
            self.pruning.phase = Phase::Asks { ask, since: now.instant };
            return self.push_after_all(Effect::FindStale);
        }
        let every = retention.shortest().map_or(LOOK_MAX, |shortest| (shortest / 8).clamp(LOOK_MIN, LOOK_MAX));
        let every = if retention.bytes_max.is_some() { every.min(LOOK_AT_SIZE) } else { every };
        self.rest(now.instant + every);
    }

    /// What to ask for when all that is old is gone and the store holds too much all the same.
    fn ask_for_room(&mut self, now: Now) -> Option<StaleAsk> {
        let wanted = self.pruning.too_many(self.durable_census.sum());
        if wanted == 0 {
            return None;
        }
        loop {
            let &state = FOR_ROOM.get(self.pruning.kind - KINDS.len())?;
            if self.durable_census.calls(state) > 0 {
                let Pruning { after, batch, .. } = self.pruning;
                let (of, until) = (Stale::Calls(state), now.instant - SPARED);
                return Some(StaleAsk { of, until, after, count: batch.min(wanted) });
            }
            self.pruning.kind += 1;
            self.pruning.after = None;
        }
    }

    /// Begins anew then.
    fn rest(&mut self, until: Instant) {
        self.pruning.phase = Phase::Rests;
        self.set_prune_timer(until);
    }

    fn set_prune_timer(&mut self, at: Instant) {
        if let Some(set) = self.pruning.timer.replace(at) {
            self.timers.cancel(set, Timer::Prune);
        }
        self.timers.set(at, Timer::Prune);
    }
}
