//! The heart: a state machine that decides what starts when, and what must be durable first.
//!
//! It is told what happened ([`Dispatcher::handle`]), asked for a turn ([`Dispatcher::turn`]) and says when it wants to
//! be asked again ([`Dispatcher::next_wakeup`]). It knows no clock and no I/O: time comes in, writes and effects go
//! out. The engine commits a turn's writes and says so; the effects that rest on them come with a later turn (`gate`).

mod breaker;
mod cancel;
mod census;
mod change;
mod entry;
mod ephemeral;
mod event;
mod explain;
mod finish;
mod foresee;
mod forget;
mod gate;
mod grants;
mod hedge;
mod load;
mod memory;
mod pause;
mod prune;
mod quota;
mod relay;
mod remaining;
mod restore;
mod standing;
mod start;
mod storage;
#[cfg(test)]
mod tests;
mod turn;
mod undo;
mod upstream;

use std::collections::{BTreeSet, VecDeque};

pub use census::Census;
pub use event::Event;
pub use explain::{Explanation, Held, StoredPlace};
pub use foresee::Refusal;
pub use hedge::HedgeStanding;
pub use load::{LaneLoad, Loaded, Wanted};
pub use memory::Memory;
pub use prune::{Stale, StaleAsk, StaleCall};
pub use restore::{OpenAttempt, Recovered};
pub use standing::{BreakerStanding, Standing, UpstreamStanding, Waiters};
pub use storage::TURNS_IN_FLIGHT_MAX;
pub use turn::{AskedBy, AttemptEnd, Callback, Effect, Mark, Progress, Seq, Turn, Write};

use crate::call::{CallSpec, Durability, QuotaId, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::id_map::IdMap;
use crate::limit::{Limits, Past};
use crate::policy::{CallbackPolicy, UpstreamPolicy};
use crate::retry::Fraction;
use crate::settle::Tries;
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};
use entry::{Cut, Entry};
use forget::Vacant;
use gate::Gate;
use grants::GrantEnds;
use hedge::Late;
use load::Loads;
use memory::LeftNew;
use prune::Pruning;
use quota::Quota;
use storage::Storage;
use upstream::Upstream;

/// Writes that one turn may hold.
const TURN_WRITES_MAX: usize = 1_000;
/// Durable attempts that may be out at once over all upstreams, beside one of each quota. Of ephemeral calls there are only
/// so many anyway.
const ATTEMPTS_MAX: u32 = 1_024;

/// All decisions of one engine.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    upstreams: Vec<Upstream>,
    quotas: Vec<Quota>,
    vacant: Vacant,
    /// Calls in memory: all that run or are held back, and the front of each lane.
    calls: IdMap<CallId, Entry>,
    /// Calls left to the store before their insert was durable.
    left_new: IdMap<CallId, LeftNew>,
    /// Calls that have left memory since that was asked.
    left: Vec<CallId>,
    memory: Memory,
    /// Waiting calls in memory.
    loaded: usize,
    loads: Loads,
    pruning: Pruning,
    /// The last place that was given at the end of a lane.
    last_place: Instant,
    /// Calls taken over that farcall may have died of.
    suspects: u32,
    /// Callbacks that wait until their parent is filed, behind that.
    held: BTreeSet<(CallId, CallId)>,
    commands: UpstreamId,
    timers: Timers,
    /// Quotas at which something may start, in turns.
    ready: VecDeque<QuotaId>,
    /// Quotas at which no more durable calls start because too many attempts are out over all.
    crowded_out: VecDeque<QuotaId>,
    /// Attempts that are out, and how many of them are of durable calls.
    in_flight: u32,
    in_flight_durable: u32,
    /// What is to be looked at once everybody who waits has had a turn.
    late: Late,
    census: Census,
    /// Of ephemeral calls; those that have ended count as pruned.
    ephemeral_census: Census,
    /// As it was with the last turn that is durable.
    durable_census: Census,
    draining: bool,
    rng: fastrand::Rng,
    /// The number of the last turn.
    seq: Seq,
    /// Decided since the last turn that held writes.
    writes: Vec<Write>,
    /// What rests on those writes.
    effects_after: Vec<Effect>,
    /// Decided of ephemeral calls since the last turn.
    unstored: Vec<Write>,
    /// What may happen now.
    effects: Vec<Effect>,
    grant_ends: GrantEnds,
    gate: Gate,
    storage: Storage,
    /// Some of the writes were handed over before and not made durable.
    keeps_writes: bool,
}

impl Dispatcher {
    /// An empty dispatcher. `commands` is the policy of callbacks that run a command, `seed` the source of all chance.
    pub fn new(commands: UpstreamPolicy, seed: u64) -> Self {
        let mut dispatcher = Self {
            upstreams: Vec::new(),
            quotas: Vec::new(),
            vacant: Vacant::default(),
            calls: IdMap::default(),
            left_new: IdMap::default(),
            left: Vec::new(),
            memory: Memory::default(),
            loaded: 0,
            loads: Loads::default(),
            pruning: Pruning::default(),
            last_place: Instant::MIN,
            suspects: 0,
            held: BTreeSet::new(),
            commands: UpstreamId(0),
            timers: Timers::default(),
            ready: VecDeque::new(),
            crowded_out: VecDeque::new(),
            in_flight: 0,
            in_flight_durable: 0,
            late: Late::default(),
            census: Census::default(),
            ephemeral_census: Census::default(),
            durable_census: Census::default(),
            draining: false,
            rng: fastrand::Rng::with_seed(seed),
            seq: Seq::default(),
            writes: Vec::new(),
            effects_after: Vec::new(),
            unstored: Vec::new(),
            effects: Vec::new(),
            grant_ends: GrantEnds::default(),
            gate: Gate::default(),
            storage: Storage::default(),
            keeps_writes: false,
        };
        dispatcher.commands = dispatcher.declare(commands);
        dispatcher
    }

    /// The same, with other bounds on what is kept in memory.
    #[must_use]
    pub const fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// The upstream of callbacks that run a command.
    pub const fn command_upstream(&self) -> UpstreamId {
        self.commands
    }

    /// Adds an upstream to which nothing was sent before.
    pub fn declare(&mut self, policy: UpstreamPolicy) -> UpstreamId {
        let limits = Limits::new(&policy);
        self.declare_with(policy, limits)
    }

    /// Adds an upstream as an earlier process left its limits.
    pub fn declare_restored(&mut self, policy: UpstreamPolicy, past: &Past, now: Now) -> UpstreamId {
        let limits = Limits::restore(&policy, past, now.instant);
        self.declare_with(policy, limits)
    }

    /// Adds an upstream that shares the quota of another: the limits of `with` hold for both together. Of the policy's
    /// own the concurrency holds beside them, for this one alone; its limits count for nothing.
    pub fn declare_sharing(&mut self, policy: UpstreamPolicy, with: UpstreamId) -> UpstreamId {
        let quota = self.upstream(with).quota;
        self.add_upstream(policy, quota)
    }

    /// An upstream asked an earlier process to keep away until then.
    pub fn restore_closing(&mut self, id: UpstreamId, until: Instant) {
        let quota = self.upstream(id).quota;
        self.quota(quota).close_until(until);
    }

    /// From now on the ends of an upstream's calls start these callbacks.
    pub fn set_callbacks(&mut self, id: UpstreamId, callbacks: CallbackPolicy) {
        self.upstream(id).policy.callbacks = callbacks;
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Offered(spec) => self.accept(now, *spec, None),
            Event::Launched { attempt } => self.note_launched(now, attempt),
            Event::Sent { attempt, at } => self.note_sent(attempt, at),
            Event::FirstByte { attempt, at } => self.note_first_byte(attempt, at),
            Event::Answered { attempt, result } => self.answered(now, attempt, &result),
            Event::Finished { attempt, result } => self.finished(now, attempt, &result),
            Event::Aborted { attempt, wrote } => self.aborted(now, attempt, wrote),
            Event::Committed { seq } => self.committed(now, seq),
            Event::CommitFailed { seq } => self.commit_failed(now, seq),
            Event::Cancel { call } => self.cancel(now, call),
            Event::Abandoned { call } => self.abandoned(now, call),
            Event::Filed { call } => self.filed(now, call),
            Event::Loaded(loaded) => self.loaded(now, *loaded),
            Event::LoadFailed => self.load_failed(now),
            Event::Stored { bytes } => self.pruning.stored(bytes),
            Event::StaleFound { ask, found } => self.stale_found(now, ask, found),
            Event::StaleUnread => self.stale_unread(now),
            Event::Drain { until } => self.drain(now, until),
        }
    }

    /// Fires what is due, starts what may start, and hands over all that was decided since the last turn.
    pub fn turn(&mut self, now: Now) -> Turn {
        while let Some(timer) = self.timers.pop(now.instant) {
            self.fire(now, timer);
        }
        self.start_ready(now);
        self.hedge_late(now);
        self.ask_for_more();
        self.hand_over()
    }

    /// When the next turn may have something to do without any event; `now` itself when it has already.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let has_ready = !self.ready.is_empty() || (!self.is_full() && !self.crowded_out.is_empty());
        let may_start = has_ready && self.starts_max() > self.writes.len();
        let has_writes = !self.writes.is_empty() && self.may_write();
        let has_news = !self.effects.is_empty() || !self.unstored.is_empty();
        if may_start || has_writes || self.may_ask() || has_news || !self.late.is_empty() {
            return Some(now);
        }
        self.timers.next()
    }

    /// Whether everything decided has been handed over, and all of it is durable.
    pub fn is_settled(&self) -> bool {
        self.writes.is_empty()
            && self.grant_ends.is_empty()
            && self.unstored.is_empty()
            && self.effects.is_empty()
            && self.gate.is_empty()
    }

    /// The upstream of a live call.
    pub fn upstream_of(&self, call: CallId) -> Option<UpstreamId> {
        self.calls.get(&call).map(|entry| entry.spec.upstream)
    }

    /// Whether no attempt is out.
    pub const fn is_drained(&self) -> bool {
        self.in_flight == 0
    }

    fn declare_with(&mut self, policy: UpstreamPolicy, limits: Limits) -> UpstreamId {
        let quota = self.add_quota(&policy, limits);
        let id = self.add_upstream(policy, quota);
        self.quota(quota).owner = id;
        id
    }

    /// Nobody owns it yet.
    fn add_quota(&mut self, policy: &UpstreamPolicy, limits: Limits) -> QuotaId {
        let quota = Quota::new(self.commands, limits, policy);
        if let Some(id) = self.vacant.quotas.pop() {
            *self.quota(id) = quota;
            return id;
        }
        self.quotas.push(quota);
        QuotaId(u32::try_from(self.quotas.len() - 1).expect("fewer than 2^32 upstreams"))
    }

    fn add_upstream(&mut self, policy: UpstreamPolicy, quota: QuotaId) -> UpstreamId {
        let upstream = Upstream::new(policy, quota);
        let id = match self.vacant.upstreams.pop() {
            Some(id) => {
                *self.upstream(id) = upstream;
                id
            }
            None => {
                self.upstreams.push(upstream);
                UpstreamId(u32::try_from(self.upstreams.len() - 1).expect("fewer than 2^32 upstreams"))
            }
        };
        self.quota(quota).sharers.push(id);
        id
    }

    fn quota(&mut self, id: QuotaId) -> &mut Quota {
        &mut self.quotas[id.0 as usize]
    }

    fn quota_of(&self, id: UpstreamId) -> &Quota {
        &self.quotas[self.upstreams[id.0 as usize].quota.0 as usize]
    }

    fn upstream(&mut self, id: UpstreamId) -> &mut Upstream {
        &mut self.upstreams[id.0 as usize]
    }

    fn accept(&mut self, now: Now, spec: CallSpec, callback: Option<Callback>) {
        let call = spec.id;
        let durability = spec.durability;
        let is_durable = durability == Durability::Durable;
        if is_durable && callback.is_none() && self.is_held_up() {
            return self.effects.push(Effect::Refuse { call });
        }
        if let Some(refusal) = self.refusal(now, &spec).filter(|_| !is_durable) {
            return self.effects.push(Effect::Refused { call, refusal });
        }
        let acknowledges = is_durable && callback.is_none();
        let not_before = spec.not_before.filter(|&at| at > now.instant);
        let state = if not_before.is_some() { State::Scheduled } else { State::Queued };
        let place = not_before.unwrap_or_else(|| self.end_of_line(now));
        let is_held = spec.callback_of.is_some_and(|of| of.held);
        let ready_at = (!is_held).then_some(place);
        self.record(durability, Write::Insert { call, state, ready_at, callback });
        if acknowledges {
            self.effects_after.push(Effect::Acknowledge { call });
        }
        self.census_of(durability).accept(state);
        let asleep = not_before.map(|_| WaitReason::NotBefore);
        let entry = Entry { is_stored: false, ..Entry::new(spec, state, Tries::default(), 0, place) };
        self.place_new(entry, asleep);
        self.expire_if_hopeless(now, call);
    }

    /// Asks a quota for its next call in the coming turn.
    fn wake(&mut self, id: QuotaId) {
        if self.draining {
            return;
        }
        let quota = self.quota(id);
        quota.blocked = None;
        if !quota.is_ready && !quota.turns.is_empty() {
            quota.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Quota(id) => {
                self.quota(id).wake_at = None;
                self.wake(id);
            }
            Timer::Wake(call) => self.wake_call(call),
            Timer::Deadline(call) => self.expire(now, call),
            Timer::Timeout(attempt) => self.cut(attempt.call, Some(attempt.number), Cut::Timeout),
            Timer::Survived(attempt) => self.note_survived(attempt),
            Timer::StoredDeadline => self.loads.deadline_fired(),
            Timer::Load => self.loads.may_ask_again(),
            Timer::Drain => self.cut_all(Cut::Drain),
            Timer::Commit => self.try_again(),
            Timer::Prune => self.prune_on(now),
            Timer::Hedge(attempt) => self.late.attempts.push(attempt),
            Timer::GrantEnds => self.write_grant_ends(),
        }
    }

    fn filed(&mut self, now: Now, call: CallId) {
        self.writes.push(Write::Filed { call });
        while let Some(&held) = self.held.range((call, CallId::from_bits(0))..).next().filter(|(of, _)| *of == call) {
            self.held.remove(&held);
            let ready_at = self.end_of_line(now);
            self.writes.push(Write::Release { call: held.1, ready_at });
            self.stand(held.1, ready_at, None);
        }
    }

    fn drain(&mut self, now: Now, until: Instant) {
        self.draining = true;
        self.ready.clear();
        self.crowded_out.clear();
        for quota in &mut self.quotas {
            (quota.is_ready, quota.is_crowded_out) = (false, false);
        }
        self.send_away(now);
        self.write_grant_ends();
        self.timers.set(until, Timer::Drain);
    }

    fn chance(&mut self) -> Fraction {
        Fraction(self.rng.f64())
    }
}
