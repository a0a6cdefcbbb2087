//! The heart: a state machine that decides what starts when, and what must be durable first.
//!
//! It is told what happened ([`Dispatcher::handle`]), asked for a turn ([`Dispatcher::turn`]) and says when it wants to
//! be asked again ([`Dispatcher::next_wakeup`]). It knows no clock and no I/O: time comes in, writes and effects go
//! out. The engine commits a turn's writes before it lets the effects that rest on them happen (`gate`).

mod census;
mod entry;
mod event;
mod finish;
mod load;
mod memory;
mod restore;
mod standing;
mod start;
#[cfg(test)]
mod tests;
mod turn;
mod upstream;

use std::collections::{HashMap, VecDeque};

pub use census::Census;
pub use event::Event;
pub use load::{LaneLoad, Loaded, Wanted};
pub use memory::Memory;
pub use restore::{OpenAttempt, Recovered};
pub use standing::{Standing, UpstreamStanding, Waiters};
pub use turn::{AttemptEnd, Callback, Effect, Progress, Seq, Turn, Write};

use crate::call::{CallSpec, State, UpstreamId, WaitReason};
use crate::id::CallId;
use crate::limit::{Limits, PastGrant};
use crate::policy::UpstreamPolicy;
use crate::retry::Fraction;
use crate::settle::Tries;
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};
use entry::{Cut, Entry};
use load::Loads;
use upstream::Upstream;

/// Writes that one turn may hold.
const TURN_WRITES_MAX: usize = 1_000;
/// Attempts that may be out at once over all upstreams, beside one of each upstream.
const ATTEMPTS_MAX: u32 = 1_024;

/// All decisions of one engine.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    upstreams: Vec<Upstream>,
    /// Calls in memory: all that run or are held back, and the front of each lane.
    calls: HashMap<CallId, Entry>,
    memory: Memory,
    /// Waiting calls in memory.
    loaded: usize,
    loads: Loads,
    /// The last place that was given at the end of a lane.
    last_place: Instant,
    /// Callbacks that wait until their parent is filed, by parent.
    held: HashMap<CallId, CallId>,
    callbacks: UpstreamId,
    timers: Timers,
    /// Upstreams that may have something to start, in turns.
    ready: VecDeque<UpstreamId>,
    /// Upstreams kept from starting more because too many attempts are out over all. Each upstream stands in one of
    /// the two queues at most, and is `is_ready` then.
    crowded_out: VecDeque<UpstreamId>,
    /// Attempts that are out.
    in_flight: u32,
    census: Census,
    draining: bool,
    rng: fastrand::Rng,
    turn: Turn,
}

impl Dispatcher {
    /// An empty dispatcher. `callbacks` is the policy of callbacks, `seed` the source of all chance.
    pub fn new(callbacks: UpstreamPolicy, seed: u64) -> Self {
        let mut dispatcher = Self {
            upstreams: Vec::new(),
            calls: HashMap::new(),
            memory: Memory::default(),
            loaded: 0,
            loads: Loads::default(),
            last_place: Instant::from_micros(i64::MIN),
            held: HashMap::new(),
            callbacks: UpstreamId(0),
            timers: Timers::default(),
            ready: VecDeque::new(),
            crowded_out: VecDeque::new(),
            in_flight: 0,
            census: Census::default(),
            draining: false,
            rng: fastrand::Rng::with_seed(seed),
            turn: Turn::default(),
        };
        let limits = Limits::new(&callbacks);
        dispatcher.callbacks = dispatcher.add_upstream(callbacks, limits);
        dispatcher
    }

    /// The same, with other bounds on what is kept in memory.
    #[must_use]
    pub const fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// The upstream that callbacks go to.
    pub const fn callback_upstream(&self) -> UpstreamId {
        self.callbacks
    }

    /// Adds an upstream to which nothing was sent before.
    pub fn declare(&mut self, policy: UpstreamPolicy) -> UpstreamId {
        let limits = Limits::new(&policy);
        self.add_upstream(policy, limits)
    }

    /// Adds an upstream as an earlier process left its limits.
    pub fn declare_restored(&mut self, policy: UpstreamPolicy, past: &[PastGrant], now: Now) -> UpstreamId {
        let limits = Limits::restore(&policy, past, now.instant);
        self.add_upstream(policy, limits)
    }

    /// An upstream asked an earlier process to keep away until then.
    pub fn restore_closing(&mut self, id: UpstreamId, until: Instant) {
        self.upstream(id).close_until(until);
    }

    /// Starts nothing at an upstream from now on.
    pub fn pause(&mut self, id: UpstreamId) {
        self.upstream(id).is_paused = true;
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Offered(spec) => self.accept(now, *spec, None),
            Event::Launched { attempt } => self.note_launched(now, attempt),
            Event::Sent { attempt, at } => self.note_sent(attempt, at),
            Event::FirstByte { attempt, at } => self.note_first_byte(attempt, at),
            Event::Finished { attempt, result } => self.finished(now, attempt, &result),
            Event::Aborted { attempt, wrote } => self.aborted(now, attempt, wrote),
            Event::Filed { call } => self.filed(now, call),
            Event::Loaded(loaded) => self.loaded(now, *loaded),
            Event::LoadFailed => self.load_failed(now),
            Event::Drain { until } => self.drain(until),
        }
    }

    /// Fires what is due, starts what may start, and hands over all that was decided since the last turn.
    pub fn turn(&mut self, now: Now) -> Turn {
        while let Some(timer) = self.timers.pop(now.instant) {
            self.fire(now, timer);
        }
        self.start_ready(now);
        self.ask_for_more();
        let seq = Seq(self.turn.seq.0 + 1);
        let next = Turn { seq, ..Turn::default() };
        let done = std::mem::replace(&mut self.turn, next);
        Turn { seq, ..done }
    }

    /// When the next turn may have something to do without any event; `now` itself when it has already.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let may_start = !self.ready.is_empty() || (!self.is_full() && !self.crowded_out.is_empty());
        if may_start || self.may_ask() || !self.turn.writes.is_empty() {
            return Some(now);
        }
        self.timers.next()
    }

    /// Whether everything decided has been handed over.
    pub const fn is_settled(&self) -> bool {
        self.turn.writes.is_empty() && self.turn.effects_now.is_empty()
    }

    /// The upstream of a live call.
    pub fn upstream_of(&self, call: CallId) -> Option<UpstreamId> {
        self.calls.get(&call).map(|entry| entry.spec.upstream)
    }

    /// Whether no attempt is out.
    pub const fn is_drained(&self) -> bool {
        self.in_flight == 0
    }

    fn add_upstream(&mut self, policy: UpstreamPolicy, limits: Limits) -> UpstreamId {
        let id = UpstreamId(u32::try_from(self.upstreams.len()).expect("fewer than 2^32 upstreams"));
        self.upstreams.push(Upstream::new(policy, limits));
        id
    }

    fn upstream(&mut self, id: UpstreamId) -> &mut Upstream {
        &mut self.upstreams[id.0 as usize]
    }

    fn accept(&mut self, now: Now, spec: CallSpec, callback: Option<Callback>) {
        let call = spec.id;
        let acknowledges = callback.is_none();
        let not_before = spec.not_before.map(|at| now.instant_of(at)).filter(|&at| at > now.instant);
        let state = if not_before.is_some() { State::Scheduled } else { State::Queued };
        let next_at = not_before.map(|at| now.timestamp_of(at));
        let place = not_before.unwrap_or_else(|| self.end_of_line(now));
        let is_held = spec.callback_of.is_some_and(|of| of.held);
        let ready_at = (!is_held).then_some(place);
        self.turn.writes.push(Write::Insert { call, state, next_at, ready_at, callback });
        if acknowledges {
            self.turn.effects_after.push(Effect::Acknowledge { call });
        }
        self.census.accept(state);
        let asleep = not_before.map(|_| WaitReason::NotBefore);
        self.place_new(now, Entry::new(spec, state, Tries::default(), 0, place), asleep);
    }

    /// Asks an upstream for its next call in the coming turn.
    fn wake(&mut self, id: UpstreamId) {
        if self.draining {
            return;
        }
        let upstream = self.upstream(id);
        upstream.blocked = None;
        if !upstream.is_ready && upstream.lanes.ready() > 0 {
            upstream.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Upstream(id) => {
                self.upstream(id).wake_at = None;
                self.wake(id);
            }
            Timer::Wake(call) => self.wake_call(call),
            Timer::Deadline(call) => self.expire(now, call),
            Timer::Timeout(attempt) => self.cut(attempt.call, Some(attempt.number), Cut::Timeout),
            Timer::StoredDeadline => self.loads.deadline_fired(),
            Timer::Load => self.loads.may_ask_again(),
            Timer::Drain => self.cut_all(Cut::Drain),
        }
    }

    fn filed(&mut self, now: Now, call: CallId) {
        self.turn.writes.push(Write::Filed { call });
        if let Some(callback) = self.held.remove(&call) {
            let ready_at = self.end_of_line(now);
            self.turn.writes.push(Write::Release { call: callback, ready_at });
            self.stand(callback, ready_at, None);
        }
    }

    fn drain(&mut self, until: Instant) {
        self.draining = true;
        self.ready.clear();
        self.crowded_out.clear();
        for upstream in &mut self.upstreams {
            upstream.is_ready = false;
        }
        self.timers.set(until, Timer::Drain);
    }

    fn chance(&mut self) -> Fraction {
        Fraction(self.rng.f64())
    }
}
