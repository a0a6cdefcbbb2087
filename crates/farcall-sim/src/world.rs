//! The world of one run: a virtual clock, everything that is going to happen, and the one process that may run.
//!
//! This file moves time on. What happens then stands in `engine.rs` (turns, commits, effects), `executor.rs` (attempts
//! and their requests) and `life.rs` (starts, crashes, drains).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use farcall_core::dispatcher::Loaded;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::time::Instant;
use farcall_store::memory::MemoryStore;

use crate::account::Account;
use crate::checker::{self, Check, Ledger, ensure};
use crate::clocks::Clocks;
use crate::dice::Dice;
use crate::disk::{Care, Outcome};
use crate::engine::Process;
use crate::executor::Flight;
use crate::facts::Facts;
use crate::log::{Line, Log};
use crate::plan::Plan;
use crate::upstream::Network;

/// More happenings than any run needs.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    /// The true time.
    pub(crate) now: Instant,
    pub(crate) clocks: Clocks,
    pub(crate) dice: Dice,
    pub(crate) log: Log,
    pub(crate) facts: Facts,
    pub(crate) ledger: Ledger,
    pub(crate) store: MemoryStore,
    pub(crate) care: Care,
    /// What a forgetful store goes back to.
    pub(crate) forgetful: Option<MemoryStore>,
    pub(crate) process: Option<Process>,
    pub(crate) flights: BTreeMap<AttemptId, Flight>,
    /// Of the present start or the last one.
    pub(crate) policies: Vec<UpstreamPolicy>,
    pub(crate) networks: Vec<Network>,
    /// How upstreams count that do, by the place of the quota.
    pub(crate) accounts: Vec<Option<Account>>,
    /// What a load has read and did not hand over yet.
    pub(crate) loading: Option<Loaded>,
    /// Offers that wait for a process that takes them.
    pub(crate) parked: Vec<usize>,
    pub(crate) healed: bool,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    happenings: u64,
    /// Everything must have ended by then.
    pub(crate) end_by: Option<Instant>,
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    Boot,
    Offer {
        place: usize,
    },
    /// Of one start only, or of whichever runs.
    Crash {
        boot: Option<usize>,
    },
    Drain {
        place: usize,
    },
    Heal,
    WallJump {
        by_us: i64,
    },
    Reconfigure,
    Forget,
    Written {
        boot: usize,
        seq: u64,
        outcome: Outcome,
    },
    Reopened {
        boot: usize,
        seq: u64,
        is_kept: bool,
    },
    Stall {
        place: usize,
    },
    Cancel {
        place: usize,
    },
    Pause {
        place: usize,
    },
    Resume {
        place: usize,
    },
    Echo {
        attempt: AttemptId,
    },
    GoesOn {
        boot: usize,
    },
    Sent {
        attempt: AttemptId,
    },
    Arrive {
        attempt: AttemptId,
    },
    FirstByte {
        attempt: AttemptId,
    },
    Finish {
        attempt: AttemptId,
    },
    AbortDone {
        attempt: AttemptId,
    },
    Filed {
        boot: usize,
        call: CallId,
    },
    /// What a load asked for is read.
    Read {
        boot: usize,
    },
    /// What was read comes to the engine.
    Loaded {
        boot: usize,
    },
    /// Ended calls are looked for.
    ReadStale {
        boot: usize,
    },
    /// What was found comes to the engine.
    StaleRead {
        boot: usize,
    },
}

impl World {
    pub(crate) fn new(seed: u64, lines_kept: usize, care: Care) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice.fork());
        let mut world = Self {
            now: plan.start,
            clocks: Clocks::new(plan.start, plan.wall_ahead.as_micros() as i64),
            dice,
            log: Log::new(lines_kept),
            facts: Facts { arrivals: vec![Vec::new(); plan.upstreams.len()], ..Facts::default() },
            ledger: Ledger::default(),
            store: MemoryStore::new(),
            care,
            forgetful: None,
            process: None,
            flights: BTreeMap::new(),
            policies: plan.upstreams.iter().map(|upstream| upstream.policy.clone()).collect(),
            networks: plan.upstreams.iter().map(|upstream| upstream.network.clone()).collect(),
            accounts: plan.upstreams.iter().map(|upstream| upstream.account).collect(),
            loading: None,
            parked: Vec::new(),
            healed: false,
            queue: BinaryHeap::new(),
            happenings: 0,
            end_by: None,
            plan,
        };
        world.schedule_plan();
        world
    }

    /// Runs until every call has ended after all faults have stopped, then looks at the whole.
    pub(crate) fn run(&mut self) -> Check {
        loop {
            self.take_turns()?;
            self.stop_if_drained()?;
            checker::check_prompt(self)?;
            self.check_cancels()?;
            if self.is_done() {
                break;
            }
            self.advance()?;
        }
        while let Some(Reverse((at, _, happening))) = self.queue.pop() {
            if let Happening::Arrive { attempt } = happening {
                self.now = at;
                self.arrive(attempt);
            }
        }
        checker::check_whole(self)
    }

    pub(crate) fn schedule(&mut self, at: Instant, happening: Happening) {
        self.happenings += 1;
        self.queue.push(Reverse((at, self.happenings, happening)));
    }

    pub(crate) fn note(&mut self, line: Line) {
        self.log.note(self.now, line);
    }

    fn schedule_plan(&mut self) {
        let start = self.now;
        let faults = self.plan.faults.clone();
        self.schedule(start, Happening::Boot);
        for place in 0..self.plan.calls.len() {
            self.schedule(start + self.plan.calls[place].offer_after, Happening::Offer { place });
        }
        for &after in &faults.crashes_after {
            self.schedule(start + after, Happening::Crash { boot: None });
        }
        for (place, &(after, _)) in faults.drains_after.iter().enumerate() {
            self.schedule(start + after, Happening::Drain { place });
        }
        for (place, pause) in faults.pauses.iter().enumerate() {
            self.schedule(start + pause.from, Happening::Pause { place });
            self.schedule(start + pause.until, Happening::Resume { place });
        }
        for (place, &(after, _)) in faults.stalls_after.iter().enumerate() {
            self.schedule(start + after, Happening::Stall { place });
        }
        for &(after, by_us) in &faults.wall_jumps {
            self.schedule(start + after, Happening::WallJump { by_us });
        }
        for &after in faults.reconfigured_after.iter().filter(|_| faults.changes_limits) {
            self.schedule(start + after, Happening::Reconfigure);
        }
        for &after in &faults.forgets_after {
            self.schedule(start + after, Happening::Forget);
        }
        self.schedule(start + faults.heal_after, Happening::Heal);
    }

    fn is_done(&self) -> bool {
        // What lost reports when its call has ended.
        let is_idle = self.process.as_ref().is_some_and(|process| process.is_idle() && process.dispatcher.is_drained());
        self.healed && is_idle && self.parked.is_empty() && self.ledger.is_finished(self.plan.calls.len())
    }

    /// To the next thing that happens.
    fn advance(&mut self) -> Check {
        let happens_at = self.queue.peek().map(|Reverse((at, _, _))| *at);
        let wakes_at = self.process.as_ref().and_then(|process| process.wakes_at(self.now));
        let next = happens_at.into_iter().chain(wakes_at).min();
        let live = self.ledger.live();
        let Some(next) = next else {
            return ensure(false, || format!("nothing is going to happen any more, and {live} calls are live"));
        };
        self.now = self.now.max(next);
        let is_late = self.end_by.is_some_and(|end| self.now > end);
        ensure(!is_late, || format!("{live} calls are still live long after all faults have stopped"))?;
        ensure(self.happenings < HAPPENINGS_MAX, || "the run never comes to an end".to_owned())?;
        if happens_at.is_some_and(|at| at <= self.now) {
            let Some(Reverse((_, _, happening))) = self.queue.pop() else { return Ok(()) };
            return self.happen(happening);
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Check {
        match happening {
            Happening::Boot => return self.boot(),
            Happening::Offer { place } => self.offer(place),
            Happening::Crash { boot } => return self.crash(boot),
            Happening::Drain { place } => self.drain(place),
            Happening::Heal => self.heal(),
            Happening::WallJump { by_us } => self.wall_jump(by_us),
            Happening::Reconfigure => return self.reconfigure(),
            Happening::Forget => return self.forget_idle(),
            Happening::Written { boot, seq, outcome } => return self.written(boot, seq, outcome),
            Happening::Reopened { boot, is_kept, .. } => return self.reopened(boot, is_kept),
            Happening::Stall { place } => self.stall(place),
            Happening::Cancel { place } => self.cancel(place),
            Happening::Pause { place } => self.pause(place),
            Happening::Resume { place } => self.resume(place),
            Happening::Echo { attempt } => self.echo(attempt),
            Happening::GoesOn { boot } => self.go_on(boot),
            Happening::Sent { attempt } => self.sent(attempt),
            Happening::Arrive { attempt } => self.arrive(attempt),
            Happening::FirstByte { attempt } => self.first_byte(attempt),
            Happening::Finish { attempt } => self.finish(attempt),
            Happening::AbortDone { attempt } => self.abort_done(attempt),
            Happening::Filed { boot, call } => self.filed(boot, call),
            Happening::Read { boot } => return self.read(boot),
            Happening::Loaded { boot } => self.loaded(boot),
            Happening::ReadStale { boot } => return self.read_stale(boot),
            Happening::StaleRead { boot } => self.stale_read(boot),
        }
        Ok(())
    }
}
