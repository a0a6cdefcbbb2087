//! Random calls: when each is offered, to whom, and how it wants to be treated.
//!
//! How the upstreams treat them is in `policies` and `faults`.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::call::{Overrides, Source};
use farcall_core::retry::{OnUnknown, RetryPolicy, StatusSet};

use crate::dice::Dice;
use crate::policies;

/// A call as its submitter wants it; `offer_after` counts from the start of the run.
#[derive(Debug, Clone)]
pub(crate) struct CallPlan {
    pub(crate) offer_after: Duration,
    /// Its place among the upstreams of the plan; 0 is the callbacks'.
    pub(crate) upstream: u32,
    pub(crate) source: Source,
    pub(crate) method: &'static str,
    pub(crate) priority: u8,
    pub(crate) tenant: u64,
    pub(crate) cost: NonZeroU32,
    /// From acceptance on.
    pub(crate) delay: Option<Duration>,
    /// From acceptance on.
    pub(crate) deadline: Option<Duration>,
    pub(crate) overrides: Option<Overrides>,
    /// Its submitter wants it to end so long after the offer.
    pub(crate) cancel_after: Option<Duration>,
    /// Where its own callback goes.
    pub(crate) callback: Option<u32>,
}

/// What a seed's calls may ask for.
#[derive(Debug, Clone, Copy)]
struct Wishes {
    priorities: bool,
    tenants: u32,
    costs: bool,
    delays: bool,
    deadlines: bool,
    overrides: bool,
    files: bool,
    cancels: bool,
    span: Duration,
    /// The longest delay, deadline and time until a call is cancelled.
    longest: Duration,
}

/// The methods that calls have.
pub(crate) const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "PATCH", "PURGE"];

/// All calls of a run, for this many upstreams and with callbacks to these, in the order of their offers, and the time
/// over which they come.
pub(crate) fn draw(dice: &mut Dice, upstreams: u32, webhooks: &[u32]) -> (Vec<CallPlan>, Duration) {
    let wishes = Wishes::draw(dice);
    let mut calls: Vec<CallPlan> =
        (0..dice.spread_count(20, 200)).map(|_| wishes.call(dice, upstreams, webhooks)).collect();
    calls.sort_by_key(|call| call.offer_after);
    (calls, wishes.span)
}

/// Turns the calls into many of one lane, each due before those that came earlier: the front of the lane is always new, and
/// what stood there is left to the store. Many end where they wait, by their deadline or because somebody wants it.
pub(crate) fn crowd(dice: &mut Dice, calls: &mut Vec<CallPlan>, span: Duration) {
    let one = |dice: &mut Dice| {
        let offer_after = dice.up_to(span);
        let delay = span + (span - offer_after) * 3 + dice.up_to(span / 50);
        let (soon, late) = (span / 2_000, span / 4);
        CallPlan {
            offer_after,
            upstream: 1,
            priority: 3,
            tenant: 0,
            delay: Some(delay),
            deadline: dice.percent(70).then(|| dice.spread(soon, late)),
            cancel_after: dice.percent(20).then(|| dice.spread(soon, late)),
            ..dice.pick(calls).clone()
        }
    };
    let crowd = (0..dice.count(100, 200)).map(|_| one(dice)).collect();
    *calls = crowd;
    calls.sort_by_key(|call| call.offer_after);
}

/// Turns the calls into a backlog of one tenant, among which others have a call now and then.
pub(crate) fn pile_up(dice: &mut Dice, calls: &mut Vec<CallPlan>, span: Duration) {
    let one = |dice: &mut Dice| {
        let is_of_the_pile = dice.percent(95);
        CallPlan {
            offer_after: if is_of_the_pile { dice.up_to(span / 10) } else { dice.up_to(span) },
            upstream: 1,
            priority: 3,
            tenant: if is_of_the_pile { 1 } else { u64::from(dice.count(2, 4)) },
            delay: None,
            ..dice.pick(calls).clone()
        }
    };
    let pile = (0..dice.count(100, 300)).map(|_| one(dice)).collect();
    *calls = pile;
    calls.sort_by_key(|call| call.offer_after);
}

impl CallPlan {
    /// It came as a file, whose callbacks wait until it is filed.
    pub(crate) fn has_file(&self) -> bool {
        self.source == Source::Inbox
    }
}

impl Wishes {
    fn draw(dice: &mut Dice) -> Self {
        let span = dice.spread(Duration::from_millis(10), Duration::from_secs(3_600));
        // Often all of it happens while calls still come.
        let longest = if dice.percent(50) { span } else { span.max(Duration::from_secs(60)) * 2 };
        Self {
            priorities: dice.percent(50),
            tenants: *dice.pick(&[1, 1, 3, 8]),
            costs: dice.percent(40),
            delays: dice.percent(40),
            deadlines: dice.percent(50),
            overrides: dice.percent(30),
            files: dice.percent(60),
            cancels: dice.percent(30),
            span,
            longest,
        }
    }

    fn call(self, dice: &mut Dice, upstreams: u32, webhooks: &[u32]) -> CallPlan {
        let cost = if self.costs && dice.percent(40) { dice.count(1, 12) } else { 1 };
        let longest = self.longest;
        CallPlan {
            offer_after: if dice.percent(33) { Duration::ZERO } else { dice.up_to(self.span) },
            upstream: dice.count(1, upstreams),
            source: if self.files && dice.percent(60) { Source::Inbox } else { Source::Api },
            method: dice.pick::<&str>(&METHODS),
            priority: if self.priorities { u8::try_from(dice.count(1, 5)).unwrap_or(3) } else { 3 },
            tenant: u64::from(dice.count(0, self.tenants - 1)),
            cost: NonZeroU32::new(cost).expect("drawn from one"),
            delay: (self.delays && dice.percent(30)).then(|| dice.spread(Duration::from_millis(1), longest)),
            deadline: (self.deadlines && dice.percent(40)).then(|| dice.spread(Duration::from_millis(1), longest)),
            overrides: (self.overrides && dice.percent(40)).then(|| overrides(dice)),
            cancel_after: (self.cancels && dice.percent(40)).then(|| dice.spread(Duration::from_micros(10), longest)),
            callback: (!webhooks.is_empty() && dice.percent(20)).then(|| *dice.pick(webhooks)),
        }
    }
}

fn overrides(dice: &mut Dice) -> Overrides {
    let retry = match dice.count(0, 3) {
        0 => Some(RetryPolicy::none()),
        1 => Some(policies::retry(dice, true)),
        _ => None,
    };
    Overrides {
        timeout: dice.percent(30).then(|| dice.spread(Duration::from_millis(50), Duration::from_secs(60))),
        retry,
        on_unknown: *dice.pick(&[None, None, Some(OnUnknown::Retry), Some(OnUnknown::Stop)]),
        idempotent: *dice.pick(&[None, None, Some(true), Some(false)]),
        success_statuses: dice.percent(20).then(|| StatusSet::new(vec![(200, 204), (500, 500)])),
        hedge: None,
    }
}
