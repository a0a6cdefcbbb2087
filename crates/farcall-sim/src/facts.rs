//! What truly happened, as somebody who sees both sides would write it down. The checkers rest on it and on the store.
//!
//! Nothing here is judged.

use std::collections::{BTreeMap, BTreeSet};

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::steady::Steady;
use farcall_core::time::{Instant, Now, Timestamp};

/// All facts of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// When the process started.
    pub(crate) boots: Vec<Instant>,
    /// Every start begins one, and every change of policies while the process runs.
    pub(crate) eras: Vec<Era>,
    pub(crate) crashes: Vec<Instant>,
    pub(crate) origins: BTreeMap<CallId, Origin>,
    pub(crate) acknowledged: BTreeSet<CallId>,
    pub(crate) launches: BTreeMap<AttemptId, Launch>,
    /// What turns decided of attempts, those whose commits were lost included.
    pub(crate) decided: BTreeMap<AttemptId, Decided>,
    /// When the engine ended calls.
    pub(crate) finishes: BTreeMap<CallId, Steady>,
    /// By the upstream whose quota they are charged to, in order of time.
    pub(crate) arrivals: Vec<Vec<Arrival>>,
    pub(crate) reports: BTreeMap<AttemptId, Report>,
    pub(crate) closings: Vec<Closing>,
    pub(crate) statements: Vec<Statement>,
    pub(crate) filed: BTreeMap<CallId, Instant>,
    /// Until when attempts might go on, of each time the process was asked to stop.
    pub(crate) drains: Vec<Steady>,
    /// The call that was offered last for each place of the plan.
    pub(crate) places: BTreeMap<usize, CallId>,
    /// When the engine was told to cancel calls.
    pub(crate) cancels: BTreeMap<CallId, Vec<Steady>>,
    pub(crate) pauses: Vec<Pause>,
    pub(crate) openings: Vec<Opening>,
    /// As the engine told them, in order.
    pub(crate) breaker_turns: Vec<BreakerTurn>,
    pub(crate) commits_failed: u64,
    /// Hedges that turns decided, by call; those whose commits were lost included.
    pub(crate) hedges: BTreeMap<CallId, u32>,
    /// How many ends of attempts were heard of, or decided without that.
    pub(crate) ends: u64,
    pub(crate) stalls: u64,
}

impl Facts {
    /// That somebody opened this quota is durable: from then on it is closed no more.
    pub(crate) fn opened(&mut self, quota: Option<usize>) {
        let mut waiting = self.openings.iter_mut().filter(|opening| Some(opening.quota) == quota && !opening.is_stored);
        let Some(opening) = waiting.next() else { return };
        opening.is_stored = true;
        let Opening { quota, at, .. } = *opening;
        let closed = self.closings.iter_mut().filter(|closing| closing.quota == quota && closing.at <= at);
        for closing in closed {
            closing.until = closing.until.min(at);
        }
    }
}

/// A time in which the same policies hold, by upstream.
#[derive(Debug)]
pub(crate) struct Era {
    pub(crate) at: Instant,
    pub(crate) policies: Vec<UpstreamPolicy>,
}

/// When the process was asked to stop, and until when its attempts may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// A time in which nothing was to start at the upstreams of a quota; it began in this start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) quota: usize,
    pub(crate) boot: usize,
    pub(crate) from: Instant,
    pub(crate) until: Option<Instant>,
    /// Somebody was told that it is durable.
    pub(crate) is_told: bool,
}

/// Somebody opened a quota that had asked everybody to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) quota: usize,
    pub(crate) at: Steady,
    /// That is durable.
    pub(crate) is_stored: bool,
}

/// A breaker opened or closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BreakerTurn {
    pub(crate) quota: usize,
    pub(crate) boot: usize,
    pub(crate) at: Instant,
    pub(crate) what: Turned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    Opened,
    Closed,
    /// Somebody resumed its upstream, or that was forgotten: it knows nothing of before.
    ByHand,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// The call at this place of the plan, offered then.
    Planned { place: usize, accepted_at: Timestamp, times: Times },
    /// Inserted by us when its parent ended, to go to the upstream at this place.
    Callback { parent: CallId, place: usize },
}

/// Moments of an attempt that its row tells in another time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decided {
    /// Where it was to go.
    pub(crate) place: usize,
    /// When it was decided that it starts.
    pub(crate) era: usize,
    pub(crate) granted_at: Instant,
    pub(crate) proved_at: Option<Instant>,
    pub(crate) ended_at: Option<Steady>,
    /// Which end of all it was, when nobody reported it.
    pub(crate) nth_end: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch {
    /// Where it went, by what was stored.
    pub(crate) place: usize,
    pub(crate) method: &'static str,
    pub(crate) at: Instant,
    pub(crate) boot: usize,
}

/// A request as its upstream counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) attempt: AttemptId,
    pub(crate) cost: u32,
    /// When it was decided that it starts.
    pub(crate) era: usize,
}

/// What the executor told the engine, and when the engine took it in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) at: Now,
    pub(crate) steady: Steady,
    pub(crate) what: Reported,
    /// Which end of all it was.
    pub(crate) nth_end: u64,
}

/// An upstream asked everybody to wait, and the engine knew from `at` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing {
    pub(crate) quota: usize,
    pub(crate) attempt: AttemptId,
    pub(crate) at: Steady,
    pub(crate) until: Steady,
}

/// An upstream told how much more it takes, and the engine heard it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement {
    pub(crate) quota: usize,
    /// In which start it was heard.
    pub(crate) boot: usize,
    /// When the request left at the earliest, when it was counted, and when its answer was heard.
    pub(crate) sent_at: Instant,
    pub(crate) counted_at: Instant,
    pub(crate) heard_at: Instant,
    pub(crate) remaining: u32,
    /// Until then it is believed.
    pub(crate) until: Instant,
    /// It is what the upstream does.
    pub(crate) is_true: bool,
}

/// The times that a call asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) not_before: Option<Steady>,
    pub(crate) deadline: Option<Steady>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Reported {
    Finished(AttemptResult),
    Aborted { wrote: BytesSent, cut: Cut },
}

impl Reported {
    pub(crate) const fn wrote(self) -> BytesSent {
        match self {
            Self::Finished(result) => result.bytes_sent,
            Self::Aborted { wrote, .. } => wrote,
        }
    }
}

/// Why an attempt was cut off, by the clock and by what others of its call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Timeout,
    Deadline,
    Drain,
    /// Another attempt of its call had won.
    Lost,
}
