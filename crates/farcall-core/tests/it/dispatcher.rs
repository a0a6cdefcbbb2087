//! Whatever is reported, however late, twice or wrong: the dispatcher neither panics nor forgets what it counted.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{CallSpec, Durability, ErrorKind, Method, Priority, Source, State, TenantId, UpstreamId};
use farcall_core::dispatcher::{Dispatcher, Effect, Event, Seq, TURNS_IN_FLIGHT_MAX, Write};
use farcall_core::hop::{Heading, Hop, REDIRECTS_MAX, Redirect};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::{CallbackPolicy, LimitSpec, UpstreamPolicy};
use farcall_core::remaining::{Bound, Remaining};
use farcall_core::time::{Instant, Now, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Act {
    Offer {
        upstream: u32,
        cost: u32,
        delay_ms: Option<u64>,
        deadline_ms: Option<u64>,
        has_file: bool,
    },
    /// A report on the call of this number, right or wrong.
    Report {
        call: u128,
        number: u32,
        what: What,
    },
    Pass {
        ms: u64,
    },
    Turn,
    /// The oldest turn under way is durable.
    Commit,
    /// It is not, and none after it.
    Fail,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Launched,
    Sent { late_ms: u64 },
    FirstByte { late_ms: u64 },
    Finished(AttemptResult),
    Aborted(BytesSent),
    Filed,
    Cancel,
    Drain,
}

fn bytes_sent() -> impl Strategy<Value = BytesSent> {
    prop_oneof![Just(BytesSent::No), Just(BytesSent::Refused), Just(BytesSent::Maybe)]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let methods = prop_oneof![Just(Method::Get), Just(Method::Post)];
    let to = (1u32..=3, methods).prop_map(|(upstream, method)| Redirect::To { upstream: UpstreamId(upstream), method });
    prop_oneof![9 => to, 1 => Just(Redirect::Downgrade)]
}

fn quota() -> impl Strategy<Value = Remaining> {
    let bound = (0u64..6, 1u64..90_000).prop_map(|(count, ms)| Bound::new(count, Duration::from_millis(ms)));
    prop::collection::vec(bound, 1..4).prop_map(|bounds| Remaining::of(bounds).expect("times are not zero"))
}

fn result() -> impl Strategy<Value = AttemptResult> {
    let status = prop_oneof![Just(200u16), Just(302), Just(404), Just(429), Just(500), Just(503)];
    let error = prop_oneof![Just(ErrorKind::Connect), Just(ErrorKind::Timeout), Just(ErrorKind::TooLarge)];
    let (status, error) = (prop::option::of(status), prop::option::weighted(0.3, error));
    let redirect = prop::option::weighted(0.7, redirect());
    let quota = prop::option::weighted(0.5, quota());
    (status, error, prop::option::of(0u64..100_000), any::<bool>(), bytes_sent(), redirect, quota).prop_map(
        |(status, error, wait_ms, content_ok, bytes_sent, redirect, quota)| AttemptResult {
            quota,
            redirect: redirect.filter(|_| status == Some(302)),
            status,
            error,
            retry_after: wait_ms.map(Duration::from_millis),
            content_ok,
            bytes_sent,
            latency: Duration::ZERO,
            size: 0,
        },
    )
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        20 => Just(What::Launched),
        20 => (0u64..5_000).prop_map(|late_ms| What::Sent { late_ms }),
        20 => (0u64..5_000).prop_map(|late_ms| What::FirstByte { late_ms }),
        60 => result().prop_map(What::Finished),
        20 => bytes_sent().prop_map(What::Aborted),
        10 => Just(What::Filed),
        5 => Just(What::Cancel),
        1 => Just(What::Drain),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let offer = (1u32..=3, 1u32..=8, prop::option::of(0u64..10_000), prop::option::of(0u64..60_000), any::<bool>());
    prop_oneof![
        3 => offer.prop_map(|(upstream, cost, delay_ms, deadline_ms, has_file)| {
            Act::Offer { upstream, cost, delay_ms, deadline_ms, has_file }
        }),
        6 => (0u128..12, 1u32..4, what()).prop_map(|(call, number, what)| Act::Report { call, number, what }),
        2 => (0u64..5_000).prop_map(|ms| Act::Pass { ms }),
        4 => Just(Act::Turn),
        4 => Just(Act::Commit),
        1 => Just(Act::Fail),
    ]
}

/// Four upstreams: unlimited, limited in two ways, one attempt at a time, and callbacks that share those limits.
fn dispatcher() -> Dispatcher {
    let limit =
        |count: u32, ms| LimitSpec { count: count.try_into().expect("not zero"), window: Duration::from_millis(ms) };
    let callbacks = CallbackPolicy { on_success: Some(UpstreamId(0)), on_fail: Some(UpstreamId(4)) };
    let plain = UpstreamPolicy { callbacks, timeout: Duration::from_secs(2), ..UpstreamPolicy::default() };
    let mut dispatcher = Dispatcher::new(UpstreamPolicy::default(), 1);
    dispatcher.declare(plain.clone());
    let limits = vec![limit(3, 500), limit(5, 70_000)];
    let plain = UpstreamPolicy { redirects: 3, ..plain };
    let limited = dispatcher.declare(UpstreamPolicy { limits, ..plain.clone() });
    dispatcher.declare(UpstreamPolicy { concurrency: NonZeroU32::new(1), ..plain });
    let webhooks = dispatcher.declare_sharing(UpstreamPolicy::default(), limited);
    assert_eq!(webhooks, UpstreamId(4));
    dispatcher
}

fn now(ms: u64) -> Now {
    let micros = i64::try_from(ms * 1_000).expect("runs are short");
    Now { instant: Instant::from_micros(micros), timestamp: Timestamp::from_micros(1_700_000_000_000_000 + micros) }
}

fn event(act: Act, offered: &mut u128, now: Now) -> Option<Event> {
    match act {
        Act::Offer { upstream, cost, delay_ms, deadline_ms, has_file } => {
            let call = CallId::from_bits(*offered);
            *offered += 1;
            Some(Event::Offered(Box::new(CallSpec {
                id: call,
                upstream: UpstreamId(upstream),
                source: if has_file { Source::Inbox } else { Source::Api },
                durability: Durability::Durable,
                method: Method::Get,
                priority: Priority::default(),
                tenant: TenantId::default(),
                cost: cost.try_into().expect("drawn from one"),
                accepted_at: now.timestamp,
                not_before: delay_ms.map(|ms| now.instant + Duration::from_millis(ms)),
                deadline: deadline_ms.map(|ms| now.instant + Duration::from_millis(ms)),
                overrides: None,
                has_file,
                callback: (cost > 6).then_some(UpstreamId(4)),
                callback_of: None,
            })))
        }
        Act::Report { call, number, what } => {
            let attempt = AttemptId { call: CallId::from_bits(call), number };
            let before = |ms| now.instant - Duration::from_millis(ms);
            Some(match what {
                What::Launched => Event::Launched { attempt },
                What::Sent { late_ms } => Event::Sent { attempt, at: before(late_ms) },
                What::FirstByte { late_ms } => Event::FirstByte { attempt, at: before(late_ms) },
                What::Finished(result) => Event::Finished { attempt, result },
                What::Aborted(wrote) => Event::Aborted { attempt, wrote },
                What::Filed => Event::Filed { call: attempt.call },
                What::Cancel => Event::Cancel { call: attempt.call },
                What::Drain => Event::Drain { until: now.instant + Duration::from_secs(5) },
            })
        }
        Act::Pass { .. } | Act::Turn | Act::Commit | Act::Fail => None,
    }
}

/// What the durable writes alone say of each call.
#[derive(Debug, Default)]
struct Journal {
    inserted: std::collections::BTreeSet<CallId>,
    ended: std::collections::BTreeSet<CallId>,
    started: std::collections::BTreeMap<CallId, u32>,
    hops: std::collections::BTreeMap<CallId, Hop>,
    out: std::collections::BTreeSet<AttemptId>,
}

impl Journal {
    fn read(&mut self, write: &Write) -> Result<(), TestCaseError> {
        match *write {
            Write::Insert { call, .. } => prop_assert!(self.inserted.insert(call), "{call} inserted twice"),
            Write::Start { attempt, .. } => {
                let started = self.started.entry(attempt.call).or_default();
                *started += 1;
                prop_assert_eq!(*started, attempt.number);
                prop_assert!(self.inserted.contains(&attempt.call) && !self.ended.contains(&attempt.call));
                prop_assert!(self.out.insert(attempt));
            }
            Write::Settle { call, attempt, progress, .. } => {
                if let Some(end) = attempt {
                    let attempt = AttemptId { call, number: end.number };
                    prop_assert!(self.out.remove(&attempt), "{attempt:?} ended twice");
                }
                match progress.and_then(|progress| progress.heading) {
                    Some(Heading::Hop(hop)) => {
                        let before = self.hops.insert(call, hop).map_or(0, |hop| hop.count);
                        prop_assert!(
                            hop.count == before + 1 && hop.count <= REDIRECTS_MAX.min(3),
                            "{hop:?} after {before}"
                        );
                    }
                    Some(Heading::Home) => prop_assert!(self.hops.remove(&call).is_some(), "{call} is at home"),
                    None => {}
                }
                if progress.is_some_and(|progress| progress.state.is_end()) {
                    prop_assert!(!self.hops.contains_key(&call), "{call} ended on its way");
                    prop_assert!(self.ended.insert(call), "{call} ended twice");
                }
            }
            Write::Close { .. }
            | Write::Release { .. }
            | Write::Filed { .. }
            | Write::Prune { .. }
            | Write::FreeKey { .. }
            | Write::Upstream { .. }
            | Write::Open { .. }
            | Write::Grant { .. }
            | Write::GrantEnd { .. }
            | Write::GrantsLeft { .. } => {}
            Write::Mark { call, .. } => prop_assert!(self.inserted.contains(&call) && !self.ended.contains(&call)),
        }
        Ok(())
    }
}

/// A dispatcher, and a disk that may fail it.
struct Bench {
    dispatcher: Dispatcher,
    journal: Journal,
    under_way: VecDeque<(Seq, Vec<Write>)>,
    refused: u64,
    /// Calls that were cancelled before they were offered.
    foreseen: std::collections::BTreeSet<CallId>,
}

impl Bench {
    fn turn(&mut self, now: Now) -> Result<(), TestCaseError> {
        let turn = self.dispatcher.turn(now);
        for effect in &turn.effects {
            match effect {
                Effect::Launch { attempt, hop, .. } => {
                    prop_assert!(self.journal.out.contains(attempt), "{attempt:?}");
                    let known = self.journal.hops.get(&attempt.call).map(|hop| hop.upstream);
                    prop_assert_eq!(*hop, known, "{:?} goes where the journal says", attempt);
                }
                Effect::Ended { call, .. } => prop_assert!(self.journal.ended.contains(call), "{call}"),
                Effect::Acknowledge { call } => prop_assert!(self.journal.inserted.contains(call), "{call}"),
                Effect::Refuse { call } => {
                    self.refused += 1;
                    prop_assert!(!self.journal.inserted.contains(call), "{call}");
                }
                Effect::CancelMissed { call } => {
                    let lives = self.journal.inserted.contains(call) && !self.journal.ended.contains(call);
                    prop_assert!(!lives || self.foreseen.contains(call), "{call}");
                }
                Effect::CancelNoted { .. }
                | Effect::Relay { .. }
                | Effect::Withhold { .. }
                | Effect::Abort { .. }
                | Effect::Load
                | Effect::FindStale
                | Effect::BreakerTurned { .. }
                | Effect::Refused { .. }
                | Effect::UpstreamStored { .. } => {}
            }
        }
        if !turn.writes.is_empty() {
            self.under_way.push_back((turn.seq, turn.writes));
        }
        prop_assert!(self.under_way.len() <= TURNS_IN_FLIGHT_MAX);
        Ok(())
    }

    fn commit(&mut self, now: Now) -> Result<(), TestCaseError> {
        let Some((seq, writes)) = self.under_way.pop_front() else { return Ok(()) };
        writes.iter().try_for_each(|write| self.journal.read(write))?;
        self.dispatcher.handle(now, Event::Committed { seq });
        let durable = self.dispatcher.durable_census();
        prop_assert_eq!((durable.accepted, durable.sum()), (self.journal.inserted.len() as u64, durable.accepted));
        Ok(())
    }

    fn fail(&mut self, now: Now) {
        let Some((seq, _)) = self.under_way.pop_front() else { return };
        self.under_way.clear();
        self.dispatcher.handle(now, Event::CommitFailed { seq });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_is_survived_and_what_is_written_stays_consistent(acts in vec(act(), 1..200)) {
        let (journal, foreseen) = (Journal::default(), std::collections::BTreeSet::new());
        let mut bench = Bench { dispatcher: dispatcher(), journal, under_way: VecDeque::new(), refused: 0, foreseen };
        let (mut ms, mut offered) = (0, 0);
        for act in acts {
            if let Act::Pass { ms: passed } = act {
                ms += passed;
            }
            if let Some(event) = event(act, &mut offered, now(ms)) {
                if let Event::Cancel { call } = event && call.bits() >= offered {
                    bench.foreseen.insert(call);
                }
                bench.dispatcher.handle(now(ms), event);
            }
            match act {
                Act::Turn => bench.turn(now(ms))?,
                Act::Commit => bench.commit(now(ms))?,
                Act::Fail => bench.fail(now(ms)),
                Act::Offer { .. } | Act::Report { .. } | Act::Pass { .. } => {}
            }
            let census = bench.dispatcher.census();
            prop_assert_eq!(census.accepted, census.sum());
            prop_assert_eq!(u64::from(bench.dispatcher.in_flight()) >= census.calls(State::Running), true);
        }
        for _ in 0..1_000 {
            ms += 1_000;
            bench.turn(now(ms))?;
            bench.commit(now(ms))?;
        }
        prop_assert!(bench.dispatcher.is_settled(), "whatever was decided is durable at last");
        let (durable, census) = (bench.dispatcher.durable_census(), bench.dispatcher.census());
        // A scheduled call that becomes due is queued without a write.
        let is_tried = |state: &&State| !matches!(state, State::Scheduled | State::Queued);
        for &state in State::ALL.iter().filter(is_tried) {
            prop_assert_eq!(durable.calls(state), census.calls(state));
        }
        prop_assert_eq!(durable.sum(), census.sum());
        let accepted = bench.journal.inserted.iter().filter(|call| call.bits() < 1 << 64).count() as u64;
        prop_assert_eq!(accepted + bench.refused, offered as u64, "each offer gets one answer");
        prop_assert_eq!(bench.dispatcher.in_flight() as usize, bench.journal.out.len());
    }
}
